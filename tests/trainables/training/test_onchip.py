"""Updates as programs of the execution `onchip`, by the source that a GPU is given, on a CPU."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import pytest
import torch

from tests.stacks import Rows, World, assert_same, member_of, small_trial
from trainables import execution as executions
from trainables import plugins
from trainables.training.leave import Leave
from trainables.training.onchip import Launches
from trainables.training.program import RefusedError
from trainables.training.updates import Updates, cuda_graph, recorder
from trainables.trial import Trial

MUST = {"bc": {}, "bc, a Gaussian": {"gaussian": True}, "td3_bc": {}, "iql": {}, "iql, not squashed": {"squash": False}}
each_program = pytest.mark.parametrize("name", MUST)


def trials(name: str) -> list[Trial]:
    """Different masks, seeds and hyperparameters."""
    algorithm, hyper = name.split(",")[0], MUST[name]
    floats = {key: value for key, value in plugins.hyper_defaults(algorithm).items() if isinstance(value, float)}
    other = {key: value * 0.8 for key, value in floats.items()}
    return [
        small_trial(algorithm, "snip", 0.7, seed=0, hyper=hyper),
        small_trial(algorithm, "random_erk", 0.5, seed=1, hyper=hyper | other),
        small_trial(algorithm, "dense", 0.0, seed=0, hyper=hyper),
    ]


def world(these: list[Trial], execution: str = "onchip") -> World:
    return World(these, execution).start()


def updates_of(made: World, leave: Leave | None = None) -> Updates:
    updates = Updates(made.agent, made.data, leave=leave)
    assert updates.launches, "not in launches"
    return updates


def gradients(before: Rows, after: Rows) -> Rows:
    """Of the update in between, from Adam's first moments."""
    names = [name for name in before if name.startswith("adam.first/")]
    return {name: (after[name].double() - 0.9 * before[name].double()) / 0.1 for name in names}


def assert_near(found: Rows, wanted: Rows, tolerance: float, where: str) -> None:
    """Each member's rows, to a part of their length."""
    for name, row in wanted.items():
        error, size = (found[name] - row).norm(dim=1), row.norm(dim=1)
        assert (error <= tolerance * size).all(), f"{where} {name}: {(error / size).tolist()}"


@each_program
def test_gradients_are_denses_to_1e_5_over_100_updates(name: str) -> None:
    chip = world(trials(name))
    updates = updates_of(chip)
    for update in range(0, 100, 9):  # one or two of each, as the actor's turn comes
        before = chip.rows()
        reference = world(trials(name), "dense").resume(chip.masks, before, chip.counts())
        logged = reference.train(update, update + 1)[0]
        losses = updates.run(update, update + 1)
        assert chip.counts() == reference.counts()
        assert losses.keys() == logged.keys()
        for loss, value in losses.items():
            torch.testing.assert_close(value, logged[loss], rtol=1e-4, atol=1e-6)
        for network, rows in gradients(before, chip.rows()).items():
            wanted = gradients(before, reference.rows())[network]
            if wanted.abs().max() > 0:
                assert_near({network: rows}, {network: wanted}, 1e-5, f"update {update}")
        targets = {key: row for key, row in reference.rows().items() if key.startswith("target/")}
        assert_near(chip.rows(), targets, 1e-6, f"update {update}")
        updates.run(update + 1, update + 9)


@each_program
def test_weights_after_100_updates_are_denses_and_zero_where_pruned(name: str) -> None:
    chip, reference = world(trials(name)), world(trials(name), "dense")
    start = reference.rows()
    updates_of(chip).run(0, 100)
    reference.train(0, 100)
    found, wanted = chip.rows(), reference.rows()
    for row in wanted:
        moved = (wanted[row] - start[row]).norm(dim=1)
        assert ((found[row] - wanted[row]).norm(dim=1) <= 0.01 * moved).all(), row
        views = chip.agent.specs[row.split("/")[1]].views(found[row])
        for index, layer in enumerate(chip.masks[row.split("/")[1]]):
            assert (views[f"weight.{index}"][layer == 0] == 0).all()


@each_program
def test_a_member_and_an_interruption_change_no_bit(name: str) -> None:
    whole = world(trials(name))
    losses = updates_of(whole).run(0, 41)
    again = world(trials(name))
    first = updates_of(again)
    first.run(0, 7)
    first.run(7, 18)
    resumed = world(trials(name)).resume(again.masks, again.rows(), again.counts())
    assert_same(updates_of(resumed).run(18, 41), losses)
    assert_same(resumed.rows(), whole.rows(), "resumed")
    assert resumed.counts() == whole.counts()
    for k, trial in enumerate(trials(name)):
        alone = world([trial])
        own = updates_of(alone).run(0, 41)
        assert_same(member_of(whole.rows(), k), alone.rows(), trial.name)
        assert_same({key: loss[k : k + 1] for key, loss in losses.items()}, own, trial.name)


def test_masks_that_move_are_trained_on() -> None:
    """Other networks are a program of their own."""
    made = world(trials("td3_bc"))
    updates = updates_of(made)
    updates.run(0, 10)
    rows, counts = made.rows(), made.counts()
    moved = {name: [layer.flip(-1) for layer in mask] for name, mask in made.masks.items()}
    made.resume(moved, rows, counts)
    updates.run(10, 20)
    reference = world(trials("td3_bc"), "dense").resume(moved, rows, counts)
    reference.train(10, 20)
    assert_near(made.rows(), {name: row for name, row in reference.rows().items() if name.startswith("online/")}, 1e-4, "")


def test_what_it_cannot_do_is_named_and_done_one_by_one() -> None:
    made = world([replace(trials("td3_bc")[0], timeouts="terminal")])
    with pytest.warns(UserWarning, match="one by one, because it cannot do the operation index_select"):
        Updates(made.agent, made.data).run(0, 4)
    reference = World([made.stack.lead]).start()
    reference.train(0, 4)
    assert_near(made.rows(), {name: row for name, row in reference.rows().items() if name.startswith("online/")}, 1e-5, "")


def test_a_gpu_makes_what_is_no_program_without_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network on the chip uploads its program at each call, which a CUDA graph must not record."""
    made = world([replace(trials("td3_bc")[0], timeouts="terminal")])
    monkeypatch.setattr(made.agent, "recorded", True)
    assert recorder(made.agent) is None
    monkeypatch.setattr(made.agent, "execution", "fused")
    assert recorder(made.agent) is cuda_graph


def covered(algorithm: str) -> str:
    """Why an algorithm's updates cannot be a program; empty where they can."""
    made = World([small_trial(algorithm, "snip", 0.5)], "onchip")
    if reason := next((why for spec in made.agent.specs.values() if (why := executions.cannot("onchip", spec))), ""):
        return reason
    try:
        Launches(made.start().agent, made.data).run(0, 4)
    except RefusedError as error:
        return str(error)
    return ""


def test_which_algorithms_are_programs_is_found_by_compiling_them() -> None:
    reasons = {algorithm: covered(algorithm) for algorithm in plugins.names("algorithms")}
    assert {algorithm for algorithm, reason in reasons.items() if not reason} >= {"bc", "td3_bc", "iql"}, reasons
    assert reasons["rebrac"] == "layer normalization"


COUNTER = """
from trainables.algorithms.bc import *

calls = 0


def update(agent, batch):
    global calls
    calls += 1
    loss = actor_loss(agent, batch) * (1 + calls)
    agent.minimize(actor=loss)
    return {"actor_loss": loss}
"""


def test_an_algorithm_that_counts_in_python_is_not_frozen() -> None:
    made = world([small_trial("bc", "snip", 0.5)])
    made.agent.algorithm = ModuleType("counting")
    exec(COUNTER, vars(made.agent.algorithm))
    with pytest.raises(RefusedError, match="depends on Python"):
        Launches(made.agent, made.data).run(0, 1)


def test_it_leaves_between_launches_when_asked() -> None:
    made, leave = world(trials("bc")), Leave()
    updates = updates_of(made, leave)
    leave.asked = True
    updates.run(0, 1000, least=1)
    assert updates.reached == 1
    updates.run(1, 1000)
    assert updates.reached == 1
