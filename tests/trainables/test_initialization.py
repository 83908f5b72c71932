"""Initial weights: torch's, or Xavier-normal ones."""

from __future__ import annotations

import math

import torch

from tests.stacks import World, small_trial


def test_xavier_weights_are_normal_and_biases_are_torchs() -> None:
    hyper = {"hidden": (256, 256)}
    plain, other = (
        World([small_trial("iql", hyper=hyper, seed=seed, initialization=how) for seed in (0, 1)]) for how in ("torch", "xavier")
    )
    for name, spec in other.agent.specs.items():
        found, usual = spec.views(other.agent.initial(name)), spec.views(plain.agent.initial(name))
        for index, (n_in, n_out) in enumerate(spec.layers):
            weight, deviation = found[f"weight.{index}"], math.sqrt(2 / (n_in + n_out))
            if weight[0].numel() > 1000:
                assert abs(float(weight[0].std()) / deviation - 1) < 0.1
                assert abs(float(weight[0].mean())) < 0.1 * deviation
                assert float(weight[0].abs().max()) > 2.5 * deviation, "it is no uniform distribution"
            assert not torch.equal(weight[0], weight[1])
            assert torch.equal(found[f"bias.{index}"], usual[f"bias.{index}"])
    alone = World([small_trial("iql", hyper=hyper, seed=1, initialization="xavier")]).agent
    assert torch.equal(alone.initial("actor")[0], other.agent.initial("actor")[1])
