"""What a report reads from MLflow: the runs of sweeps with their curves, what these cost, and their masks."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from service.ledger import manifest
from service.results.grid import SUGGESTIONS
from service.results.runs import Point, Run, runs_of, version_notes
from service.spool.scores import RETURN, SCORE
from service.storage import trial_objects
from service.storage.commands import command
from service.terminal.redaction import redact
from service.tracking import curve_table
from service.tracking import plan_artifact as plans
from service.tracking.curve_table import DENSITY, SPEED, STACK
from service.tracking.reading import RunRow
from service.tracking.runs import Tracking
from service.tracking.trial_params import trial_of
from trainables.errors import UserError, unknown
from trainables.trial import Trial
from trainables.trial.pruner_traits import traits_of

PASSES = 3  # forward, and backward by the input and by the weight
SHOWN = 3  # runs that are named where some are left out


@dataclass(frozen=True)
class Gathered:
    """The runs of sweeps, the sweeps' own runs by name, and notes: a line each on what is left out, and why."""

    runs: list[Run]
    parents: dict[str, str]
    notes: list[str]


def _restore(sweep: str, storage: Path) -> str:
    return command("sync", sweep, "--restore", storage=storage)


def gather(sweeps: Sequence[str], tracking: Tracking, storage: Path) -> Gathered:
    """The runs of all sweeps, each trial once, with those that are planned and have no run in MLflow.

    Raises UserError, in one line, for a sweep that MLflow does not hold, and where it does not answer.
    """
    known = tracking.sweeps()
    for sweep in sweeps:
        if sweep not in known and tracking.parents(sweep):
            raise UserError(f"the run of sweep {sweep!r} was deleted in MLflow; `{_restore(sweep, storage)}` brings it back")
        if sweep not in known:
            raise unknown("sweep", sweep, known, f" in {redact(tracking.uri)}, experiment {tracking.experiment!r}")
    rows = {row.tags["winnow.trial_key"]: row for sweep in sweeps for row in tracking.sweep_rows(sweep, known[sweep])}
    plan: dict[str, Trial] = {}
    notes: list[str] = []
    for sweep in sweeps:
        own, about_it = planned(sweep, known[sweep], tracking, storage)
        plan |= own
        notes += about_it
        if others := tracking.others_note(sweep, known[sweep]):
            notes.append(others)
        if limit := tracking.limit_of(known[sweep]):
            notes.append(f"{sweep}: limit reached ({limit}); its newest run has ended before everything was done")
        if count := tracking.run(known[sweep]).data.tags.get(SUGGESTIONS):
            notes.append(
                f"{sweep}: a search has made {count} suggestions, guided by these scores: the best of them are too high on average"
            )
        if deleted := tracking.deleted(known[sweep]):
            notes.append(f"{sweep}: {deleted} runs were deleted in MLflow; `{_restore(sweep, storage)}` brings them back")
    trials, left_out = {}, []
    for key, row in rows.items():
        try:
            trials[key] = plan.get(key) or trial_of(row.params)
        except UserError as error:
            left_out.append(f"{row.run_id} ({error})")
    notes += [_left_out(left_out)] if left_out else []
    trials |= {key: trial for key, trial in plan.items() if key not in rows}
    if not trials:
        raise UserError("; ".join([f"no trial of {', '.join(sweeps)} has begun", *notes]))
    runs, shipped = [], _shipped(tracking, known, sweeps)
    for number, run in enumerate(runs_of(trials.values(), rows), 1):
        key = run.trial.key
        runs.append(with_curves(run, rows[key], tracking, shipped.get(key)) if key in rows else run)
        if sys.stderr.isatty():
            print(f"\rreading {number} of {len(trials)} runs", end="" if number < len(trials) else "\n", file=sys.stderr)
    notes += version_notes(runs)
    if alone := sum(run.alone for run in runs):
        notes.append(f"{alone} runs of older code do not record the size of their stack: their seconds are the stack's, not a share of it")
    return Gathered(runs, {sweep: known[sweep] for sweep in sweeps}, notes)


def _shipped(tracking: Tracking, known: Mapping[str, str], sweeps: Sequence[str]) -> dict[str, curve_table.Row]:
    """The rows of all sweeps' tables; of several of a trial the one of which most was shipped."""
    found: dict[str, curve_table.Row] = {}
    for sweep in sweeps:
        for key, row in (curve_table.read(tracking, known[sweep]) or {}).items():
            if key not in found or row["offset"] > found[key]["offset"]:
                found[key] = row
    return found


def with_curves(run: Run, row: RunRow, tracking: Tracking, shipped: curve_table.Row | None = None) -> Run:
    """The run with its evaluations, their costs and its masks; as it is where it was never evaluated, or on other data.

    They are read from `shipped`, the trial's row of its sweep's table, unless that is older than the run: then from the run itself.
    """
    if run.apart or run.metric not in row.metrics:
        return run
    if shipped and _current(shipped, row):
        masks, curves = shipped["masks"], {name: dict(curve) for name, curve in shipped["curves"].items()}
        if masks is None:  # kept in MLflow alone
            masks = _masks(tracking, row)

        def history(name: str) -> dict[int, float]:
            return curves.get(name, {})
    else:
        masks = _masks(tracking, row)

        def history(name: str) -> dict[int, float]:
            return tracking.history(row.run_id, name)

    scores, rates, stacks = (history(name) for name in (run.metric, SPEED, STACK))
    spent = cost(run.trial, masks, lambda name: history(f"{DENSITY}{name}"), scores)
    time = seconds(rates, stacks, scores)
    points = tuple(Point(update, score, spent[update], time[update]) for update, score in scores.items())
    pace, size = speed(rates, stacks)
    return replace(run, points=points, masks=masks, alone=bool(rates.keys() - stacks.keys()), speed=pace, stack=size)


def _masks(tracking: Tracking, row: RunRow) -> Mapping[str, Any] | None:
    return (tracking.read_json(row.run_id, "masks.json") or {}).get("networks")


def _current(shipped: curve_table.Row, row: RunRow) -> bool:
    """Whether a row of the table ends with the values that the run shows."""
    curves, shown = shipped["curves"], {name: row.metrics[name] for name in (SCORE, RETURN) if name in row.metrics}
    return all(name in curves and repr(float(curves[name][-1][1])) == repr(value) for name, value in shown.items())


def cost(trial: Trial, masks: Mapping[str, Any] | None, density: Any, updates: Iterable[int]) -> dict[int, float]:
    """FLOPs of the kept weights of all networks up to each update; nan without masks, and where nothing is known of how they changed.

    A kept weight costs 2 FLOPs a row of the minibatch, forward and twice backward. Passes through targets, delayed updates and biases
    are left out: within one algorithm they change all sparsities alike. `density(network)` is its history, for masks that change.
    """
    if not masks:
        return dict.fromkeys(updates, float("nan"))
    spent, rate = dict.fromkeys(updates, 0.0), PASSES * trial.hyper_values().get("batch_size", 256)
    for name, about in masks.items():
        changes = density(name) if traits_of(trial.pruner).during_training else {0: about["density"]}
        if not changes:
            return dict.fromkeys(spent, float("nan"))
        steps = [*changes.items(), (sys.maxsize, 0.0)]
        dense = about["flops"]["dense"]
        for update in spent:
            spent[update] += sum(rate * dense * kept * max(0, min(end, update) - start) for (start, kept), (end, _) in pairwise(steps))
    return spent


def seconds(rates: Mapping[int, float], stacks: Mapping[int, float], updates: Iterable[int]) -> dict[int, float]:
    """A trial's share of the time that its stack spent in updates up to each update; nan where no speed is known that far.

    K trials that train as one model make `rate` updates a second each, at the price of one process: a trial costs 1 / K of its time.
    `stacks` is K by update; where it does not say, K is 1. Evaluations and interruptions are left out.
    """
    found, spent, before = {}, 0.0, 0
    for update, rate in rates.items():
        spent, before = spent + (update - before) / (rate * stacks.get(update, 1)), update
        found[update] = spent
    return {update: found.get(update, float("nan")) for update in updates}


def speed(rates: Mapping[int, float], stacks: Mapping[int, float]) -> tuple[float, float]:
    """Updates per second of one trial over all of its training, and the size of its stack; nan where they are not known."""
    spent = sum((update - before) / rates[update] for before, update in pairwise([0, *rates]))
    return (max(rates) / spent if spent else math.nan), max(stacks.values(), default=math.nan)


def planned(sweep: str, parent: str, tracking: Tracking, storage: Path) -> tuple[dict[str, Trial], list[str]]:
    """The trials that should be there, by key, and notes: from the plan that MLflow holds, else from the sweep's journal in the storage."""
    if (plan := plans.read(tracking, parent)) is not None:
        trials, unknown_here = plan
        return trials, [f"{sweep}: {_left_out(unknown_here, 'planned trial')}"] if unknown_here else []
    why = "its journal is not here"
    try:
        trial_objects.pull(storage)
        ledger = manifest.read(storage, sweep)
        if ledger.epoch:
            return {key: entry.trial for key, entry in ledger.entries.items()}, []
    except UserError as error:
        why = f"its journal cannot be read ({error})"
    return {}, [f"{sweep}: MLflow holds no plan of it and {why}: trials that never began are not shown"]


def _left_out(reasons: Sequence[str], what: str = "run") -> str:
    some = "; ".join(reasons[:SHOWN]) + ("; ..." if len(reasons) > SHOWN else "")
    return f"{len(reasons)} {what}{'s' if len(reasons) > 1 else ''} left out: {some}"
