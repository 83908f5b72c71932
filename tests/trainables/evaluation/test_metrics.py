"""Metrics of episodes: what is computed, what is left out, and that one entry is all that another metric takes."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from service.spool import lines
from service.spool.writer import StackSpool
from service.storage import paths
from tests.stacks import small_trial
from trainables.evaluation.metrics import METRICS, known, metrics_of
from trainables.reports import Checkpointed, Evaluated
from trainables.trial import Stack


def test_means_and_the_spread_over_episodes() -> None:
    found = metrics_of({"returns": [1.0, 3.0], "scores": [10.0, 30.0]})
    assert found == {"return": 2.0, "normalized_score": 20.0, "normalized_score_std": 10.0}


def test_scores_without_reference_returns_are_left_out_and_those_of_a_diverged_member_are_not() -> None:
    nan = math.nan
    assert metrics_of(known({"returns": [1.0, 3.0], "scores": [nan, nan]})) == {"return": 2.0}
    diverged = metrics_of(known({"returns": [nan, nan], "scores": [nan, nan]}))
    assert diverged.keys() == {"return", "normalized_score", "normalized_score_std"}


def test_another_metric_and_another_quantity_are_one_entry_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a success rate would be: the evaluator counts it by episode, and METRICS has a line for it."""
    monkeypatch.setitem(METRICS, "success_rate", ("successes", lambda values: sum(values) / len(values)))
    trial = small_trial()
    spool = StackSpool(Stack((trial,)), tmp_path, {trial.dataset: {}}, checkpoint_every=40)
    spool(Evaluated(40, [{"returns": [1.0, 3.0], "scores": [10.0, 30.0], "successes": [1.0, 0.0]}]))
    spool(Checkpointed(40))
    spool.close()
    written = lines.read(paths.spool(tmp_path, trial.key))
    assert ("eval/success_rate", 0.5) in [(name, value) for name, value, *_ in lines.points(written)]
    assert lines.evaluations(written) == [{"update": 40, "returns": [1.0, 3.0], "scores": [10.0, 30.0], "successes": [1.0, 0.0]}]
