"""`results`: a sweep's scores, at a glance."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from search_spaces.sweep import Sweep, expand, load_sweep, override
from service.cli import arguments as shared
from service.ledger.ledger import Ledger
from service.storage import paths
from service.storage.commands import command
from service.terminal.waiting import waiting
from trainables.errors import UserError

HELP = "show a sweep's scores as a table and a figure, from MLflow"
EXAMPLE = "results quickstart"


def arguments(parser: argparse.ArgumentParser) -> None:
    shared.sweep(parser)
    shared.overrides(parser)
    shared.as_json(parser)


def call(arguments: argparse.Namespace, storage: Path) -> int:
    from service.ledger.others import ledger_of
    from service.planning.data_here import DataHere
    from service.planning.plan import as_trained
    from service.results import quick_table as scores
    from service.results.summary import Summary
    from service.tracking.runs import Tracking
    from service.tracking.shipping.shipper import Shipper

    sweep = override(load_sweep(arguments.sweep), arguments.overrides)
    grid, ledger = expand(sweep), ledger_of(arguments.sweep, storage)
    if sweep.search:
        return _of_search(arguments, sweep, storage, ledger)
    data = DataHere(storage, ledger)
    trials = [data.as_trained(as_trained(trial, arguments.sweep, ledger)) for trial in grid]
    tracking = Tracking(storage)
    asked = {trial.key for trial in trials}
    inside, outside = (sum(e.begun for key, e in ledger.entries.items() if (key in asked) == wanted) for wanted in (True, False))
    note = f"{outside} trials of this sweep that have begun are outside this grid; {_rest(arguments, ledger, storage)}" if outside else ""
    if note and not inside and not arguments.json:
        print(f"none of this grid's trials has begun; {note}")
    with waiting("reading MLflow"):
        if paths.remote(storage)[0] and tracking.uri.startswith("sqlite"):
            # Another host may have trained: this one's MLflow is filled here.
            Shipper(storage, arguments.sweep, ledger, tracking, summary=Summary(ledger, tracking)).ship()
        if arguments.json:
            shared.show(arguments, "", scores.to_json(scores.find(trials, tracking)))
        else:
            # A grid without scores does not replace the table and the figure of one that has some.
            scores.tell(arguments.sweep, trials, tracking, storage, keep=bool(inside or not outside))
    if note and arguments.json:
        print(note, file=sys.stderr)
    elif note and inside:
        print(note)
    return 0


def _rest(arguments: argparse.Namespace, ledger: Ledger, storage: Path) -> str:
    """Where the trials outside the grid are shown."""
    report = f"`{command('report', arguments.sweep, storage=storage)}` shows all"
    newest = tuple(ledger.settings.get("overrides", ()))
    if not newest or newest == tuple(arguments.overrides):
        return report
    words = [f"--set={setting}" for setting in newest]
    return f"{report}, `{command('results', arguments.sweep, *words, storage=storage)}` those of its newest run"


def _of_search(arguments: argparse.Namespace, sweep: Sweep, storage: Path, ledger: Ledger) -> int:
    """The results of an adaptive sweep. Raises UserError where nothing was suggested with these settings."""
    from service.search import findings as scores
    from service.tracking.runs import Tracking

    found = scores.find(arguments.sweep, sweep, ledger, storage, arguments.overrides)
    if not any(each.tries for each in found):
        raise UserError(f"{arguments.sweep!r} has suggested nothing with these settings; {_rest(arguments, ledger, storage)}")
    if arguments.json:
        shared.show(arguments, "", scores.to_json(found))
    else:
        scores.tell(arguments.sweep, found, Tracking(storage), storage)
    return 0
