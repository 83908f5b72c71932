"""What kind of pruner a file of pruners/ is, read from its source: planning must not import torch, which the file itself does."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from trainables import plugins


@dataclass(frozen=True)
class PrunerTraits:
    """How a pruner works, as far as others must know; trainables/pruners/__init__.py lists what a file defines for each trait."""

    uses_losses: bool  # its scores come from losses on calibration data
    needs_chain: bool  # its scores need fully connected layers in a row
    in_rounds: bool  # it prunes in several rounds, each scored on the network pruned so far
    regrows: bool  # a later round may bring back a weight that an earlier one removed
    has_budgets: bool  # it says how many weights each layer keeps, so that weights are ranked within layers
    even_budgets: bool  # those are the same density in every layer
    during_training: bool  # its masks change on a schedule while training goes on
    grows: bool  # such a change removes some weights and lets as many grow anew
    rescores: bool  # such a change chooses among all weights anew, and those that return have the values they had
    rewinds: bool  # after such a change, the weights that are left begin again with their first values
    shrinks: bool  # it makes the networks smaller and removes no weights from them

    @property
    def at_initialization(self) -> bool:
        """Whether it makes its masks before training, once and for all."""
        return not (self.during_training or self.shrinks)

    @property
    def remembers(self) -> bool:
        """Whether weights may return to values that the networks no longer have."""
        return self.rescores or self.rewinds

    @property
    def starts_sparse(self) -> bool:
        """Whether it makes masks before training, whatever becomes of them later."""
        return not self.shrinks and (not self.during_training or self.grows or self.rescores)


@cache
def traits_of(pruner: str) -> PrunerTraits:
    """The traits of a pruner; raises UserError, listing the pruners there are, for any other name."""
    names = plugins.defines("pruners", pruner)
    shrinks = "shrink" in names
    return PrunerTraits(
        uses_losses=not (shrinks or plugins.constant("pruners", pruner, "WITHOUT_LOSS", False)),
        needs_chain=bool(plugins.constant("pruners", pruner, "CHAIN", False)),
        in_rounds="schedule" in names,
        regrows=bool(plugins.constant("pruners", pruner, "REGROWS", False)),
        has_budgets="budgets" in names,
        even_budgets=bool(plugins.constant("pruners", pruner, "EVEN", False)),
        during_training="mask_schedule" in names,
        grows="growth" in names,
        rescores=bool(plugins.constant("pruners", pruner, "RESCORES", False)),
        rewinds=bool(plugins.constant("pruners", pruner, "REWINDS", False)),
        shrinks=shrinks,
    )
