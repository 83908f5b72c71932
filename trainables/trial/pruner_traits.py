"""What kind of pruner a file of pruners/ is, read from its source: planning must not import torch, which the file itself does."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from trainables import plugins


@dataclass(frozen=True)
class PrunerTraits:
    """How a pruner works, as far as others must know; trainables/pruners/__init__.py lists what a file defines for each trait."""

    uses_losses: bool  # its scores come from losses on calibration data
    in_rounds: bool  # it prunes in several rounds, each scored on the network pruned so far
    regrows: bool  # a later round may bring back a weight that an earlier one removed
    has_budgets: bool  # it says how many weights each layer keeps, so that weights are ranked within layers
    during_training: bool  # its masks change on a schedule while training goes on
    shrinks: bool  # it makes the networks smaller and removes no weights from them

    @property
    def at_initialization(self) -> bool:
        """Whether it makes its masks before training, once and for all."""
        return not (self.during_training or self.shrinks)


@cache
def traits_of(pruner: str) -> PrunerTraits:
    """The traits of a pruner; raises UserError, listing the pruners there are, for any other name."""
    names = plugins.defines("pruners", pruner)
    during_training, shrinks = "mask_schedule" in names, "shrink" in names
    return PrunerTraits(
        uses_losses=not (during_training or shrinks or plugins.constant("pruners", pruner, "WITHOUT_LOSS", False)),
        in_rounds="schedule" in names,
        regrows=bool(plugins.constant("pruners", pruner, "REGROWS", False)),
        has_budgets="budgets" in names,
        during_training=during_training,
        shrinks=shrinks,
    )
