"""The trials of sweeps as MLflow knows them: how each ended, what it scored when, at what cost, and what its masks are."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from service.ledger import manifest
from service.results.outcomes import MISSING, metric_of, outcome
from service.spool.scores import FINAL_RETURN, FINAL_SCORE, RETURN, SCORE
from service.storage import trial_objects
from service.tracking import plan_artifact as plans
from service.tracking.connection import TrackingError, redacted
from service.tracking.runs import RunRow, Tracking, trial_of
from trainables import plugins
from trainables.errors import UserError, unknown
from trainables.trial import Trial

TAIL = 0.7  # evaluations after this share of the updates make up the tail
PASSES = 3  # forward, and backward by the input and by the weight
SPEED, STACK = "speed/updates_per_second", "speed/stack"
SHOWN = 3  # runs that are named where some are left out


@dataclass(frozen=True)
class Point:
    """An evaluation: the mean over its episodes after `update`, and what training had cost by then (nan where it is not known).

    flops     of the kept weights (`cost`)
    seconds   the trial's share of its stack's time in updates (`seconds`)
    """

    update: int
    score: float
    flops: float
    seconds: float


@dataclass(frozen=True)
class Run:
    """A trial and what became of it: `done`, or as `absence` says; `alone`: no size of its stack is known, `seconds` are the stack's.

    final   the mean over the trial's `final_episodes`, nan without: many episodes of the last policy, none of which chose anything
    """

    trial: Trial
    outcome: str
    points: tuple[Point, ...] = ()
    returns: float = float("nan")
    measure: str = "normalized score"
    masks: Mapping[str, Mapping[str, Any]] | None = None
    alone: bool = False
    final: float = float("nan")

    @property
    def last(self) -> float:
        """The score after the last update: the field's protocol."""
        return self.points[-1].score

    @property
    def best(self) -> float:
        """The highest of all evaluations: chosen after the fact, so too high by the luck of its episodes."""
        return max(point.score for point in self.points)

    @property
    def tail(self) -> float:
        """Mean of the evaluations after the first 70 % of the updates: many episodes, of policies near the last one."""
        late = self.late
        return sum(point.score for point in late) / len(late)

    @property
    def late(self) -> list[Point]:
        return [point for point in self.points if point.update > TAIL * self.trial.updates]


@dataclass(frozen=True)
class Gathered:
    """The runs of sweeps, their parent runs by sweep, and in a line each what is not among them and why."""

    runs: list[Run]
    parents: dict[str, str]
    notes: list[str]


def read(sweeps: Sequence[str], tracking: Tracking, storage: Path) -> tuple[list[Run], dict[str, str]]:
    """The runs of all sweeps, each trial once, with those that are planned and not there; and the sweeps' parent runs.

    Raises UserError, in one line, for a sweep that MLflow does not hold, and where it does not answer.
    """
    found = gather(sweeps, tracking, storage)
    return found.runs, found.parents


def gather(sweeps: Sequence[str], tracking: Tracking, storage: Path) -> Gathered:
    """As `read`, with what is to be said about it."""
    known = tracking.sweeps()
    for sweep in sweeps:
        if sweep not in known:
            raise unknown(f"sweep in {redacted(UserError(tracking.uri))}, experiment {tracking.experiment!r},", sweep, known)
    rows = {row.tags["winnow.trial_key"]: row for sweep in sweeps for row in tracking.sweep_rows(sweep, known[sweep])}
    plan: dict[str, Trial] = {}
    notes: list[str] = []
    for sweep in sweeps:
        own, told_of_it = planned(sweep, known[sweep], tracking, storage)
        plan |= own
        notes += told_of_it
    found, left_out = {}, []
    for number, (key, row) in enumerate(rows.items(), 1):
        try:
            found[key] = run_of(row, tracking, plan.get(key) or trial_of(row.params))
        except TrackingError:
            raise
        except UserError as error:
            left_out.append(f"{row.run_id} ({error})")
        if sys.stderr.isatty():
            print(f"\rreading {number} of {len(rows)} runs", end="" if number < len(rows) else "\n", file=sys.stderr)
    notes += [_left_out(left_out)] if left_out else []
    absent = [Run(trial, MISSING) for key, trial in plan.items() if key not in rows]
    if not found and not absent:
        raise UserError("; ".join([f"no trial of {', '.join(sweeps)} has begun", *notes]))
    if alone := sum(run.alone for run in found.values()):
        notes.append(f"{alone} runs of older code do not tell the size of their stack: their seconds are the stack's, not a share of it")
    return Gathered([*found.values(), *absent], {sweep: known[sweep] for sweep in sweeps}, notes)


def run_of(row: RunRow, tracking: Tracking, trial: Trial) -> Run:
    """One trial's run; its curve and masks are read only where it was evaluated."""
    metric = metric_of([row])
    if metric not in row.metrics:
        return Run(trial, outcome(row, metric))
    masks = (tracking.read_json(row.run_id, "masks.json") or {}).get("networks")
    scores, rates, stacks = (tracking.history(row.run_id, name) for name in (metric, SPEED, STACK))
    spent = cost(trial, masks, lambda name: tracking.history(row.run_id, f"mask/density/{name}"), scores)
    time = seconds(rates, stacks, scores)
    points = tuple(Point(update, score, spent[update], time[update]) for update, score in scores.items())
    measure = "normalized score" if metric == SCORE else "return"
    alone = bool(rates.keys() - stacks.keys())
    final = row.metrics.get(FINAL_SCORE if metric == SCORE else FINAL_RETURN, float("nan"))
    return Run(trial, outcome(row, metric), points, row.metrics.get(RETURN, float("nan")), measure, masks, alone, final)


def cost(trial: Trial, masks: Mapping[str, Any] | None, density: Any, updates: Iterable[int]) -> dict[int, float]:
    """FLOPs of the kept weights of all networks up to each update; nan without masks.

    A kept weight costs 2 FLOPs a row of the minibatch, forward and twice backward. Passes through targets, delayed updates and biases
    are left out: within one algorithm they change all sparsities alike. `density(network)` is its history, for masks that change.
    """
    if not masks:
        return dict.fromkeys(updates, float("nan"))
    spent = dict.fromkeys(updates, 0.0)
    for name, about in masks.items():
        rate = PASSES * trial.hyper_values().get("batch_size", 256)
        changes = density(name) if "during" in plugins.defines("pruners", trial.pruner) else {0: about["density"]}
        steps = [*changes.items(), (sys.maxsize, 0.0)]
        for update in spent:
            dense = about["flops"]["dense"]
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


def planned(sweep: str, parent: str, tracking: Tracking, storage: Path) -> tuple[dict[str, Trial], list[str]]:
    """The trials that should be there, by key, and what is to be said: by the plan that MLflow holds, else by the sweep's journal here."""
    if (told_by_mlflow := plans.read(tracking, parent)) is not None:
        found, unknown_here = told_by_mlflow
        return found, [f"{sweep}: {_left_out(unknown_here, 'planned trial')}"] if unknown_here else []
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
