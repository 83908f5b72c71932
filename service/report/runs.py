"""The trials of sweeps as MLflow knows them: how each ended, what it scored when, at what cost, and what its masks are."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from service.results import has
from service.scores import RETURN, SCORE
from service.status import journal_of
from service.tracking import RunRow, Tracking, told, trial_of
from trainables import registry
from trainables.errors import UserError, unknown
from trainables.trial import Trial

DONE, RUNNING, MISSING = "done", "not finished", "missing"
TAIL = 0.7  # evaluations after this share of the updates make up the tail
PASSES = 3  # forward, and backward by the input and by the weight
SPEED = "speed/updates_per_second"


@dataclass(frozen=True)
class Point:
    """An evaluation: the mean over its episodes after `update`, and what training had cost by then (nan where it is not known)."""

    update: int
    score: float
    flops: float
    seconds: float


@dataclass(frozen=True)
class Run:
    """A trial and what became of it: `done`, `missing`, `not finished`, `stopped at N`, or `failed: reason`."""

    trial: Trial
    outcome: str
    points: tuple[Point, ...] = ()
    returns: float = float("nan")
    measure: str = "normalized score"
    masks: Mapping[str, Mapping[str, Any]] | None = None

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


def read(sweeps: Sequence[str], tracking: Tracking, storage: Path) -> tuple[list[Run], dict[str, str]]:
    """The runs of all sweeps, each trial once, with those that are planned and not there; and the sweeps' parent runs.

    Raises UserError, in one line, for a sweep that MLflow does not hold, and where it does not answer.
    """
    try:
        known = tracking.sweeps()
        for sweep in sweeps:
            if sweep not in known:
                raise unknown(f"sweep in {told(UserError(tracking.uri))}", sweep, known)
        of = {sweep: {row.tags["winnow.trial_key"]: row for row in tracking.sweep_rows(sweep, known[sweep])} for sweep in sweeps}
        rows = {key: row for own in of.values() for key, row in own.items()}
        found = {}
        for number, (key, row) in enumerate(rows.items(), 1):
            found[key] = run_of(row, tracking)
            if sys.stderr.isatty():
                print(f"\rreading {number} of {len(rows)} runs", end="" if number < len(rows) else "\n", file=sys.stderr)
    except UserError:
        raise
    except Exception as error:  # whatever MLflow's client raises
        raise UserError(told(error)) from error
    seen = {sweep: [found[key].trial for key in own] for sweep, own in of.items()}
    absent = [Run(trial, MISSING) for trial in planned(seen, storage) if trial.key not in found]
    if not found and not absent:
        raise UserError(f"no trial of {', '.join(sweeps)} has begun")
    return [*found.values(), *absent], {sweep: known[sweep] for sweep in sweeps}


def run_of(row: RunRow, tracking: Tracking) -> Run:
    """One trial's run; its curve and masks are read only where it was evaluated."""
    trial = trial_of(row.params)
    metric = SCORE if SCORE in row.metrics or RETURN not in row.metrics else RETURN
    if metric not in row.metrics:
        return Run(trial, outcome(row, metric))
    masks = (tracking.read_json(row.run_id, "masks.json") or {}).get("networks")
    scores, rates = tracking.history(row.run_id, metric), tracking.history(row.run_id, SPEED)
    spent = cost(trial, masks, lambda name: tracking.history(row.run_id, f"mask/density/{name}"), scores)
    time = seconds(rates, scores)
    points = tuple(Point(update, score, spent[update], time[update]) for update, score in scores.items())
    measure = "normalized score" if metric == SCORE else "return"
    return Run(trial, outcome(row, metric), points, row.metrics.get(RETURN, float("nan")), measure, masks)


def outcome(row: RunRow, metric: str) -> str:
    """How a run ended."""
    if has(row, metric):
        return DONE
    if row.tags.get("winnow.state") == "stopped":
        return f"stopped at {int(row.tags['winnow.stopped_at']):,}"
    if row.status == "FAILED":
        return f"failed: {row.tags.get('winnow.reason') or 'unknown reason'}"
    return RUNNING if row.status == "RUNNING" else MISSING


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
        changes = density(name) if "during" in registry.defines("pruners", trial.pruner) else {0: about["density"]}
        steps = [*changes.items(), (sys.maxsize, 0.0)]
        for update in spent:
            dense = about["flops"]["dense"]
            spent[update] += sum(rate * dense * kept * max(0, min(end, update) - start) for (start, kept), (end, _) in pairwise(steps))
    return spent


def seconds(rates: Mapping[int, float], updates: Iterable[int]) -> dict[int, float]:
    """Time spent in updates up to each update, without evaluations and interruptions; nan where no speed is known that far."""
    found, spent, before = {}, 0.0, 0
    for update, rate in rates.items():
        spent, before = spent + (update - before) / rate, update
        found[update] = spent
    return {update: found.get(update, float("nan")) for update in updates}


def planned(seen: Mapping[str, Sequence[Trial]], storage: Path) -> list[Trial]:
    """The trials that should be there: those of a sweep's journal, else every seed of the sweep in every cell of it that was seen."""
    found: dict[str, Trial] = {}
    for sweep, own in seen.items():
        try:
            found |= {key: entry.trial for key, entry in journal_of(sweep, storage).entries.items()}
        except UserError:  # another host's sweep: MLflow is all there is
            seeds = sorted({trial.seed for trial in own})
            found |= {other.key: other for trial in own for seed in seeds for other in [trial.using(seed=seed)]}
    return list(found.values())
