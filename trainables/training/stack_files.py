"""Where a stack in training keeps its checkpoints, masks and policies: a folder, or nowhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables.agent import Agent
from trainables.datasets.scaling import Scaling
from trainables.reports import Checkpointed, Report
from trainables.storage.files import make
from trainables.tensors.mask import Mask
from trainables.tensors.mlp import MLP
from trainables.training import checkpoint, files_of_trial
from trainables.training.checkpoint import Saved
from trainables.trial import Stack


@dataclass(frozen=True)
class StackFiles:
    """The files of a stack under `storage`; without one, nothing is read or written. `before_write` may forbid a write by raising;
    whoever gives it looks after the storage, too, which is made where it is missing if nobody does."""

    stack: Stack
    storage: Path | None
    before_write: Callable[[], None] | None

    def newest_checkpoint(self, specs: Mapping[str, MLP]) -> Saved | None:
        """The newest state that all members have, or None."""
        return checkpoint.newest(self.storage, self.stack, specs) if self.storage else None

    def write_masks(self, masks: Mapping[str, Mask], details: Sequence[Mapping[str, Any]]) -> None:
        """The masks of each trial and what a report says of them."""
        if self.storage:
            self._allowed(self.storage)
            files_of_trial.write_masks(self.storage, self.stack, masks, details)

    def commit(self, state: Saved) -> Iterator[Report]:
        """Write a checkpoint, then report it."""
        if self.storage:
            self._allowed(self.storage)
            checkpoint.save(self.storage, self.stack, state)
            yield Checkpointed(state.update)

    def write_policies(
        self, agent: Agent, scaling: Scaling, update: int, about: Mapping[str, Any], probes: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        """The policies after the last update, and no more checkpoints than `commit` leaves."""
        if self.storage:
            self._allowed(self.storage)
            files_of_trial.write_policies(self.storage, self.stack, agent, scaling, about, probes)
            checkpoint.tidy(self.storage, self.stack, update)

    def _allowed(self, storage: Path) -> None:
        if self.before_write:
            self.before_write()
        else:
            make(storage)
