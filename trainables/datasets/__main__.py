"""Commands of `python -m trainables.datasets`: list what is here, check that a dataset can be trained on, import a D4RL file.

python -m trainables.datasets import halfcheetah_medium-v2.hdf5 --environment HalfCheetah-v4 --name d4rl/halfcheetah/medium-v2
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trainables import datasets
from trainables.errors import UserError

if TYPE_CHECKING:
    from trainables.datasets.table import Table


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 when done, 2 for input that the user can mend (said in one line on stderr)."""
    given = _parser().parse_args(arguments)
    try:
        return int(given.command(given) or 0)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainables.datasets", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    listing = commands.add_parser("list", help="the datasets on this machine")
    listing.set_defaults(command=_list)

    check = commands.add_parser("check", help="read datasets as a trial would, and their environments; prepares their tables")
    check.add_argument("datasets", nargs="+", metavar="ID")
    check.set_defaults(command=_check)

    take = commands.add_parser("import", help="write a D4RL HDF5 file as a local Minari dataset")
    take.add_argument("file", type=Path)
    take.add_argument("--environment", required=True, metavar="ID", help="to evaluate in, such as HalfCheetah-v4")
    take.add_argument("--name", required=True, metavar="ID", help="such as d4rl/halfcheetah/medium-v2")
    take.add_argument("--force", action="store_true", help="replace the dataset if it exists")
    take.set_defaults(command=_import)
    return parser


def _list(given: argparse.Namespace) -> None:
    from trainables.datasets.minari_store import read_metadata

    found = datasets.local_datasets()
    for name in found:
        try:
            about = read_metadata(name)
        except UserError as error:
            print(f"{name:38} {error}")
            continue
        reference = "" if about.reference.known else "  no reference returns"
        print(f"{name:38} {about.transitions:9,} transitions  {about.episodes:6,} episodes  {about.environment}{reference}")
    if not found:
        print(f"no dataset in {datasets.root()}")


def _check(given: argparse.Namespace) -> None:
    from trainables.evaluation import evaluator_of

    for name in given.datasets:
        table = datasets.load_table(name)
        evaluator_of(table, [[0]]).close()
        print(summary(table))


def _import(given: argparse.Namespace) -> None:
    from trainables.datasets import d4rl

    d4rl.import_file(given.file, given.environment, given.name, given.force)
    print(summary(datasets.load_table(given.name)))


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
