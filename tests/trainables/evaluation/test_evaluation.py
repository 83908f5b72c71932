from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from trainables.evaluation import evaluation
from trainables.reports import Evaluated, Trained
from trainables.run import run_stack
from trainables.trial import Stack, Trial


@pytest.fixture(scope="module")
def beside() -> Iterator[Any]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool.submit


@pytest.mark.parametrize("part", [1, 2, 8])
@pytest.mark.parametrize("algorithm", ["bc", "bcq"])  # whose policy is one network, and is several
def test_beside_training_gives_the_same_reports(
    algorithm: str, part: int, hopper: str, beside: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "PART", part)
    hyper = {"hidden": (16, 16), "batch_size": 32} | ({"model_hidden": (16, 16)} if algorithm == "bcq" else {})
    trials = [
        Trial(dataset=hopper, algorithm=algorithm, updates=40, evaluations=4, episodes=2, final_episodes=3, hyper=hyper, **own)
        for own in ({}, {"pruner": "snip", "sparsity": 0.5, "seed": 1}, {"seed": 2})
    ]
    stack = Stack(tuple(trials))
    found = {}
    for name, where in (("at once", None), ("beside", beside)):
        reports = list(run_stack(stack, tmp_path / name, checkpoint_every=15, beside=where))
        found[name] = [(type(r).__name__, r.update, getattr(r, "episodes", None)) for r in reports]
        evaluated = [r for r in reports if isinstance(r, Evaluated)]
        assert [(r.update, r.final) for r in evaluated] == [(10, False), (20, False), (30, False), (40, False), (40, True)]
        assert torch.tensor([own["returns"] for own in evaluated[-1].episodes]).shape == (3, 3)
        assert all(torch.isfinite(torch.tensor(list(r.metrics[0].values()))).all() for r in reports if isinstance(r, Trained))
    assert found["beside"] == found["at once"]


def test_beside_training_observations_are_normalized_as_in_training(hopper: str, beside: Any, tmp_path: Path) -> None:
    """By the transitions that the trial trains on, not by all of the dataset's."""
    trial = Trial(
        dataset=hopper, algorithm="bc", updates=10, evaluations=1, episodes=2, transitions=100, seed=3, hyper={"hidden": (16, 16)}
    )
    found = [
        [r.episodes for r in run_stack(Stack((trial,)), tmp_path / name, beside=where) if isinstance(r, Evaluated)]
        for name, where in (("at once", None), ("beside", beside))
    ]
    assert found[0] == found[1]
