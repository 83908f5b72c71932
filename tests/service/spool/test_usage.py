"""What a trainer tells of itself, beside its losses: plausible, few, and no part of what two runs of a trial must share."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from service.spool import lines as spool
from service.spool.usage import CPU, GPU, MEMORY, Usage
from service.storage import paths
from tests.faults.support.invariants import story
from tests.service.conftest import ROOT
from tests.service.spool.test_spool import KEY, listen, reports

PROGRAM = """
import json, time
from service.spool.usage import Usage
usage = Usage()
end = time.process_time() + 0.2
while time.process_time() < end:
    pass
busy = usage()
kept = b"x" * 200_000_000
full = usage()
time.sleep(0.5)
print(json.dumps([busy, full, usage()]))
"""


def test_memory_and_processor_are_this_processes() -> None:
    """In a process of its own: what other tests have left to be freed would come between."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=True)
    busy, full, idle = json.loads(done.stdout)
    assert 0 <= idle[CPU] < busy[CPU] / 4, "of the time since the last call"
    assert 0 < busy[CPU] < 10_000
    assert full[MEMORY] - busy[MEMORY] == pytest.approx(200, abs=20)


def test_a_gpus_memory_is_told_where_torch_uses_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert GPU not in Usage()()
    for used, told in ((False, None), (True, 512.0)):
        cuda = SimpleNamespace(is_initialized=lambda used=used: used, memory_reserved=lambda: 512_000_000)
        monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
        assert Usage()().get(GPU) == told


def test_the_trainers_lines_have_it_and_two_runs_need_not_agree(tmp_path: Path) -> None:
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        listen(tmp_path / place, reports())
    lines = [spool.read(paths.spool(tmp_path / place, KEY)) for place in ("one", "two")]
    for own in lines:
        trained = [placed.line["metrics"] for placed in own if placed.line["kind"] == "trained"]
        assert all({MEMORY, CPU, "speed/stack", "speed/updates_per_second"} <= metrics.keys() for metrics in trained)
        assert {(metrics["speed/updates_per_second"], metrics["speed/stack"]) for metrics in trained} == {(50.0, 2.0)}
    assert [placed.line for placed in lines[0]] != [placed.line for placed in lines[1]]
    assert story(lines[0]) == story(lines[1])
