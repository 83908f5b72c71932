"""Masks of a stack before training: every trial's pruner scores its networks, and the scores are ranked.

Weights are ranked within each network (twin critics pooled), separately for actor, critic and value, as in the
authors' later code (SaminYeasar/sparse_reg). Biases and extras are never pruned; output layers are. The algorithm's LOSSES say which loss
scores which network, and nothing else adds to its gradient; LEAKY_LOSSES, if an algorithm has them, reproduce what the authors' code does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from trainables import plugins
from trainables.agent import Agent
from trainables.pruning import mask_statistics
from trainables.pruning.mask_statistics import Quantiles
from trainables.pruning.ranking import check_budgets, check_connected, check_numbers, choose, shuffled
from trainables.pruning.rounds import Masks, Saliencies, in_rounds
from trainables.pruning.scored import Batches, Scored, mask_again, scored
from trainables.pruning.sparsities import sparsities_of
from trainables.pruning.structures import structured
from trainables.tensors.mask import ones
from trainables.tensors.streams import Streams
from trainables.trial import Stack, Trial
from trainables.trial.pruner_traits import traits_of


def prune(agent: Agent, stack: Stack, batches: Batches, quantiles: Quantiles | None = None) -> Masks:
    """Masks of every network of the stack before training, [K, C, out, in] per layer, each with as many weights as its trial asks for.

    `batches(streams, size)` draws a minibatch. The agent's networks are neither needed nor touched. If `quantiles` is given, it is filled.
    Raises UserError, naming the trial, if scores are NaN, or if a mask disconnects a network, now or at the end of pruning during training,
    and the trial does not allow that.
    """
    masks = {name: ones(spec, len(stack), agent.device) for name, spec in agent.specs.items()}
    pruned = [member for member, trial in enumerate(stack.trials) if traits_of(trial.pruner).starts_sparse]
    for members in alike(stack, pruned):
        group = Stack(tuple(stack.trials[member] for member in members))
        chosen, saliency = prune_alike(agent, group, batches)
        for name, mask in chosen.items():
            if quantiles is not None:
                for index, member in enumerate(members):
                    quantiles[member, name] = [mask_statistics.quantiles(layer[index]) for layer in saliency[name]]
            for whole, part in zip(masks[name], mask, strict=True):
                whole[members] = part
    shuffle(masks, stack, agent.device)
    checked = [member for member, trial in enumerate(stack.trials) if not trial.allow_disconnected]
    for name, mask in masks.items():
        check_connected(
            name, [layer[checked] for layer in mask], [stack.trials[member].name for member in checked], agent.specs[name].residual
        )
    for trial in (stack.trials[member] for member in checked):
        if traits_of(trial.pruner).during_training and not traits_of(trial.pruner).starts_sparse:
            last, removed = plugins.load("pruners", trial.pruner).budgets, sparsities_of(agent, trial)
            for name, spec in agent.specs.items():
                check_budgets(name, spec, last(spec, 1 - removed[name]), trial.name)
    return masks


def alike(stack: Stack, members: Iterable[int]) -> list[list[int]]:
    """Members in groups that agree in pruner, losses, scope, structure, target and calibration."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for member in members:
        trial = stack.trials[member]
        calibration = trial.calibration_batches, trial.calibration_size
        groups.setdefault((trial.pruner, trial.authors, trial.scope, trial.structure, trial.target, calibration), []).append(member)
    return list(groups.values())


def prune_alike(agent: Agent, stack: Stack, batches: Batches) -> tuple[Masks, Saliencies]:
    """The masks of a stack whose trials are `alike`, and the saliencies of the last round, one per member."""
    lead, names = stack.lead, list(agent.specs)
    traits, pruner = traits_of(lead.pruner), plugins.load("pruners", lead.pruner)
    scored_stack, index = sharing(stack, alone=traits.in_rounds)
    scorer = Agent(agent.algorithm, scored_stack, *agent.sizes, agent.device)
    initial = {name: scorer.initial(name) for name in names}

    def look(masks: Masks, turn: int) -> Iterator[tuple[str, Scored]]:
        mask_again(scorer, initial, masks)
        yield from ((name, scored(scorer, name, masks[name], scored_stack, batches, turn, first=initial[name])) for name in names)

    def cut(saliency: Saliencies, densities: dict[str, list[float]], last: bool) -> Masks:
        own = {name: [layer[index] for layer in saliency[name]] for name in names}
        for name, layers in own.items():
            check_numbers(name, layers, [trial.name for trial in stack.trials])
        if last and lead.structure != "none":
            return {name: structured(lead.structure, spec, own[name], densities[name]) for name, spec in scorer.specs.items()}
        target = lead.target if last else "nominal"
        return choose(scorer.specs, own, densities, lead.scope, target, pruner.budgets if traits.has_budgets else None)

    scorer.build("dense", initial)
    start = {name: ones(scorer.specs[name], len(scored_stack), agent.device) for name in names}
    removed = [sparsities_of(agent, trial) for trial in stack.trials]
    densities = {name: [1 - of_trial[name] for of_trial in removed] for name in names}
    masks, saliency = in_rounds(lead.pruner, start, densities, look, cut)
    return masks, {name: [layer[index] for layer in layers] for name, layers in saliency.items()}


def sharing(stack: Stack, alone: bool) -> tuple[Stack, list[int]]:
    """The trials to score, and for each member of `stack` the index of the trial whose scores it uses.

    Trials of one seed and one set of hyperparameters have the same saliency whatever their sparsity, unless their pruner works in rounds
    (`alone`)."""
    index: dict[str, int] = {}
    chosen: list[Trial] = []
    used = []
    for trial in stack.trials:
        key = trial.key if alone else f"{trial.seed} {sorted(trial.hyper.items())}"
        if key not in index:
            index[key] = len(chosen)
            chosen.append(trial)
        used.append(index[key])
    return Stack(tuple(chosen)), used


def shuffle(masks: Masks, stack: Stack, device: str) -> None:
    """Permute, in place, the masks of the members whose control is "shuffle"."""
    members = [member for member, trial in enumerate(stack.trials) if trial.control == "shuffle"]
    if members:
        random = Streams([stack.trials[member].seed for member in members], device, phase="mask/")
        for name, mask in masks.items():
            for index, layer in enumerate(mask):
                layer[members] = shuffled(layer[members], random.uniform(f"shuffle/{name}.{index}", *layer.shape[1:]))
