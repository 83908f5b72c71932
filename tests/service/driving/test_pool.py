"""Every device at once: which trials a place of each kind gets, and that a trial goes on where it began."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service.driving.driver import Driver
from service.driving.pool import Pool
from service.ledger.manifest import Manifest, read_all
from service.planning import devices, estimate
from service.planning.gpu_stacks import GpuStacks
from service.planning.options import TrainingOptions
from service.planning.plan import make_plan
from service.planning.run_settings import RunSettings
from service.planning.update_cost import Kind, gpu_curve
from service.storage import paths
from service.terminal.display import Display
from tests.faults.support.harness import LONG
from tests.service.conftest import ROOT, Command
from trainables.errors import UserError
from trainables.trial import Stack

GRID = ("pruners=dense,snip", "sparsities=0.95", "seeds=0-7", "updates=400000")
KINDS = {"cpu": Kind(name="cpu", device="cpu", most=4), "gpu": Kind(name="gpu", device="cuda", most=32, share=0.5)}


def begin(storage: Path, dataset: str, slots: dict[str, int], **options: Any) -> tuple[Driver, Manifest]:
    settings = RunSettings(overrides=(f"datasets={dataset}", *GRID), options=TrainingOptions(device="all", **options))
    plan = make_plan("smoke", settings, storage=storage)
    assert plan.device == "all"
    manifest = Manifest(storage, "smoke")
    driver = Driver(plan, manifest, storage, Display())
    driver.prepare()
    driver.begin_on_all(Pool(KINDS, lambda: slots, plan.settings.options, plan.rates))
    return driver, manifest


@pytest.fixture(autouse=True)
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """One, on a machine whose pace no test before has measured."""
    monkeypatch.setattr(devices, "gpus_here", lambda: 1)
    monkeypatch.setattr(estimate, "FILE", "unmeasured.json")


def handed_out(driver: Driver, kind: str) -> set[str]:
    """The keys of all trials that the driver has for places of a kind now."""
    keys = set[str]()
    while (stack := driver.next(kind)) is not None:
        keys |= {trial.key for trial in stack.trials}
    return keys


def test_a_gpu_gets_the_dense_trials_and_a_core_the_pruned_ones(tmp_path: Path, hopper: str) -> None:
    driver, manifest = begin(tmp_path, hopper, {"cpu": 16, "gpu": 2})
    on_core, on_gpu = driver.next("cpu"), driver.next("gpu")
    assert on_core is not None
    assert on_gpu is not None
    assert {trial.pruner for trial in on_core.trials} == {"snip"}
    assert {trial.pruner for trial in on_gpu.trials} == {"dense"}
    for stack, kind in ((on_core, "cpu"), (on_gpu, "gpu")):
        assert {manifest.ledger.entries[trial.key].detail["on"] for trial in stack.trials} == {kind}
    manifest.close()


def checkpointed(storage: Path, stack: Stack) -> None:
    """A checkpoint of it was committed."""
    for trial in stack.trials:
        spool = paths.spool(storage, trial.key)
        spool.parent.mkdir(parents=True, exist_ok=True)
        spool.write_text(json.dumps({"update": 1000, "kind": "checkpointed", "time": 0}) + "\n")


def test_a_trial_goes_on_on_the_kind_that_it_began_on_and_says_so(tmp_path: Path, hopper: str, capsys: pytest.CaptureFixture[str]) -> None:
    driver, manifest = begin(tmp_path, hopper, {"gpu": 2})
    stack = driver.next("gpu")
    assert stack is not None
    checkpointed(tmp_path, stack)
    driver.leave()
    manifest.close()
    capsys.readouterr()
    driver, manifest = begin(tmp_path, hopper, {"cpu": 2})
    began = {trial.key for trial in stack.trials}
    assert f"continue on the kind of device they started on: {len(began)} on gpu" in capsys.readouterr().out
    assert handed_out(driver, "cpu") == {trial.key for trial in driver.plan.trials} - began
    driver.leave()
    manifest.close()
    driver, manifest = begin(tmp_path, hopper, {"cpu": 2, "gpu": 2})
    assert began <= handed_out(driver, "gpu")
    manifest.close()


def test_what_began_on_cores_alone_stays_there_where_every_device_is_used_later(tmp_path: Path, hopper: str) -> None:
    settings = RunSettings(overrides=(f"datasets={hopper}", *GRID), options=TrainingOptions(device="cpu"))
    manifest = Manifest(tmp_path, "smoke")
    driver = Driver(make_plan("smoke", settings, storage=tmp_path), manifest, tmp_path, Display())
    driver.prepare()
    driver.begin("cpu", 2, None, {"on": "cpu"})
    stack = driver.next()
    assert stack is not None
    checkpointed(tmp_path, stack)
    driver.leave()
    manifest.close()
    driver, manifest = begin(tmp_path, hopper, {"cpu": 0, "gpu": 2})
    assert handed_out(driver, "gpu") == {trial.key for trial in driver.plan.trials} - {trial.key for trial in stack.trials}
    manifest.close()


def test_trials_whose_kind_is_not_here_are_named_and_not_waited_for(
    tmp_path: Path, hopper: str, capsys: pytest.CaptureFixture[str]
) -> None:
    test_a_trial_goes_on_on_the_kind_that_it_began_on_and_says_so(tmp_path, hopper, capsys)
    driver, manifest = begin(tmp_path, hopper, {"cpu": 2})
    assert "trials started on gpu, which is not here" in capsys.readouterr().out
    while driver.next("cpu") is not None:
        pass
    driver._out.clear()
    assert not driver.busy()
    assert driver.exit_code() == 1
    manifest.close()


def test_a_kind_that_goes_away_on_the_way_is_waited_for_by_what_began_on_it_alone(
    tmp_path: Path, hopper: str, capsys: pytest.CaptureFixture[str]
) -> None:
    slots = {"cpu": 2, "gpu": 2}
    driver, manifest = begin(tmp_path, hopper, slots)
    began, waits = driver.next("gpu"), driver.next("gpu")
    assert began is not None
    assert waits is not None
    driver.started(began)
    checkpointed(tmp_path, began)
    slots["gpu"] = 0  # its only node dies, under one stack; the other one still waits for a worker
    driver.ended(began, {"failure": {"reason": "infrastructure", "message": "the worker died"}})
    driver.ended(waits, {"failure": {"reason": "withdrawn", "message": "its kind of place is not there any more"}})
    assert [manifest.ledger.state(trial.key) for stack in (began, waits) for trial in stack.trials] == ["planned"] * (
        len(began) + len(waits)
    )
    on_cores = set()
    while (other := driver.next("cpu")) is not None:
        on_cores |= {trial.key for trial in other.trials}
        driver._out -= {trial.key for trial in other.trials}
    assert on_cores == {trial.key for trial in driver.plan.trials} - {trial.key for trial in began.trials}
    assert driver.busy(), "it may come back"
    driver.idle()
    assert capsys.readouterr().out.count("gpu is no longer here: trials that started on it wait until it is back") == 1
    slots["gpu"] = 2
    back = driver.next("gpu")
    assert back is not None
    assert {trial.key for trial in back.trials} <= {trial.key for trial in began.trials}
    driver.leave()
    manifest.close()


def test_what_stacks_take_on_a_gpu_divides_it_anew(tmp_path: Path, hopper: str) -> None:
    """One stack at first; then two, by what was measured elsewhere; then one again, since two take three times as long here."""
    options, clock = TrainingOptions(device="all"), 0.0
    gpus = GpuStacks(options)
    gpus.memory = lambda kind, trial, stacks: 128
    grid = (f"datasets={hopper}", "algorithms=td3_bc", "pruners=dense", "seeds=0-1999", "updates=50000")
    plan = make_plan("smoke", RunSettings(overrides=grid, options=options), storage=tmp_path)
    kinds = {"cpu": KINDS["cpu"], "gpu": replace(KINDS["gpu"], share=1.0)}
    pool = Pool(kinds, lambda: {"cpu": 2, "gpu": gpus.stacks("gpu")}, options, plan.rates, gpus, lambda: {"cpu": 8.0, "gpu": 1.0})
    pool.add(plan.trials, {}, {}, {})
    shares, seconds = [], gpu_curve("td3_bc", KINDS["gpu"], 130.0).seconds
    for _ in range(10):
        stacks: list[Stack] = []
        while (not stacks or len(stacks) < gpus.stacks("gpu")) and (stack := pool.take("gpu", clock)) is not None:
            stacks.append(stack)
        shares.append([pool.place_of(stack)["share"] for stack in stacks])
        for stack in stacks:
            pool.started(stack, 0, clock)
        clock += (1 if len(stacks) == 1 else 3) * max(10 + 50_000 * seconds(len(stack)) for stack in stacks)
        for stack in stacks:
            pool.ended(stack, True, clock)
    assert shares[0] == [1.0]
    assert [0.5, 0.5] in shares
    assert shares[-1] == [1.0]


def test_what_is_compared_can_be_pinned_to_one_kind(tmp_path: Path, hopper: str) -> None:
    driver, manifest = begin(tmp_path, hopper, {"cpu": 16, "gpu": 2}, pin=True)
    taken = {kind: driver.next(kind) for kind in ("cpu", "gpu")}
    assert [kind for kind, stack in taken.items() if stack is not None] == ["gpu"], "one dataset and algorithm: all on what is faster"
    manifest.close()


def test_every_device_needs_a_gpu_and_a_grid(tmp_path: Path, hopper: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="no GPU for --device all among Ray's resources"):
        devices.choose("all", 0)
    assert devices.choose("all", 1) == "all"
    monkeypatch.setattr(devices, "gpus_here", lambda: 0)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(UserError, match="no GPU for --device all on this machine"):
        devices.refuse("all")


PROGRAM = """
import os, sys, time
from functools import partial
import ray
from service.__main__ import main
from service.driving.session import Session
from service.planning import devices, update_cost
from trainables.training import memory

ray.init = partial(ray.init, num_gpus=1)  # to Ray, a GPU is a number
memory.free_bytes = lambda: 10**9
devices.gpus_here, devices.torch_uses_gpus = lambda: 1, lambda: True
# Trials as short as these are estimated as if they were long: else the sweep would be over while Ray starts its second worker.
update_cost.START.update(cpu=0.0, cuda=50.0)
update_cost.UPDATES_PER_SECOND["cpu", "bc"] = 0.45
os.sched_getaffinity = lambda pid: {0, 1, 2, 3}  # a stack on the GPU, and three cores
started = Session.train

def work(stack, storage, *, device, **options):
    from trainables.run import run_stack
    time.sleep(0.3)
    (storage / "ran").mkdir(exist_ok=True)
    share = ray.get_runtime_context().get_assigned_resources().get("GPU", 0.0)
    for trial in stack.trials:
        (storage / "ran" / trial.key).write_text(f"{device} {share:g}")
    yield from run_stack(stack, storage, device="cpu", **options)

Session.train = lambda self, listen: started(self, listen, work)
sys.exit(main(sys.argv[1:]))
"""


def test_a_sweep_on_every_device_through_ray(service: Command, tmp_path: Path) -> None:
    """Which is what `auto` means where both are there. Ray's GPU is a number here: what is placed on it trains on the CPU."""
    arguments = ["run", "smoke", "--set=datasets=test/hopper/random-v0", "--set=pruners=dense,snip", "--set=seeds=0-3"]
    arguments += ["--set=sparsities=0.95", "--set=updates=60", f"--storage={tmp_path}"]
    command = [sys.executable, "-c", PROGRAM, *arguments]
    ran = subprocess.run(command, cwd=ROOT, env=service.environment, capture_output=True, text=True, check=False, timeout=LONG)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    entries = read_all(tmp_path)["smoke"].entries.values()
    assert {entry.state for entry in entries} == {"done"}
    on = {entry.trial.key: (entry.detail["on"], entry.detail["device"]) for entry in entries}
    assert set(on.values()) == {("cpu", "cpu"), ("gpu", "cuda")}
    for key, (_, device) in on.items():
        share = 1 if device == "cuda" else 0
        assert (tmp_path / "ran" / key).read_text() == f"{device} {share}", "the worker was told the device of its place, and has its share"
        assert next(entry.detail.get("share", 0) for entry in entries if entry.trial.key == key) == share
    on_gpu = Counter(entry.trial.pruner for entry in entries if on[entry.trial.key][0] == "gpu")
    assert on_gpu["dense"] > on_gpu["snip"], "which of them, the clock of this machine has a say in"
