"""Whatever trials share a stack, execution `auto` computes each as it would alone, so that it has the same numbers."""

from __future__ import annotations

import pytest

from service.planning.packing import pack
from tests.stacks import World, small_trial
from trainables.execution import fastest
from trainables.pruning.prune import prune
from trainables.tensors.mask import to_row
from trainables.trial import BREAK_EVEN, Stack, Trial

AT = 1 - BREAK_EVEN  # the sparsity at which the masks' whole weights decide


def computed_by(trials: tuple[Trial, ...]) -> dict[str, str]:
    """What `auto` takes for each network."""
    world = World(list(trials))
    masks = prune(world.agent, world.stack, world.data.draw)
    return {name: fastest(spec, to_row(spec, masks[name])) for name, spec in world.agent.specs.items()}


def trials(algorithm: str) -> list[Trial]:
    plain = [small_trial(algorithm, "snip", sparsity, seed) for sparsity in (0.38, AT, 0.42, 0.75, 0.95) for seed in (0, 1)]
    others = [small_trial(algorithm, pruner, sparsity) for pruner in ("random_erk", "synflow", "rigl") for sparsity in (AT, 0.9)]
    effective = [small_trial(algorithm, "snip", sparsity, target="effective") for sparsity in (AT, 0.9)]
    structured = [
        small_trial(algorithm, "snip", sparsity, seed, structure=structure)
        for structure, sparsity in [("units", AT), ("units", 0.42), ("fan_in", AT), ("fan_in", 0.45), ("fan_in", 0.9), ("2:4", 0.5)]
        for seed in (0, 1)
    ]
    return [*plain, *others, *effective, *structured, small_trial(algorithm, "dense", 0.0)]


@pytest.mark.parametrize("algorithm", ["td3_bc", "iql"])
def test_a_stacks_execution_is_that_of_each_of_its_trials(algorithm: str) -> None:
    stacks: tuple[Stack, ...] = pack(trials(algorithm), 100, computed_by=("cpu", "auto"))
    for stack in stacks:
        if len(stack) > 1:
            together = computed_by(stack.trials)
            for trial in stack.trials:
                assert computed_by((trial,)) == together, trial.name
    assert max(len(stack) for stack in stacks) >= 5, "of those far from where it turns"


def test_company_would_change_how_a_network_near_the_turn_is_computed() -> None:
    """Of a few hundred weights the nearest whole number to 60 % is a little more or less. This is what stacks have to avoid."""
    at, sparser = (small_trial("td3_bc", "snip", sparsity) for sparsity in (AT, 0.95))
    assert computed_by((at,)) != computed_by((at, sparser))
