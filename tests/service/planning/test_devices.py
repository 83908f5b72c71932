"""CPU or GPU: the choice, and Ray's GPUs on a machine without one, since to Ray a GPU is a number."""

from __future__ import annotations

import contextlib
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ray._private.accelerators.nvidia_gpu import NvidiaGPUAcceleratorManager

from service.__main__ import main
from service.cluster import ray_cluster, ray_process
from service.planning import devices
from service.planning.options import TrainingOptions
from tests.faults.support.harness import LONG
from tests.service.conftest import ROOT, Command
from trainables import plugins
from trainables.errors import UserError

PROGRAM = """
import json, sys
from functools import partial
from pathlib import Path
import ray
from service.cluster import ray_cluster as cluster
from service.planning.options import TrainingOptions
from trainables.training import memory
from trainables.reports import Finished
from trainables.trial import Stack, Trial

ray.init = partial(ray.init, num_gpus=1)
memory.free_bytes = lambda: 50_000_000
folder = Path(sys.argv[1])
common = dict(dataset="test/hopper/random-v0", algorithm="bc", updates=40, evaluations=4, episodes=2)
stacks = [Stack((Trial(**common, seed=seed),)) for seed in (0, 1)]

class Listener:
    dataset_hash = ""

    def __init__(self, stack, root):
        self.storage = root
    def __call__(self, report): pass
    def check(self): pass
    def close(self): pass

def work(stack, storage, before_write, device, **options):
    import ray, time
    (storage / str(stack.lead.seed)).write_text(json.dumps([device, ray.get_runtime_context().get_assigned_resources()["GPU"]]))
    for _ in range(6000):  # until both are there at the same time
        if all((storage / str(seed)).exists() for seed in (0, 1)):
            break
        time.sleep(0.1)
    else:
        raise RuntimeError("the stacks do not share the GPU")
    yield Finished(40, 1.0, "dense")

class Conductor:
    left, out, ends = list(stacks), 0, []
    def next(self):
        return self.left.pop() if self.left else None
    def busy(self):
        return len(self.ends) < 2
    def started(self, stack): pass
    def reported(self, stack, news): pass
    def ended(self, stack, news):
        self.ends.append(news.get("failure"))
    def idle(self): pass
    def silent(self): return []
    def stalled(self): return []
    def spent(self): return False

with cluster.connect(TrainingOptions(device="cuda", gpu_fraction=0.5)) as there:
    fit, slots = there.fit(), there.slots
    there.train("shared", Conductor(), folder, Listener, work)
print(json.dumps([there.device, slots, fit(stacks[0].lead), Conductor.ends]))
"""


@pytest.mark.parametrize(
    ("files", "count"),
    [
        ({"cpu.max": "150000 100000\n"}, 1),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, 64),
        ({"cpu.max": "6400000 100000\n"}, 64),
        ({"cpu.max": "12800000 100000\n"}, 64),
        ({"cpu.max": "800000 100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 64),
        ({}, 64),
    ],
)
def test_a_containers_quota_counts_as_its_cores(files: dict[str, str], count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "GROUP", tmp_path)
    monkeypatch.setattr(devices.os, "sched_getaffinity", lambda _: set(range(64)))
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert devices.cores() == count


@pytest.mark.parametrize(("fraction", "stacks"), [(1.0, 1), (0.6, 1), (0.5, 2), (0.4, 2), (1 / 3, 3), (0.3, 3), (0.1, 10), (0.03, 33)])
def test_a_stack_is_on_one_gpu_alone(fraction: float, stacks: int) -> None:
    assert devices.stacks_per_gpu(fraction) == stacks


def test_two_stacks_share_one_of_rays_gpus(service: Command, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    ran = subprocess.run(command, cwd=ROOT, env=service.environment, capture_output=True, text=True, check=False, timeout=LONG)
    assert ran.returncode == 0, ran.stderr
    device, slots, fit, ends = json.loads(ran.stdout.splitlines()[-1])
    assert (device, slots, ends) == ("cuda", 2, [None, None])
    assert 1 <= fit < 50
    assert [json.loads((tmp_path / str(seed)).read_text()) for seed in (0, 1)] == [["cuda", 0.5]] * 2


@pytest.mark.parametrize(
    ("asked", "gpus", "torch", "chosen"),
    [
        ("auto", 0, "2.13.0", "cpu"), ("auto", 1, "2.13.0", "all"), ("auto", 1, "2.13.0+cu130", "all"), ("auto", 1, "2.13.0+cpu", "cpu"),
        ("cpu", 1, "2.13.0", "cpu"), ("cuda", 0.5, "2.13.0+cpu", "cuda"),
    ],
)  # fmt: skip
def test_auto_takes_every_device_if_torch_can_use_the_gpus(
    monkeypatch: pytest.MonkeyPatch, asked: str, gpus: float, torch: str, chosen: str
) -> None:
    monkeypatch.setattr(devices.importlib.metadata, "version", lambda name: torch)
    assert devices.choose(asked, gpus) == chosen


def test_a_search_and_an_execution_of_one_device_take_that_one() -> None:
    usable = {"usable": lambda: True}
    assert devices.choose("auto", 1, search=True, **usable) == "cuda"
    assert devices.choose("auto", 0, search=True, **usable) == "cpu"
    assert devices.choose("auto", 1, execution="sparse", **usable) == "cpu"
    assert devices.choose("auto", 1, execution="onchip", **usable) == "cuda"
    assert devices.choose("all", 1, execution="onchip", **usable) == "all", "as asked"


def test_executions_of_one_device_are_known_to_the_plan_without_torch() -> None:
    for name in plugins.names("execution"):
        made_for = getattr(importlib.import_module(f"trainables.execution.{name}"), "DEVICES", None)
        if made_for is not None:
            assert (devices.MADE_FOR[name],) == made_for


def test_a_plan_says_in_a_line_that_auto_takes_every_device(
    gpus: Any, tmp_path: Path, hopper: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices.importlib.metadata, "version", lambda name: "2.13.0")
    arguments = ["plan", "smoke", "--set", f"datasets={hopper}", "--storage", str(tmp_path)]
    assert main(arguments) == 0
    assert "GPU" not in capsys.readouterr().out
    gpus(1)
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "on GPUs and cores at once, each trial on one kind of device to its end; --device cpu or cuda takes one alone" in said
    assert re.search("trials on 1 gpu", said)
    assert main([arguments[0], "td3bc_adaptive", *arguments[2:]]) == 0
    said = capsys.readouterr().out
    assert re.search(r"to suggest  48 trials \(24 suggestions x 2 seeds\) in rounds, .* at a time on cuda", said)
    assert "to run" not in said, "nothing before the first round"


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """`gpus(n)`: this machine shows n of them from now on."""
    monkeypatch.setattr(devices, "DEVICES", tmp_path / "dev")
    (tmp_path / "dev").mkdir()

    def show(count: int) -> None:
        for number in range(count):
            (tmp_path / "dev" / f"nvidia{number}").touch()

    return show


@pytest.mark.parametrize(
    ("visible", "count"),
    [(None, 8), ("0", 1), ("6,7", 2), ("GPU-5d5ba0d6", 1), (",".join(map(str, range(9))), 8), ("", 0), ("NoDevFiles", 0)],
)
def test_gpus_that_a_process_may_not_see_are_not_counted(
    visible: str | None, count: int, gpus: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Ray counts: SLURM and containers hand out some of a machine's GPUs so."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    gpus(8)
    assert devices.gpus_here() == count
    ids = NvidiaGPUAcceleratorManager.get_current_process_visible_accelerator_ids()
    assert count == (8 if ids is None else min(8, len(ids))), "Ray's own number"


@pytest.mark.parametrize(("visible", "count"), [("-1", 0), ("0,-1,1", 1), (" 0, 1", 2)])
def test_from_the_first_impossible_gpu_on_cuda_shows_none(visible: str, count: int, gpus: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    gpus(8)
    assert devices.gpus_here() == count


def test_a_gpu_that_is_not_there_is_refused_before_anything_is_started_or_written(
    gpus: Any, tmp_path: Path, hopper: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    storage = tmp_path / "storage"
    arguments = ["run", "smoke", "--set", f"datasets={hopper}", "--device", "cuda", "--storage", str(storage)]
    assert main(arguments) == 2
    assert capsys.readouterr().err == (
        "error: no GPU for --device cuda on this machine; take --device cpu, or auto, or set RAY_ADDRESS to a cluster that has one\n"
    )
    gpus(1)
    monkeypatch.setattr(devices.importlib.metadata, "version", lambda name: "2.13.0+cpu")
    assert main(arguments) == 2
    assert "torch 2.13.0+cpu cannot use a GPU" in capsys.readouterr().err
    assert not storage.exists()
    assert main(["plan", *arguments[1:]]) == 0, "a plan may be for another machine"


def test_a_clusters_gpu_is_looked_for_in_the_cluster(gpus: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "somewhere:6379")
    devices.refuse("cuda")
    monkeypatch.setattr(ray_process, "running", contextlib.nullcontext)
    monkeypatch.setattr(ray_cluster.ray, "cluster_resources", lambda: {"CPU": 64.0})
    asked = "no GPU for --device cuda among Ray's resources; take --device cpu"
    with pytest.raises(UserError, match=asked), ray_cluster.connect(TrainingOptions(device="cuda")):
        pass
