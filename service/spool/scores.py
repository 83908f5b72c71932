"""Scores and actor densities of trials, read from their spools: the objectives of a search."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from service.spool import lines
from service.storage import paths
from trainables.trial import Trial

SCORE, RETURN = "eval/normalized_score", "eval/return"  # the return is used where no reference returns are known
FINAL_SCORE, FINAL_RETURN = "final/normalized_score", "final/return"  # of the final episodes, if a trial has any
SUCCESS = "eval/success_rate"
DENSITY = "mask/effective_density/actor"


def curve(storage: Path, trials: Sequence[Trial]) -> dict[int, float]:
    """Mean score of the trials by update, ascending, at the evaluations that all of them have reached."""
    curves = [_curve(storage, trial) for trial in trials]
    return {update: fmean(scores[update] for scores in curves) for update in sorted(set.intersection(*map(set, curves)))}


def last(storage: Path, trials: Sequence[Trial]) -> float | None:
    """Mean score of the trials after their last update; None unless all have one."""
    return curve(storage, trials).get(trials[0].updates)


def effective_density(storage: Path, trials: Sequence[Trial]) -> float | None:
    """Mean effective density of the actors, by their newest masks; None unless all have masks."""
    masks = [[placed.line["metrics"] for placed in _lines(storage, trial) if placed.line["kind"] == "pruned"] for trial in trials]
    return fmean(metrics[-1][DENSITY] for metrics in masks) if all(masks) else None


def _curve(storage: Path, trial: Trial) -> dict[int, float]:
    evaluations = [(placed.update, placed.line["metrics"]) for placed in _lines(storage, trial) if placed.line["kind"] == "evaluated"]
    return {update: metrics.get(SCORE, metrics.get(RETURN)) for update, metrics in evaluations if SCORE in metrics or RETURN in metrics}


def _lines(storage: Path, trial: Trial) -> list[lines.Placed]:
    return lines.read(paths.spool(storage, trial.key))
