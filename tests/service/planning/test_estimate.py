"""Estimates of time against simulated machines, by a clock of the test's own: within a factor of two from a machine's second run on."""

from __future__ import annotations

import json
import os
import random
import statistics
from pathlib import Path

import optuna
import pytest

from service.driving import driver as driving
from service.driving.driver import Driver
from service.ledger.manifest import Manifest
from service.planning import estimate
from service.planning.description import describe
from service.planning.options import TrainingOptions
from service.planning.plan import Plan, make_plan
from service.planning.run_settings import RunSettings
from service.planning.update_cost import UPDATES_PER_SECOND
from service.search.studies import _pruner
from service.storage import paths
from service.terminal.display import Display
from tests.conftest import HOPPER
from trainables.storage import cache

CPUS = 2
SWEEP = (f"datasets={HOPPER}", "algorithms=bc", "pruners=dense", "seeds=0-3", "updates=20k", "evaluations=2", "episodes=2")


class Machine:
    """Two CPUs, on which others keep `others` processes running; alone, the first update of a run comes after `start` seconds and a stack
    of BC trains at `rate` updates per second."""

    def __init__(self, start: float, rate: float) -> None:
        self.start, self.rate, self.others, self.running, self.now = start, rate, 0.0, 0, 1000.0

    def crowding(self) -> float:
        return max(1.0, (self.others + CPUS) / CPUS)

    def run(self, plan: Plan, storage: Path) -> float:
        """Let a real driver conduct the plan, two stacks at a time; returns the seconds that it took."""
        manifest = Manifest(storage, "smoke")
        driver, begun, self.running = Driver(plan, manifest, storage, Display()), self.now, CPUS
        driver.prepare()
        driver.begin("cpu", CPUS)
        self.now += self.start * self.crowding()
        while stacks := [stack for stack in (driver.next() for _ in range(CPUS)) if stack]:
            seconds = [self.crowding() * sum(trial.updates for trial in stack.trials) / self.rate for stack in stacks]
            for stack, took in zip(stacks, seconds, strict=True):
                driver.started(stack)
                driver.reported(stack, {"update": 1})
                for trial in stack.trials:
                    end = {"kind": "finished", "update": trial.updates, "time": 1, "seconds": took, "execution": "dense"}
                    file = paths.spool(storage, trial.key)
                    file.parent.mkdir(parents=True)
                    file.write_text(json.dumps(end) + "\n")
            self.now += max(seconds)
            for stack in stacks:
                driver.ended(stack, {})
        manifest.close()
        estimate.remember("cpu", driver.first_update - begun, driver.measured, self.crowding())
        self.running = 0
        return self.now - begun


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hopper: str) -> Machine:
    """Four times slower than the one of the benchmarks."""
    made = Machine(start=60.0, rate=UPDATES_PER_SECOND["cpu", "bc"] / 4)
    monkeypatch.setenv("WINNOW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(driving.time, "monotonic", lambda: made.now)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(CPUS)))
    monkeypatch.setattr(os, "getloadavg", lambda: (made.others + made.running, 0.0, 0.0))
    return made


def planned(storage: Path, *more: str) -> Plan:
    return make_plan("smoke", RunSettings(overrides=(*SWEEP, *more), options=TrainingOptions(device="cpu")), storage=storage)


@pytest.mark.parametrize("others_then", [0.0, 6.0])
@pytest.mark.parametrize("others_now", [0.0, 2.0, 10.0])
def test_from_the_second_run_on_the_estimate_is_within_a_factor_of_two(
    machine: Machine, tmp_path: Path, others_then: float, others_now: float
) -> None:
    machine.others = others_then
    machine.run(planned(tmp_path / "first"), tmp_path / "first")
    machine.others = others_now
    for storage, more in ((tmp_path / "second", ("updates=50k",)), (tmp_path / "first", ("seeds=10-14",))):  # a new one; the same
        plan = planned(storage, *more)
        took = machine.run(plan, storage)
        assert took / 2 < plan.seconds < took * 2, (plan.seconds, took)


def test_of_a_machine_that_has_run_nothing_the_benchmarks_speak(machine: Machine, tmp_path: Path) -> None:
    plan = planned(tmp_path / "first")
    assert plan.rates == {"bc": UPDATES_PER_SECOND["cpu", "bc"]}
    assert (plan.start, plan.crowding) == (estimate.START["cpu"], 1.0)
    assert "20 s to start, then bc 450 dense updates/s of a stack" in describe(plan)
    machine.others = 6.0
    busy = planned(tmp_path / "first")
    assert busy.crowding == 4.0
    assert busy.seconds == pytest.approx(4 * plan.seconds)
    assert describe(busy).endswith(", 4.0 times slower on a machine as busy as now")


def searched(storage: Path, *more: str, **options: int) -> Plan:
    """A search of two CPUs on networks at 95 %, of 10 suggestions with two seeds."""
    overrides = (f"datasets={HOPPER}", "pruners=snip", "sparsities=0.95", "search.suggestions=10", *more)
    settings = RunSettings(overrides=overrides, options=TrainingOptions(device="cpu", **options))
    return make_plan("td3bc_adaptive", settings, storage=storage)


def training(plan: Plan) -> float:
    return (plan.seconds - plan.start) / plan.crowding


def test_suggestions_to_come_take_as_long_as_the_same_trials_of_a_grid(machine: Machine, tmp_path: Path) -> None:
    grid = searched(tmp_path, "search=none", "hyper.alpha=1,1.5,2,2.5,3,3.5,4,4.5,5,5.5", stack_size=1)
    assert len(grid.todo) == 20
    assert training(searched(tmp_path)) == pytest.approx(training(grid))
    dense = searched(tmp_path, "pruners=dense", "sparsities=0")
    assert training(dense) > 1.2 * training(grid), "a kept twentieth is cheaper"
    both = searched(tmp_path, "pruners=dense,snip", "sparsities=0,0.95")
    assert training(grid) < training(both) < training(dense)
    assert training(searched(tmp_path, stack_size=4)) == pytest.approx(1.2 * training(grid)), "three stacks of four on one of the CPUs"


def test_each_algorithm_has_its_own_pace(machine: Machine, tmp_path: Path) -> None:
    alone = [training(searched(tmp_path, f"algorithms={algorithm}", "hyper.alpha=2.5")) for algorithm in ("td3_bc", "cql")]
    both = training(searched(tmp_path, "algorithms=td3_bc,cql", "hyper.alpha=2.5"))
    assert both == pytest.approx(sum(alone))
    assert alone[1] > 1.5 * alone[0]


def test_few_suggestions_leave_cpus_idle(machine: Machine, tmp_path: Path) -> None:
    one, two, three = (training(searched(tmp_path, f"search.suggestions={count}", "seeds=0")) for count in (1, 2, 3))
    assert one == two == three / 2


@pytest.mark.parametrize("stop", ["asha", "median"])
def test_what_a_rule_will_stop_is_not_counted(stop: str, machine: Machine, tmp_path: Path) -> None:
    """Within a factor of 1.5 of what Optuna's rule stops of noisy curves, four at a time."""
    plain = ("search.objective=score", "search.suggestions=24", "evaluations=10")
    shares = []
    for grace in (1, 3):
        shorter = searched(tmp_path, *plain, f"search.stop={stop}", f"search.grace={grace}")
        shares.append(training(shorter) / training(searched(tmp_path, *plain)))
        found = statistics.fmean(trained(stop, grace, seed) for seed in range(5))
        assert found / 1.5 < shares[-1] < found * 1.5
        assert describe(shorter).endswith(f"; if {stop} stops as many suggestions as it usually does")
    assert shares[0] < shares[1] < 1
    assert training(searched(tmp_path, *plain, f"search.stop={stop}", "search.grace=10")) == training(searched(tmp_path, *plain))


def trained(stop: str, grace: int, seed: int, suggestions: int = 24, evaluations: int = 10) -> float:
    """The share of their evaluations that suggestions reach, which are drawn by chance and differ in how fast they learn."""
    study = optuna.create_study(direction="maximize", pruner=_pruner(stop, grace), sampler=optuna.samplers.RandomSampler(seed=seed))
    chance, reached, running, asked = random.Random(seed), 0, list[tuple[optuna.Trial, float]](), 0
    while running or asked < suggestions:
        while len(running) < 4 and asked < suggestions:
            running.append((study.ask(), chance.random()))
            asked += 1
        for trial, speed in list(running):
            step = len(study.trials[trial.number].intermediate_values) + 1
            trial.report(speed * (1 - 0.5**step) + chance.gauss(0, 0.1), step)
            reached += 1
            if step == evaluations or trial.should_prune():
                state = optuna.trial.TrialState.COMPLETE if step == evaluations else optuna.trial.TrialState.PRUNED
                study.tell(trial, speed if step == evaluations else None, state=state)
                running.remove((trial, speed))
    return reached / (suggestions * evaluations)


def test_short_trials_say_nothing_about_longer_ones(machine: Machine, tmp_path: Path) -> None:
    machine.run(planned(tmp_path / "first", "updates=200"), tmp_path / "first")
    assert estimate.known("cpu") == estimate.MachinePace(machine.start)


def test_what_is_done_takes_no_time(machine: Machine, tmp_path: Path) -> None:
    machine.run(planned(tmp_path), tmp_path)
    assert planned(tmp_path).seconds == 0


@pytest.mark.parametrize("held", ["", "[]", '{"cpu": 3}', '{"cpu": {"start": "x"}}', '{"cpu": {"start": [NaN, -1, 0]}}', "\x00"])
def test_a_damaged_file_counts_as_none(machine: Machine, held: str) -> None:
    cache.root().mkdir()
    (cache.root() / estimate.FILE).write_text(held)
    assert estimate.known("cpu") == estimate.MachinePace(estimate.START["cpu"])
    estimate.remember("cpu", 30.0, {"bc": [10.0]}, 2.0)
    assert estimate.known("cpu") == estimate.MachinePace(15.0, {"bc": 20.0})


def test_only_the_newest_measurements_count(machine: Machine) -> None:
    for _ in range(estimate.KEPT):
        estimate.remember("cpu", 500.0, {"bc": [1.0]}, 1.0)
    for _ in range(estimate.KEPT):
        estimate.remember("cpu", 5.0, {"bc": [100.0], "iql": [7.0]}, 1.0)
    assert estimate.known("cpu") == estimate.MachinePace(5.0, {"bc": 100.0, "iql": 7.0})
    assert estimate.known("cuda") == estimate.MachinePace(estimate.START["cuda"])


def test_a_cache_that_cannot_be_written_is_no_error(machine: Machine) -> None:
    cache.root().write_text("a file")
    estimate.remember("cpu", 30.0, {}, 1.0)
    assert estimate.known("cpu").start == estimate.START["cpu"]


def test_what_a_run_has_measured_is_its_users_and_used_whatever_the_umask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINNOW_CACHE", str(tmp_path / "cache"))
    before = os.umask(0)
    try:
        estimate.remember("cpu", 2.0, {"bc": [500.0]}, 1.0)
    finally:
        os.umask(before)
    (file,) = (tmp_path / "cache").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert cache.trusted(file)
    file.chmod(0o622)  # as if somebody else could have written it
    assert estimate.known("cpu") == estimate.MachinePace(estimate.START["cpu"])
