"""The options of pruning: their choices, and which of them change anything for which pruner."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainables import plugins
from trainables.errors import UserError
from trainables.trial.pruner_traits import traits_of

# The default comes first. Some names and values are older than the terms in the comments; trial keys and archives keep them.
CHOICES: dict[str, tuple[Any, ...]] = {
    "scope": ("network", "joint", "layer"),  # rank weights within each network (as the authors do), over all, or within each layer
    "structure": ("none", "units", "fan_in", "2:4", "1:4", "1:8", "1:16"),  # trainables/pruning/structures.py
    "target": ("nominal", "effective"),  # count sparsity directly, on the mask, or on the weights that lie on a path
    "authors": (False, True),  # score with the leaky critic gradient of the authors' code, for algorithms that define LEAKY_LOSSES
    "relative_to": ("network", "default"),  # remove a share of the network's own weights, or keep as many as at the default widths
    "rescale": ("none", "layer", "unit"),  # divide kept weights by the root of the layer's, or of the unit's, density
    "control": ("none", "shuffle", "reinit"),  # permute the mask within its layers, or draw the kept weights again (Frankle et al. 2021)
    "allow_disconnected": (False, True),  # train even if a mask leaves no path from input to output
}
CALIBRATION = {"calibration_batches": 1, "calibration_size": 256}  # what a saliency sees by default
# With these, how many weights each network keeps, and where, is known only after pruning, too late to plan controls that match.
STRUCTURED = tuple(("structure", name) for name in CHOICES["structure"][1:])
UNCONTROLLED = (("scope", "joint"), ("target", "effective"), ("relative_to", "default"), *STRUCTURED)
N_STEP = ("n_step", "n_step_from")  # settings of a pruner that act on the targets of algorithms with an `n_step` (Trial.n_steps)
PLAIN = ("control", "scope", "structure", "target")  # options whose values speak for themselves in a trial's name


def options_of(pruner: str, algorithm: str) -> set[str]:
    """The options in CHOICES that make a difference for this pruner and algorithm."""
    traits = traits_of(pruner)
    if pruner == "dense" or traits.shrinks:
        return set()
    options = {"allow_disconnected", "relative_to"} | (set() if traits.during_training else {"rescale", "control"})
    if not traits.has_budgets:
        options.add("scope")
    if not traits.during_training and (traits.regrows or not traits.in_rounds):
        options |= {"target", "structure"}  # else the last round can only choose among what the one before it kept
    if traits.has_budgets and not traits.even_budgets:
        options -= {"structure"}  # it takes the place of budgets, and would leave nothing of them
    if traits.uses_losses and "LEAKY_LOSSES" in plugins.defines("algorithms", algorithm):
        options.add("authors")
    return options


def removed_by(structure: str) -> float | None:
    """The sparsity that an n:m structure has, 1 - n/m; None for others, which go with any."""
    kept, colon, group = structure.partition(":")
    return 1 - int(kept) / int(group) if colon else None


def settings_of(pruner: str, algorithm: str) -> dict[str, Any]:
    """The settings of a pruner that make a difference for this algorithm, with their defaults."""
    without = () if "n_step" in plugins.hyper_defaults(algorithm) else N_STEP
    return {name: value for name, value in plugins.pruner_settings(pruner).items() if name not in without}


def check_settings(given: Mapping[str, Any], pruner: str, algorithm: str) -> None:
    """Raise UserError for a setting of a pruner that would change nothing but the trial's key."""
    for name, value in given.items():
        if name not in settings_of(pruner, algorithm):
            others = [other for other in plugins.names("algorithms") if name in settings_of(pruner, other)]
            raise UserError(
                f"{pruner}'s {name} {value!r} has no effect on {algorithm}, which has no n-step targets; it has one on: {', '.join(others)}"
            )


def neutral(pruner: str, algorithm: str) -> dict[str, Any]:
    """The options and calibration that make no difference for this pruner, at their defaults: so equal trials share one key."""
    options = options_of(pruner, algorithm)
    defaults = {option: choices[0] for option, choices in CHOICES.items() if option not in options}
    return defaults if traits_of(pruner).uses_losses else defaults | CALIBRATION
