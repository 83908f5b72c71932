"""The commands: python -m service plan | run | status | sync | results SWEEP."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from trainables import paths, registry
from trainables.errors import UserError

EXAMPLES = """examples:
  python -m service plan quickstart
  python -m service run quickstart --set seeds=0,1,2 --set updates=50000
  ray job submit --working-dir . -- python -m service run mujoco_sparsity
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0 done, 1 some trial failed, 2 bad input (said in one line), 130 interrupted."""
    arguments = parser().parse_args(argv)
    try:
        return int(arguments.command(arguments, paths.root(arguments.storage)))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def parser() -> argparse.ArgumentParser:
    """Every command imports what it needs when it runs: `plan` answers before torch or ray could be imported."""
    top = argparse.ArgumentParser(
        prog="python -m service", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    for name, command, text in (
        ("plan", plan, "what a run would do; starts nothing"),
        ("run", run, "run or resume a sweep, then show its results"),
        ("status", status, "the state of every trial of a sweep"),
        ("sync", sync, "bring MLflow up to date by hand"),
        ("results", results, "table and figure from what MLflow holds"),
    ):
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(command=command)
        sub.add_argument("sweep", help="a file of search_spaces/, e.g. quickstart")
        sub.add_argument("--storage", help="folder for everything that is written (default $WINNOW_STORAGE, else ./storage)")
        if name in ("plan", "run", "results"):
            sub.add_argument(
                "--set", dest="settings", action="append", default=[], metavar="NAME=VALUE", help="in place of the sweep's value"
            )
        if name in ("plan", "run"):
            sub.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
            sub.add_argument("--stack-size", type=_positive, help="most trials trained as one model (default 1 on a CPU, 32 on a GPU)")
            sub.add_argument("--retry-failed", action="store_true", help="trials that failed or diverged are tried again")
        if name == "run":
            choices = ("auto", *registry.names("execution"))
            sub.add_argument("--execution", choices=choices, default="auto", help="how masked layers are computed")
            sub.add_argument("--checkpoint-every", type=_positive, default=5_000, metavar="UPDATES")
    return top


def plan(arguments: argparse.Namespace, storage: Path) -> int:
    from service.plan import describe, make_plan

    size, retry = arguments.stack_size, arguments.retry_failed
    print(describe(make_plan(arguments.sweep, arguments.settings, storage=storage, device=arguments.device, size=size, retry=retry)))
    return 0


def run(arguments: argparse.Namespace, storage: Path) -> int:
    from service import run as runner

    return runner.run(
        arguments.sweep, arguments.settings, storage=storage, device=arguments.device, size=arguments.stack_size,
        retry=arguments.retry_failed, execution=arguments.execution, checkpoint_every=arguments.checkpoint_every,
    )  # fmt: skip


def status(arguments: argparse.Namespace, storage: Path) -> int:
    from service.status import describe

    print(describe(arguments.sweep, storage))
    return 0


def sync(arguments: argparse.Namespace, storage: Path) -> int:
    from service.shipper import Shipper
    from service.status import journal_of
    from service.tracking import Tracking

    tracking = Tracking(storage)
    shipped = Shipper(storage, arguments.sweep, journal_of(arguments.sweep, storage), tracking).ship()
    print(f"{shipped} points shipped; MLflow holds all that is committed")
    return 0


def results(arguments: argparse.Namespace, storage: Path) -> int:
    from search_spaces.sweep import expand, load_sweep, override
    from service.results import show
    from service.status import journal_of
    from service.tracking import Tracking

    trials = expand(override(load_sweep(arguments.sweep), arguments.settings))
    journal_of(arguments.sweep, storage)
    show(arguments.sweep, trials, Tracking(storage), storage)
    return 0


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


if __name__ == "__main__":
    sys.exit(main())
