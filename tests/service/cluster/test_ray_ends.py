"""Ray ends this process where a reference of its is given back after its worker has ended: another thread's collection must not do it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.faults.support.harness import LONG
from tests.service.conftest import ROOT, Command

PROGRAM = """
import contextlib, gc, sys, threading
from service.cluster import ray_cluster as cluster, ray_process
from service.planning.options import TrainingOptions

if sys.argv[1] == "collecting":
    ray_process._no_collection = contextlib.nullcontext

class Cycle:
    pass

class Ending:
    "Ray's own worker, but that another thread makes garbage as soon as it has shut down."
    def __init__(self, worker):
        self.worker = worker
    def __getattr__(self, name):
        return getattr(self.worker, name)
    def shutdown_driver(self):
        self.worker.shutdown_driver()
        kept.clear()
        other = threading.Thread(target=lambda: [[each] for each in range(100_000)])
        other.start()
        other.join()

with cluster.connect(TrainingOptions(device="cpu")):
    import os, ray
    from pathlib import Path
    from service.cluster import embedded
    below = [Path(f"/proc/{pid}/cmdline").read_text() for pid in embedded.descendants(os.getpid())]
    print("of a cluster's head:", [each for each in below if "dashboard.py" in each or "monitor.py" in each], flush=True)
    kept = [Cycle()]
    kept[0].itself, kept[0].reference = kept[0], ray.put(1)
    place = ray._private.worker.global_worker
    place.core_worker = Ending(place.core_worker)
print("left well", gc.isenabled(), flush=True)
"""


@pytest.mark.parametrize(("how", "well"), [("quiet", True), ("collecting", False)])
def test_nothing_is_collected_while_ray_ends(how: str, well: bool, service: Command) -> None:
    """With collections on it fails, so it is this that helps."""
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, how], cwd=ROOT, env=service.environment, capture_output=True, text=True, check=False, timeout=LONG
    )
    assert "of a cluster's head: []\n" in ran.stdout
    assert ("left well True" in ran.stdout) == (ran.returncode == 0) == well, ran.stdout + ran.stderr
