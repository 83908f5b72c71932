"""What a trial's `network` goes with: it is refused, before anything starts, where a combination would mean nothing. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainables import plugins
from trainables.errors import UserError
from trainables.trial.pruner_traits import traits_of
from trainables.trial.pruning_options import CHOICES


def check(network: str, algorithm: str, pruner: str, structure: str, hyper: Mapping[str, Any]) -> None:
    """Raise UserError, naming the value and the choices, for a kind of network that does not go with the other settings of a trial."""
    if network == "mlp":
        return
    choices = plugins.network_choices(algorithm)
    if choices and network not in choices:
        raise UserError(f"{algorithm} cannot be trained with network {network!r}; there is: {', '.join(choices)}")
    if structure == "units":
        raise UserError(
            f"structure 'units' does not fit network {network!r}, which normalizes over all units, removed ones included; "
            f"choose network 'mlp' or one of the structures: {', '.join(c for c in CHOICES['structure'] if c != 'units')}"
        )
    if network != "simba":
        return
    if traits_of(pruner).needs_chain:
        others = [name for name in plugins.names("pruners") if name != "dense" and not traits_of(name).needs_chain]
        raise UserError(f"pruner {pruner!r} needs layers in a row, which network {network!r} has not; there are: {', '.join(others)}")
    for name, widths in hyper.items():
        if name.endswith("hidden") and (len(widths) < 2 or len(set(widths)) > 1):
            raise UserError(
                f"{algorithm}'s {name} {widths!r} is not two or more equal widths, e.g. {(widths[0],) * max(2, len(widths))}: network "
                f"{network!r} has an embedding of that width, then a residual block for each further one"
            )
