"""How much of each network a trial removes."""

from __future__ import annotations

from types import SimpleNamespace

from trainables import plugins
from trainables.agent import Agent
from trainables.errors import UserError
from trainables.pruning.ranking import kept
from trainables.tensors.mlp import MLP
from trainables.trial import Trial


def sparsities_of(agent: Agent, trial: Trial) -> dict[str, float]:
    """The share of its weights that each network of a member loses.

    With `relative_to` "default", it keeps as many as the algorithm's own network would at the trial's sparsity, so that wide, deep and
    normalized networks are compared at equal kept weights. Raises UserError for a network that has not so many."""
    sparsities = {name: trial.sparsity_in(name) for name in agent.specs}
    if trial.relative_to == "network":
        return sparsities
    for name, usual in _usual(agent, trial).items():
        wanted = kept(1 - sparsities[name], sum(usual.weights_per_layer))
        total = sum(agent.specs[name].weights_per_layer)
        if wanted > total:
            raise UserError(
                f"{trial.name}: its {name} has {total:,} weights, fewer than the {wanted:,} that relative_to 'default' keeps; "
                "choose more units or a higher sparsity"
            )
        sparsities[name] = 1 - wanted / total
    return sparsities


def _usual(agent: Agent, trial: Trial) -> dict[str, MLP]:
    """The networks as plain ones of the algorithm's default widths."""
    widths = {name: value for name, value in plugins.hyper_defaults(trial.algorithm).items() if isinstance(value, tuple)}
    usual: dict[str, MLP] = agent.algorithm.networks(*agent.sizes, SimpleNamespace(**(vars(agent.hyper) | widths)))
    return usual
