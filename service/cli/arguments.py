"""Arguments that several commands take, and what several of them print."""

from __future__ import annotations

import argparse
import textwrap

from service.cli import completion
from service.cli.completion import Completer
from trainables import project
from trainables.errors import UserError
from trainables.output import printable, to_json
from trainables.trial.numbers import integer

TRIAL = "a trial's key, the beginning of one, or its name, e.g. bc/halfcheetah-expert/snip@95/s0"
DONE = "a trial's name, its key or the beginning of one, or the id of its MLflow run"


def storage(parser: argparse.ArgumentParser) -> None:
    help = "folder, or s3://bucket/prefix, to keep everything in (default $WINNOW_STORAGE, else ./storage)"
    parser.add_argument("--storage", help=help)


def sweep(parser: argparse.ArgumentParser) -> None:
    """One sweep, and the storage."""
    help = "the sweep's name, e.g. quickstart, or the path of its file, e.g. ./mine.py"
    completed(parser.add_argument("sweep", help=help), completion.sweeps)
    storage(parser)


def sweeps(parser: argparse.ArgumentParser, help: str) -> None:
    """One sweep or several, and the storage."""
    completed(parser.add_argument("sweeps", nargs="+", metavar="SWEEP", help=help), completion.sweeps)
    storage(parser)


def name_sweeps(arguments: argparse.Namespace) -> None:
    """Put the names of sweeps in place of the paths that were typed; raises UserError for a path that leads to none."""
    if isinstance(given := getattr(arguments, "sweep", None), str):
        arguments.sweep = project.named(given)
    if given := getattr(arguments, "sweeps", None):
        arguments.sweeps = [project.named(each) for each in given]


def overrides(parser: argparse.ArgumentParser) -> None:
    """`--set`."""
    help = "replace a value of the sweep, e.g. seeds=0,1,2 or 0-4, updates=20k, pruners=dense,snip; may be repeated; names are listed below"
    action = parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="NAME=VALUE", help=help)
    completed(action, completion.settings)
    parser.details = settings_help  # type: ignore[attr-defined]


def settings_help(width: int) -> str:
    """The names that `--set` takes, and their choices."""
    from search_spaces.sweep import fields

    lines = []
    for several, title in ((True, "one or more values, separated by commas"), (False, "one value")):
        lines.append(f"--set NAME=VALUE, {title}:")
        for name, text in fields.described():
            if several == (name in fields.SEVERAL or name.partition(".")[0] in fields.NAMES):
                lines += textwrap.wrap(text, width, initial_indent=f"  {name:<21} ", subsequent_indent=" " * 24, break_on_hyphens=False)
    return "\n".join(lines)


def imports(parser: argparse.ArgumentParser) -> None:
    """`--import`; not among the parsed arguments where it is not typed."""
    help = "a module that registers environments; no other module is imported for them; may be repeated (also $WINNOW_IMPORT)"
    parser.add_argument("--import", dest="imports", action="append", default=argparse.SUPPRESS, metavar="MODULE", help=help)


def study_storage(parser: argparse.ArgumentParser) -> None:
    help = "database of an adaptive sweep's studies (default $WINNOW_STUDY_STORAGE, else study.log in the sweep's folder)"
    parser.add_argument("--study-storage", metavar="URL", help=help)


def notify(parser: argparse.ArgumentParser) -> None:
    """`--notify`."""
    help = "webhook to notify when the run is done, fails, stalls or ends at a limit; slack:URL for Slack's format (default $WINNOW_NOTIFY)"
    parser.add_argument("--notify", metavar="URL", help=help)


def done_trial(parser: argparse.ArgumentParser) -> None:
    """A trial that is done, and the storage."""
    completed(parser.add_argument("trial", metavar="RUN", help=DONE), completion.trials)
    help = "the trial's sweep, where several sweeps have a trial of that name"
    completed(parser.add_argument("--sweep", help=help), completion.sweeps)
    storage(parser)


def as_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def completed(action: argparse.Action, completer: Completer) -> None:
    """Tab offers what `completer` returns."""
    action.completer = completer  # type: ignore[attr-defined]


def positive(text: str) -> int:
    try:
        value = integer("it", text)
    except UserError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer above 0, such as 20000, 20k or 2e4")
    return value


def show(arguments: argparse.Namespace, text: str, value: object) -> None:
    """Print `text` for people, or `value` for programs with `--json`."""
    print(to_json(value) if arguments.json else printable(text))
