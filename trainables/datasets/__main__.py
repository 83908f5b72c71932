"""Commands of `python -m trainables.datasets`, which `winnow datasets` offers as well: list, show, collect, import, check.

python -m trainables.datasets import halfcheetah_medium-v2.hdf5 --environment HalfCheetah-v4 --name d4rl/halfcheetah/medium-v2
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainables import project
from trainables.command_line import Parser
from trainables.datasets import local
from trainables.datasets.collect.record_command import add_arguments, record
from trainables.environments import name_modules
from trainables.errors import UserError
from trainables.output import printable, to_json

if TYPE_CHECKING:
    from trainables.datasets.table import Table


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns 0, or 2 after an error of the user, which is one line on stderr."""
    try:
        project.apply()
        given = _parser().parse_args(arguments)
        return int(given.act(given) or 0)
    except UserError as error:
        print(printable(f"error: {error}", lines=False), file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m trainables.datasets", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_commands(parser)
    return parser


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Add the commands about datasets, each with its function as `act`. Imports neither numpy nor torch."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, text: str, act: Callable[[argparse.Namespace], int | None], example: str) -> argparse.ArgumentParser:
        epilog, raw = f"example:\n  {parser.prog} {name} {example}".rstrip(), argparse.RawDescriptionHelpFormatter
        added = commands.add_parser(name, help=text, description=text, epilog=epilog, formatter_class=raw)
        help = "a module that registers environments; no other module is imported for them; may be repeated (also $WINNOW_IMPORT)"
        added.add_argument("--import", dest="imports", action="append", default=[], metavar="MODULE", help=help)
        added.add_argument("--json", action="store_true", help="print JSON, for programs")
        added.set_defaults(act=partial(_act, act))
        return added

    command("list", "list the datasets on this machine, and those that can be recorded here", _list, "")

    text = "record datasets with the policies that ship with the code; keep those that exist"
    add_arguments(command("collect", text, record, "winnow/hopper/medium-v0 --transitions 20000"))

    text = "read datasets as a trial would, and make their environments; for one that is not here, show what Minari's hub says"
    command("check", text, _check, "winnow/hopper/medium-v0").add_argument("datasets", nargs="+", metavar="ID").completer = _known  # type: ignore[attr-defined]

    text = "show what is in a dataset: returns, lengths, ends, actions, observations, rewards, and what could trip up training"
    show = command("show", text, _show, "winnow/hopper/medium-v0 --picture hopper.png")
    show.add_argument("dataset", metavar="ID").completer = _known  # type: ignore[attr-defined]
    show.add_argument("--picture", type=Path, default=None, metavar="FILE", help="also draw it: .png, .svg or .pdf")

    example = "halfcheetah_medium-v2.hdf5 --environment HalfCheetah-v4 --name d4rl/halfcheetah/medium-v2"
    take = command("import", "write a D4RL HDF5 file, or an OGBench npz file, as a local Minari dataset", _import, example)
    take.add_argument("file", type=Path)
    take.add_argument("--environment", required=True, metavar="ID", help="environment to evaluate in, such as HalfCheetah-v4")
    take.add_argument(
        "--environment-kwargs", default="", metavar="JSON", help="""its settings, such as '{"use_contact_forces": true}' for D4RL's Ant"""
    )
    take.add_argument("--name", required=True, metavar="ID", help="the dataset's new name, such as d4rl/halfcheetah/medium-v2")
    take.add_argument("--force", action="store_true", help="replace the dataset if it exists")


def _known(**_: object) -> list[str]:
    """What Tab offers: the datasets here, and those that can be recorded."""
    from trainables.datasets.collect import tiers

    return [*local.local_datasets(), *tiers.all_ids()]


def _act(act: Callable[[argparse.Namespace], int | None], given: argparse.Namespace) -> int | None:
    name_modules(given.imports)
    return act(given)


def _list(given: argparse.Namespace) -> None:
    from trainables.datasets.collect import tiers
    from trainables.datasets.minari_store import read_metadata

    present, rows = local.local_datasets(), list[dict[str, Any]]()
    absent = [name for name in tiers.all_ids() if name not in present]
    for name in present:
        try:
            about = read_metadata(name)
        except UserError as error:
            rows.append({"dataset": name, "error": str(error)})
            continue
        numbers = {"transitions": about.transitions, "episodes": about.episodes}
        rows.append({"dataset": name, **numbers, "environment": about.environment, "reference_returns": about.reference.known})
    if given.json:
        print(to_json({"folder": local.root(), "datasets": rows, "can_be_recorded": absent}))
        return
    for row in rows:
        sizes = "" if "error" in row else f"{row['transitions']:9,} transitions  {row['episodes']:6,} episodes  {row['environment']}"
        missing = "" if row.get("reference_returns", True) else "  no reference returns"
        print(printable(f"{row['dataset']:38} {row.get('error') or sizes}{missing}", lines=False))
    if not present:
        print(f"no dataset in {local.root()}")
    if absent:
        print(f"can be recorded here (`collect`): {', '.join(absent)}")


def _check(given: argparse.Namespace) -> None:
    from trainables.datasets.table import load_table
    from trainables.datasets.table_evaluator import check_playable

    found = list[dict[str, Any]]()
    for name in given.datasets:
        if not local.exists(name) and not name.startswith(local.OURS):
            text, value = _offered(name)
        else:
            table = load_table(name)
            notes = check_playable(table)
            text, value = "\n".join([summary(table), *(f"note: {note}" for note in notes)]), table.in_brief()
            value["note"] = "; ".join(filter(None, (value["note"], *notes)))
        found.append(value)
        if not given.json:
            print(printable(text))
    if given.json:
        print(to_json(found))


def _offered(dataset: str) -> tuple[str, dict[str, Any]]:
    """A dataset of the hub, from its metadata, as text and as JSON: nothing is downloaded."""
    from trainables.datasets.minari_store import offered
    from trainables.datasets.table_evaluator import check_playable

    offer = offered(dataset)
    about = offer.metadata
    check_playable(about)
    size = f"{offer.megabytes:,.1f} MB" if offer.megabytes == offer.megabytes else "a size that is not stated"
    text = (
        f"{dataset}: not downloaded; {about.transitions} transitions in {about.episodes} episodes of {about.environment}, which can be "
        f"played; {size} to download, licence {offer.licence or 'not stated'}" + (f" ({about.note})" if about.note else "")
    )
    numbers = {"transitions": about.transitions, "episodes": about.episodes, "environment": about.environment, "note": about.note}
    return text, {"dataset": dataset, "here": False, **numbers, "megabytes": offer.megabytes, "licence": offer.licence}


def _show(given: argparse.Namespace) -> None:
    from trainables.datasets.about import describe, picture
    from trainables.datasets.table import load_table, names_of
    from trainables.datasets.table_evaluator import check_playable

    table = load_table(given.dataset)
    if given.picture:
        picture.draw(table, given.picture)
    if given.json:
        print(to_json(table.in_brief() | describe.numbers(table, names_of(table)) | {"picture": given.picture}))
    else:
        for line in describe.lines(table, names_of(table)):
            print(printable(line))
        if given.picture:
            print(printable(f"picture: {given.picture}"))
    for note in check_playable(table):
        print(printable(f"note: {note}"), file=sys.stderr)


def _import(given: argparse.Namespace) -> None:
    from trainables import environments
    from trainables.datasets import d4rl, ogbench
    from trainables.datasets.table import load_table

    environment = environments.written(*environments.read(f"{given.environment} {given.environment_kwargs}".strip()))
    (ogbench if given.file.suffix == ".npz" else d4rl).import_file(given.file, environment, given.name, given.force)
    table = load_table(given.name)
    print(to_json(table.in_brief()) if given.json else printable(summary(table)))


def summary(table: Table) -> str:
    """A dataset in one line."""
    mean = float(table.episode_returns.mean())
    score = f", normalized {table.reference.normalize(mean):.1f}" if table.reference.known else ""
    return (
        f"{table.dataset}: {len(table)} transitions in {len(table.episode_returns)} episodes of {table.environment}, "
        f"mean return {mean:.0f}{score}, hash {table.hash[:12]}" + (f" ({table.note})" if table.note else "")
    )


if __name__ == "__main__":
    sys.exit(main())
