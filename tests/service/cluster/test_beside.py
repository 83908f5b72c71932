"""Evaluation in Ray's tasks beside training, as a GPU's trainer asks for it: on real Ray, without a GPU."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.faults.support.harness import LONG
from tests.service.conftest import ROOT, Command

PROGRAM = """
import json
from service.cluster.ray_cluster import connect
from service.planning.options import TrainingOptions
from trainables.reports import Evaluated
from trainables.run import run_stack
from trainables.trial import Stack, Trial
from trainables.tune_trainable import RayFuture

hyper = {"hidden": (16, 16), "batch_size": 32}
common = dict(dataset="test/hopper/random-v0", algorithm="bc", updates=40, evaluations=4, episodes=2, hyper=hyper)
stack = Stack(tuple(Trial(**common, seed=seed) for seed in (0, 1)))
with connect(TrainingOptions(device="cpu")):
    found = [
        [(r.update, r.episodes) for r in run_stack(stack, beside=beside) if isinstance(r, Evaluated)]
        for beside in (None, RayFuture)
    ]
print(json.dumps(found))
"""


def test_ray_tasks_give_the_same_returns_in_the_same_order(service: Command) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, env=service.environment, capture_output=True, text=True, check=False, timeout=LONG
    )
    assert ran.returncode == 0, ran.stderr
    here, there = json.loads(ran.stdout.splitlines()[-1])
    assert [update for update, _ in here] == [10, 20, 30, 40]
    assert there == here
