"""MIG slices by name: what nvidia-smi lists, and as kinds of their own to Ray. A program that prints a listing stands in for nvidia-smi."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.inspection.checks import gpu
from service.planning import devices
from service.planning.gpu_stacks import GpuStacks
from service.planning.options import TrainingOptions
from service.planning.update_cost import Kind
from tests.faults.support.harness import LONG
from tests.service.conftest import ROOT, Command
from trainables.trial import Trial

LISTING = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77)
  MIG 3g.20gb     Device  0: (UUID: MIG-aa11bb22-0000-5000-8000-000000000000)
  MIG 1g.5gb      Device  1: (UUID: MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f)
  MIG 1g.5gb      Device  2: (UUID: MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb)
GPU 1: NVIDIA A30 (UUID: GPU-1d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77)
  MIG 1g.6gb      Device  0: (UUID: MIG-d1e1f1ef-42e4-5de3-91c7-45d71c87eb3f)
GPU 2: NVIDIA H100 80GB HBM3 (UUID: GPU-2d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77)
"""
LARGE, SMALL = "NVIDIA A100-SXM4-40GB MIG 3g.20gb", "NVIDIA A100-SXM4-40GB MIG 1g.5gb"
SMALL_ONES = ["MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f", "MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb"]


def test_slices_have_the_names_that_torch_gives_them() -> None:
    found = devices.slices(LISTING)
    assert {name: len(ids) for name, ids in found.items()} == {LARGE: 1, SMALL: 2, "NVIDIA A30 MIG 1g.6gb": 1}
    assert found[SMALL] == SMALL_ONES
    assert devices.slices("GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-2d5ba0d6)\n") == devices.slices("") == {}
    assert devices.slices(LISTING, ",".join(reversed(SMALL_ONES))) == {SMALL: SMALL_ONES}, "CUDA_VISIBLE_DEVICES leaves the others out"
    assert devices.slices(LISTING, "0") == {}


@pytest.mark.parametrize(
    ("name", "part"),
    [(LARGE, 3 / 7), (SMALL, 1 / 7), ("NVIDIA A30 MIG 2g.12gb", 2 / 4), ("NVIDIA A100-SXM4-40GB MIG 1c.3g.20gb", 1 / 7), ("A100", 1.0)],
)
def test_a_slice_is_a_part_of_a_gpu(name: str, part: float) -> None:
    assert Kind(name=name, device="cuda", most=1).part == pytest.approx(part)


def test_a_run_takes_the_kind_that_adds_up_to_most() -> None:
    assert devices.chosen(devices.slices(LISTING))[0] == LARGE
    assert devices.chosen({SMALL: ["MIG-1"] * 4, LARGE: ["MIG-2"]})[0] == SMALL
    assert devices.chosen({}) == ("", ())


def test_stacks_on_a_slice_fit_its_memory_and_its_speed() -> None:
    found, trial = GpuStacks(TrainingOptions()), Trial(dataset="a/b/c-v0", algorithm="td3_bc")
    found.memory = lambda kind, trial, stacks: 128
    assert found.members(Kind(name=SMALL, device="cuda", most=128), trial) < found.members(
        Kind(name="A100", device="cuda", most=128), trial
    )


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with the GPUs of the listing; its nvidia-smi prints just that."""
    (tmp_path / "dev").mkdir()
    for number in range(3):
        (tmp_path / "dev" / f"nvidia{number}").touch()
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n[ \"$*\" = -L ] && cat <<'END'\n{LISTING}END\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(devices, "DEVICES", tmp_path / "dev")
    devices._listed.cache_clear()
    return tmp_path


def test_doctor_prints_the_command_for_a_node_of_each_kind(machine: Path) -> None:
    try:
        said = [result.message for result in gpu(machine)]
        assert devices.gpus_here() == 1
    finally:
        devices._listed.cache_clear()
    (small,) = (line for line in said if SMALL in line)
    assert small.startswith(f"2 x {SMALL}; as a node of a cluster: CUDA_VISIBLE_DEVICES={','.join(SMALL_ONES)} ray start --num-gpus=2 ")
    assert f"""--resources='{{"gpu:{SMALL}": 2}}' --address=HEAD:6379""" in small


PROGRAM = """
import json, os, sys
from pathlib import Path
from service.planning import devices
devices.DEVICES = Path(sys.argv[1]) / "dev"
devices.torch_uses_gpus = lambda: True
from service.cluster import ray_cluster
from service.planning.options import TrainingOptions
import ray

with ray_cluster.connect(TrainingOptions()) as cluster:
    kinds = cluster.kinds()
    (kind,) = [name for name in kinds if name != "cpu"]
    seen = ray.remote(num_gpus=1, resources=ray_cluster.of_model(kind))(lambda: os.environ["CUDA_VISIBLE_DEVICES"]).remote()
    requested = cluster._request({"kind": kind}).required_resources
    print(json.dumps([cluster.device, {**cluster.slots_by_kind()}, kind, ray.get(seen), requested]))
"""


def test_a_slice_is_a_kind_of_its_own_to_ray(service: Command, machine: Path) -> None:
    """The smaller ones alone, as where SLURM or a container hands them out."""
    environment = {**service.environment, "PATH": os.environ["PATH"], "CUDA_VISIBLE_DEVICES": ",".join(SMALL_ONES)}
    command = [sys.executable, "-c", PROGRAM, str(machine)]
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=LONG)
    assert ran.returncode == 0, ran.stderr
    device, slots, kind, seen, requested = json.loads(ran.stdout.splitlines()[-1])
    assert (device, kind) == ("all", SMALL)
    assert slots[SMALL] == 2
    assert seen in SMALL_ONES, "a worker sees its slice alone"
    assert requested["GPU"] == 1
    assert f"gpu:{SMALL}" in requested
