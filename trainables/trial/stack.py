"""Stack (K trials that train as one batched model), and what trials must agree on to share one."""

from __future__ import annotations

import json
from dataclasses import dataclass

from trainables import plugins
from trainables.errors import UserError
from trainables.trial.pruner_traits import traits_of
from trainables.trial.pruning_options import CALIBRATION, CHOICES
from trainables.trial.trial import Trial

# On a CPU, execution `auto` computes only the kept weights at or below this density. benchmarks/speed/break_even.py finds 0.55 to 0.6.
# Another number would change the execution, and so the last bits, of trials in between.
BREAK_EVEN = 0.6
NEAR = 0.05  # to it: there a network's own density, of whole weights, may be on its other side

LARGEST = 128  # trials of a stack on a GPU, whatever its memory: an H100 is busy with fewer
SHAPE = "_shape"  # where a trial keeps what `shape_of` has found
# Members of a stack may differ in these fields and in hyperparameters that are plain floats; everything else shapes the batched model.
FREE_FIELDS = ("pruner", "sparsity", "sparsity_of", "seed", *CHOICES, *CALIBRATION, "hyper", "fresh", "data")


@dataclass(frozen=True)
class Stack:
    """K trials that train as one batched model; raises UserError if they cannot."""

    trials: tuple[Trial, ...]

    def __post_init__(self) -> None:
        if not self.trials:
            raise UserError("a stack needs at least one trial")
        for trial in self.trials[1:]:
            if shape_of(trial) != shape_of(self.trials[0]):
                raise UserError(f"{trial.name} cannot share a stack with {self.trials[0].name}: they differ in more than {FREE_FIELDS}")
        names = {trial.key: trial.name for trial in self.trials}
        if len(names) != len(self.trials):
            keys = [trial.key for trial in self.trials]
            raise UserError(f"a stack holds a trial twice: {', '.join(name for key, name in names.items() if keys.count(key) > 1)}")

    def __len__(self) -> int:
        return len(self.trials)

    @property
    def lead(self) -> Trial:
        """The trial from which fields that all members share are read."""
        return self.trials[0]


def shape_of(trial: Trial) -> str:
    """What two trials must agree on to share a stack, as a comparable string; found once for each trial."""
    if SHAPE not in trial.__dict__:
        trial.__dict__[SHAPE] = _shape_of(trial)
    return str(trial.__dict__[SHAPE])


def _shape_of(trial: Trial) -> str:
    value = {n: v for n, v in trial.to_json().items() if n not in FREE_FIELDS}
    value["hyper"] = {n: v for n, v in trial.hyper_values().items() if not isinstance(v, float)}
    if trial.transitions:
        value |= {"seed": trial.seed}  # which chooses the episodes
    traits = traits_of(trial.pruner)
    if traits.during_training:
        value |= {"pruner": trial.pruner}  # all members' masks change, and are reported, at the same updates
    if traits.shrinks:
        value |= {"pruner": trial.pruner, "sparsity": trial.sparsity, "sparsity_of": dict(trial.sparsity_of)}
    return json.dumps(value, sort_keys=True)


def comparison(trial: Trial, *besides: str) -> str:
    """What trials must agree on for their scores to be compared, as a comparable string: everything except how they are pruned, the
    seed, the fields `besides`, and which version of the dataset was used, which only their logs tell."""
    left_out = ("pruner", "pruning", "sparsity", "sparsity_of", "seed", "fresh", "data", *CHOICES, *CALIBRATION, *besides)
    return json.dumps({n: v for n, v in trial.to_json().items() if n not in left_out}, sort_keys=True)


def stack_mates(trial: Trial) -> str:
    """What trials of one shape must agree on so that execution `auto` computes each as it would alone, as a comparable string."""
    densities = [1 - trial.sparsity_in(name) for name in plugins.networks(trial.algorithm)]
    near = any(abs(density - BREAK_EVEN) < NEAR for density in densities)
    if trial.scope == "joint" or trial.relative_to != "network" or (trial.target == "effective" and near):
        return trial.key  # the densities of its networks are known only after pruning
    traits = traits_of(trial.pruner)
    if traits.shrinks:
        return str([False] * len(densities))
    if not traits.starts_sparse:
        return f"{trial.pruner} {densities}"  # its networks become sparse along the way
    if trial.structure != "none" or near:
        return f"{trial.structure} {densities}"  # whole weights, inputs or units are kept, which decides on which side a network is
    return str([density <= BREAK_EVEN for density in densities])
