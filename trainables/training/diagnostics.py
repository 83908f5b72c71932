"""One cheap number for each suspicion why a pruned network learns less: does a signal pass, do units fall silent, do features collapse.

They are measured on rows of the dataset that stay the same during a training, for networks of observations, or of observations and actions.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from trainables.agent import Agent
from trainables.datasets.minibatches import Minibatches
from trainables.execution import dense
from trainables.pruning.starting_weights import drawn_rows
from trainables.tensors.mask import Mask, live_units, to_row
from trainables.tensors.mlp import MLP
from trainables.tensors.streams import Streams

ROWS = 128
DORMANT = 0.025  # of a layer's mean activation: a threshold of Sokar et al. 2023, arXiv 2302.12902
RANK_SHARE = 0.99  # of the sum of singular values: srank with delta 0.01 of Kumar et al. 2021, arXiv 2010.14498

Numbers = list[dict[str, float]]


class Diagnostics:
    """Of an agent's networks, on `ROWS` rows of the dataset that each member draws for itself."""

    def __init__(self, agent: Agent, data: Minibatches) -> None:
        self.agent = agent
        batch = data.draw(Streams(agent.streams.seeds, agent.device, "diagnostics/"), ROWS)
        inputs = batch.observations, torch.cat([batch.observations, batch.actions], dim=-1)
        by_width = {x.shape[-1]: x for x in inputs}
        self.inputs = {name: by_width[spec.sizes[0]] for name, spec in agent.specs.items() if spec.sizes[0] in by_width}

    @torch.no_grad()
    def before_training(self, rows: Mapping[str, Tensor], masks: Mapping[str, Mask]) -> Numbers:
        """`mask/signal/<network>`: how far the outputs differ from row to row, in proportion to the network with no weight removed.

        `rows` are the canonical rows [K, D] that training starts from."""
        found: Numbers = [{} for _ in range(self.agent.size)]
        for name, x in self.inputs.items():
            spec = self.agent.specs[name]
            drawn = drawn_rows(self.agent, self.agent.stack, name)
            share = spread(spec, rows[name] * to_row(spec, masks[name]), x) / spread(spec, drawn, x)
            for about, number in zip(found, share.tolist(), strict=True):
                about[f"mask/signal/{name}"] = number
        return found

    @torch.no_grad()
    def in_training(self, masks: Mapping[str, Mask]) -> Numbers:
        """`train/dormant_units/<network>`: of the hidden units on a path, the share whose mean activation is at most DORMANT of their
        layer's; `train/feature_rank/<network>`: how many directions hold RANK_SHARE of the last hidden layer's activations, mean over
        copies."""
        found: Numbers = [{} for _ in range(self.agent.size)]
        for name, x in self.inputs.items():
            network, spec = self.agent.networks[name], self.agent.specs[name]
            hidden = dense.activations(spec, network.unpack(network.parameters), x)[1]
            if not hidden:
                continue
            live = live_units(masks[name], spec.residual)[1:-1]
            for about, share, rank in zip(found, dormant(hidden, live), ranks(hidden[-1]), strict=True):
                about |= {f"train/dormant_units/{name}": share, f"train/feature_rank/{name}": rank}
        return found


def spread(spec: MLP, rows: Tensor, x: Tensor) -> Tensor:
    """[K]: the standard deviation of the outputs over the rows of x, mean over copies and outputs."""
    return dense.activations(spec, rows, x)[0].std(-2).flatten(1).mean(1)


def dormant(hidden: list[Tensor], live: list[Tensor]) -> list[float]:
    """Per member, the share of dormant units for activations [K, C, B, H] and the units on a path [K, C, H] of each hidden layer."""
    silent, units = torch.zeros(2, len(live[0]), device=live[0].device)
    for layer, on in zip(hidden, live, strict=True):
        activity = layer.abs().mean(-2)  # [K, C, H]
        usual = (activity * on).sum(-1, keepdim=True) / on.sum(-1, keepdim=True)
        silent += ((activity <= DORMANT * usual) & on).sum((1, 2))
        units += on.sum((1, 2))
    return (silent / units.clamp(min=1)).tolist()


def ranks(features: Tensor) -> list[float]:
    """Per member, the effective rank of activations [K, C, B, H], mean over copies; each alone, as a rank must not depend on others."""
    found = []
    for member in features.cpu():
        values = [torch.linalg.svdvals(copy) for copy in torch.nan_to_num(member)]
        shares = [each.cumsum(0) / each.sum().clamp(min=torch.finfo(each.dtype).tiny) for each in values]
        found.append(sum(int((share < RANK_SHARE).sum()) + 1 if share[-1] > 0 else 0 for share in shares) / len(shares))
    return found
