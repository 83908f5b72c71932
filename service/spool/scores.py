"""What trials have scored so far, and how dense their actors are, read from their spools: the numbers that a search learns from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from service.spool import lines
from service.storage import paths
from trainables.trial import Trial

SCORE, RETURN = "eval/normalized_score", "eval/return"  # the return stands in where no reference returns are known
FINAL_SCORE, FINAL_RETURN = "final/normalized_score", "final/return"  # of the final episodes, where a trial has some
DENSITY = "mask/effective_density/actor"


def curve(storage: Path, trials: Sequence[Trial]) -> dict[int, float]:
    """Mean score of the trials by update, ascending, of the evaluations that all of them have had."""
    own = [_curve(storage, trial) for trial in trials]
    return {update: fmean(scores[update] for scores in own) for update in sorted(set.intersection(*map(set, own)))}


def last(storage: Path, trials: Sequence[Trial]) -> float | None:
    """Mean score of the trials after their last update; None where one has none."""
    return curve(storage, trials).get(trials[0].updates)


def effective_density(storage: Path, trials: Sequence[Trial]) -> float | None:
    """Mean share of the actor's weights that lie on a path, by the newest masks; None where one has none."""
    masks = [[placed.line["metrics"] for placed in _lines(storage, trial) if placed.line["kind"] == "pruned"] for trial in trials]
    return fmean(own[-1][DENSITY] for own in masks) if all(masks) else None


def _curve(storage: Path, trial: Trial) -> dict[int, float]:
    told = [(placed.update, placed.line["metrics"]) for placed in _lines(storage, trial) if placed.line["kind"] == "evaluated"]
    return {update: metrics.get(SCORE, metrics.get(RETURN)) for update, metrics in told if SCORE in metrics or RETURN in metrics}


def _lines(storage: Path, trial: Trial) -> list[lines.Placed]:
    return lines.read(paths.spool(storage, trial.key))
