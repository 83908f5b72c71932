"""The report on a stack's masks: what they keep in each network, and what makes a network fragile or slow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from trainables.agent import Agent
from trainables.execution import missed
from trainables.pruning import mask_statistics
from trainables.pruning.mask_statistics import Quantiles
from trainables.reports import Pruned
from trainables.tensors.mask import Mask


def report_on(masks: Mapping[str, Mask], agent: Agent, update: int, inputs: Sequence[str], quantiles: Quantiles, execution: str) -> Pruned:
    """The report on masks after `update`. `inputs` names the dimensions of observation and action; `quantiles` are those of the
    saliencies that the masks were chosen by, as far as they are known."""
    details: list[dict[str, Any]] = [{} for _ in range(agent.size)]
    for name, mask in masks.items():
        spec = agent.specs[name]
        named = inputs[: spec.sizes[0]] if spec.sizes[0] <= len(inputs) else ()
        for member, about in enumerate(mask_statistics.describe(spec, mask, named)):
            for layer, scores in zip(about["layers"], quantiles.get((member, name), ()), strict=False):
                layer["saliency_quantiles"] = scores
            details[member][name] = about
    slow = missed(masks.values(), torch.device(agent.device).type) if execution == "auto" else ""
    warnings = [[*mask_statistics.warnings(networks), *filter(None, [slow, agent.instead])] for networks in details]
    return Pruned(update, [mask_statistics.metrics(networks) for networks in details], details, warnings)
