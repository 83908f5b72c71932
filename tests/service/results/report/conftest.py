"""A small study in a real MLflow on sqlite, and the report on it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from service.__main__ import main
from service.tracking.runs import Tracking
from tests.service.results.report.study import Scores, ship, spool
from trainables.trial import Trial


def trial(pruner: str, sparsity: float, seed: int, dataset: str = "winnow/hopper/expert-v0") -> Trial:
    final = 20 if "hopper" in dataset else 0
    own = {"dataset": dataset, "pruner": pruner, "sparsity": sparsity, "seed": seed, "final_episodes": final}
    return Trial(algorithm="bc", updates=1000, evaluations=4, **own)


def scores(last: float) -> Scores:
    """Best in the middle: 20 above the last one."""
    return {250: [last - 30.0] * 2, 500: [last + 20.0] * 2, 750: [last + 9.0, last + 11.0], 1000: [last - 1.0, last + 1.0]}


@pytest.fixture(scope="package")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hopper: dense 80 and 100; SNIP 95 % 79 and 99; ERK 95 % one diverged; SNIP 99 % one never begun. Another sweep:
    Walker2d, dense 50, SNIP 25."""
    folder = tmp_path_factory.mktemp("report") / "storage"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        tracking = Tracking(folder)
    hopper = {("dense", 0.0): (80.0, 100.0), ("snip", 0.95): (79.0, 99.0), ("random_erk", 0.95): (40.0, math.nan), ("snip", 0.99): (10.0,)}
    own = [trial(*place, seed) for place, ends in hopper.items() for seed in range(len(ends))]
    states = [(each, spool(folder, each, scores(hopper[each.pruner, each.sparsity][each.seed]))) for each in own]
    states.append((trial("snip", 0.99, 1), "planned"))
    ship(folder, "smoke", states, tracking)
    walker = {("dense", 0.0): 50.0, ("snip", 0.95): 25.0}
    others = [(trial(*place, 0, "winnow/walker2d/medium-v0"), last) for place, last in walker.items()]
    ship(folder, "other", [(each, spool(folder, each, scores(last))) for each, last in others], tracking)
    return folder


@pytest.fixture(scope="package")
def made(storage: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        assert main(["report", "smoke", "other", "--storage", str(storage)]) == 0
    return storage / "reports" / "smoke+other"
