"""`plan`: the makespan and the cost of a sweep on the places that are there, or on those that are asked for."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service.__main__ import main
from service.planning import devices
from service.planning.makespan import Forecast, amounts, jobs
from service.planning.plan import make_plan
from service.planning.run_settings import RunSettings
from service.planning.update_cost import Kind
from service.spool.writer import StackSpool
from service.terminal.words import duration
from trainables import project
from trainables.errors import UserError
from trainables.reports import Checkpointed
from trainables.trial import Stack, Trial

GRID = ["--set=pruners=snip", "--set=sparsities=0.9,0.95", "--set=seeds=0-9", "--set=updates=200k"]


@pytest.fixture
def plan(hopper: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """`plan("--places=cpu=4")`: the forecast in the JSON of the smoke sweep's plan."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})

    def asked(*words: str) -> Any:
        arguments = ["plan", "smoke", f"--set=datasets={hopper}", *GRID, "--device=cpu", f"--storage={tmp_path}", *words]
        assert main([*arguments, "--json"]) == 0
        value = json.loads(capsys.readouterr().out)
        assert main(arguments) == 0
        return value | {"text": capsys.readouterr().out}

    return asked


def test_more_places_take_less_time_and_the_same_hours(plan: Any) -> None:
    few, many = (plan(f"--places=cpu={count}")["forecast"] for count in (2, 20))
    assert few["trials"] == many["trials"] == {"cpu": len(plan()["trials"])}
    assert few["at_least"] <= few["seconds"] < 1.1 * few["at_least"]
    assert few["seconds"] > 5 * many["seconds"]
    assert many["hours"]["cpu"] == pytest.approx(few["hours"]["cpu"], rel=0.2)
    assert few["hours"]["cpu"] == pytest.approx(2 * few["seconds"] / 3600, rel=0.1)


def test_this_machines_places_are_the_default(plan: Any) -> None:
    assert plan()["forecast"] == plan("--places=cpu=2")["forecast"]


def test_every_device_of_this_machine_is_counted_with_all(plan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr(devices, "gpus_here", lambda: 1)
    found = plan("--device=all")
    assert found["device"] == "all"
    assert found["forecast"] == plan("--device=all", "--places=cpu=7,gpu=1")["forecast"], "a stack on the GPU takes a core, too"
    two = ("--device=all", "--gpu-fraction=0.5")
    assert plan(*two)["forecast"] == plan(*two, "--places=cpu=6,gpu=1")["forecast"]


def test_hours_of_cores_and_gpus_have_prices_of_the_command_or_of_the_project(plan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    places = "--places=cpu=4,gpu=1"
    free = plan(places)
    assert free["forecast"]["price"] is None
    assert free["forecast"]["trials"].keys() == {"cpu", "gpu"}
    hours = free["forecast"]["hours"]
    assert plan(places, "--prices=gpu=10")["forecast"]["price"] == pytest.approx(10 * hours["gpu"])
    monkeypatch.setattr(project, "settings", lambda: {"prices": {"cpu": 2.0, "gpu": 10}})
    priced = plan(places)
    assert priced["forecast"]["price"] == pytest.approx(2 * hours["cpu"] + 10 * hours["gpu"])
    assert f"GPU-hours: {priced['forecast']['price']:,.2f}" in priced["text"]


def test_slices_of_gpus_are_places_by_their_profiles(plan: Any) -> None:
    found = plan("--places=cpu=4,1g.5gb=7", "--prices=gpu=7,cpu=0")
    hours = found["forecast"]["hours"]
    assert hours.keys() == {"cpu", "1g.5gb"}
    assert found["forecast"]["price"] == pytest.approx(hours["1g.5gb"]), "a seventh of a GPU costs a seventh"
    assert f"{hours['1g.5gb']:,.2f} hours of 1g.5gb" in found["text"]
    own = plan("--places=cpu=4,1g.5gb=7", "--prices=gpu=7,1g.5gb=3")["forecast"]["price"]
    assert own == pytest.approx(3 * hours["1g.5gb"]), "unless it has a price of its own"
    assert plan("--places=1g.5gb=1")["forecast"]["seconds"] > plan("--places=gpu=1")["forecast"]["seconds"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--places=tpu=1", "no kind of place in --places 'tpu'; there are: cpu, gpu, MIG slices such as 1g.5gb"),
        ("--places=cpu=x", "--places 'cpu=x' is not a whole number, as in cpu=8"),
        ("--places=cpu=1.5", "--places 'cpu=1.5' is not a whole number, as in cpu=8"),
        ("--places=cpu=0", "--places 'cpu=0' names no places"),
        ("--prices=gpu=nan", "--prices 'gpu=nan' is below 0 or infinite"),
        ("--prices=gpu=-1", "--prices 'gpu=-1' is below 0 or infinite"),
    ],
)
def test_places_and_prices_that_make_no_sense_are_shown(
    words: str, said: str, hopper: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "smoke", f"--set=datasets={hopper}", f"--storage={tmp_path}", words]) == 2
    assert capsys.readouterr().err == f"error: {said}\n"


def test_amounts_are_by_kind_and_each_kind_is_said_once() -> None:
    assert amounts("cpu=64, gpu = 8,1g.5gb=7,1c.2g.20gb=1", "--places", whole=True) == {"cpu": 64, "gpu": 8, "1g.5gb": 7, "1c.2g.20gb": 1}
    assert amounts("gpu=2.5", "--prices", whole=False) == {"gpu": 2.5}
    assert amounts("cpu=0", "--prices", whole=False) == {"cpu": 0.0}, "a price may be nothing"
    with pytest.raises(UserError, match=r"^--places 'gpu=2,cpu=1,gpu=4' names gpu twice$"):
        amounts("gpu=2,cpu=1,gpu=4", "--places", whole=True)


def test_a_price_of_nothing_is_shown_and_one_that_nobody_has_said_is_not() -> None:
    found = Forecast(
        places={"cpu": 4, "1g.5gb": 2}, seconds=7200.0, at_least=3600.0, hours={"cpu": 1234.5, "1g.5gb": 2.0}, trials={"cpu": 9},
        stacks={"cpu": 3}, price=0.0,
    )  # fmt: skip
    places, makespan, cost = found.lines()
    assert places.split(maxsplit=1)[1] == "9 trials on 4 cpu, 0 trials on 2 1g.5gb"
    assert makespan.split(maxsplit=1)[1] == (
        f"about {duration(7200.0)} once started, on idle places; no schedule takes less than {duration(3600.0)}"
    )
    assert cost.split(maxsplit=1)[1] == "1,234.50 core-hours, 2.00 hours of 1g.5gb: 0.00"
    assert replace(found, price=None).lines()[2].endswith("hours of 1g.5gb")


def test_a_trial_that_has_begun_costs_what_is_left_of_it() -> None:
    """BC at 100 updates a second: 1000 of them take 10 seconds, and the 250 that are left of one 2.5."""
    trials = [Trial(dataset="a/b/c-v0", algorithm="bc", updates=1000, seed=seed) for seed in range(4)]
    trials.append(replace(trials[0], pruner="snip", sparsity=0.5))
    kinds = {"cpu": Kind(name="cpu", device="cpu", most=4)}
    found = jobs(trials, {trials[1].key: 750}, kinds, {"bc": 100.0}, "compact")
    assert [(job.costs["cpu"].each, count) for job, count in found.items()] == [(10.0, 3), (2.5, 1), (10.0, 1)]
    first, begun, pruned = found
    assert first.mates == pruned.mates != begun.mates, "a stack's trials have done as much"
    assert first.families != pruned.families, "what one sparsity takes says little of another"


def test_a_project_may_say_prices_of_cores_and_gpus_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for text, right in (("cpu = 0.04\ngpu = 2", True), ("tpu = 1", False), ("cpu = -1", False), ("cpu = 'much'", False)):
        (tmp_path / project.FILE).write_text(f"[prices]\n{text}\n")
        monkeypatch.setenv(project.VARIABLE, str(tmp_path))
        project.root.cache_clear()
        project.settings.cache_clear()
        try:
            if right:
                assert project.settings()["prices"] == {"cpu": 0.04, "gpu": 2}
            else:
                with pytest.raises(project.UserError, match="a table of the prices of an hour"):
                    project.settings()
        finally:
            monkeypatch.delenv(project.VARIABLE)
            project.root.cache_clear()
            project.settings.cache_clear()


def test_a_trial_that_was_interrupted_after_its_last_update_is_planned(plan: Any, hopper: str, tmp_path: Path) -> None:
    """Its policy is still to be written, which takes no update: a cost of 0 would be divided by."""
    settings = (f"datasets={hopper}", *(word.removeprefix("--set=") for word in GRID))
    trials = make_plan("smoke", RunSettings(overrides=settings), storage=tmp_path).trials
    assert {trial.key for trial in trials} == {each["key"] for each in plan()["trials"]}
    for trial in trials:
        spool = StackSpool(Stack((trial,)), tmp_path, {trial.dataset: {}}, 50)
        spool(Checkpointed(trial.updates))
        spool.close()
    assert plan("--places=cpu=2")["forecast"]["seconds"] > 0
