"""Episodes in the environment that a dataset was recorded in."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, Protocol

from trainables.datasets.minari_store import SLACK
from trainables.datasets.spaces import described, flat
from trainables.errors import UserError
from trainables.simulation.evaluator import Evaluator


class Recorded(Protocol):
    """What a Table and the Metadata of a dataset have in common: sizes O and A, the box of actions [A], the environment that is played."""

    @property
    def dataset(self) -> str: ...
    @property
    def environment(self) -> str: ...
    @property
    def observation_size(self) -> int: ...
    @property
    def action_size(self) -> int: ...
    @property
    def action_low(self) -> Any: ...
    @property
    def action_high(self) -> Any: ...
    @property
    def observation_names(self) -> tuple[str, ...]: ...


def evaluator_of(table: Recorded, seeds: Sequence[Sequence[int]]) -> Evaluator:
    """An evaluator in the environment of a dataset, which need not be here: its metadata will do.

    Raises UserError where observations or actions of the two differ in size, and where the dataset's action box is wider than the
    environment's: a policy would be scaled to actions that are clipped."""
    try:
        evaluator = Evaluator(table.environment, seeds)
    except UserError as error:
        raise UserError(f"dataset {table.dataset!r}: {error}") from None
    sizes, wanted = (table.observation_size, table.action_size), (evaluator.observation_size, evaluator.action_size)
    if sizes != wanted:
        evaluator.close()
        raise UserError(f"dataset {table.dataset!r} has observations and actions of {sizes} numbers, {table.environment} of {wanted}")
    seen = evaluator.dict_space
    if table.observation_names and seen is not None:
        names = flat(table.dataset, table.environment, "observation", described(seen)).names
        if names != table.observation_names:
            evaluator.close()
            raise UserError(
                f"dataset {table.dataset!r} has the observations {', '.join(table.observation_names)}, and {table.environment} has "
                f"{', '.join(names)}: the same order is wanted"
            )
    low, high = evaluator.action_low, evaluator.action_high
    wider = ((table.action_low < low - SLACK) | (table.action_high > high + SLACK)).sum()
    if wider:
        evaluator.close()
        ours, theirs = (f"{a.tolist()} to {b.tolist()}" for a, b in ((table.action_low, table.action_high), (low, high)))
        raise UserError(
            f"dataset {table.dataset!r}: its action box {ours} is wider than that of {table.environment}, {theirs}, in {wider} of "
            f"{len(low)} dimensions; its metadata.json must declare the box, or the wrapper, that its actions were recorded through"
        )
    return evaluator


def check_playable(table: Recorded) -> list[str]:
    """What to know about the environment of a dataset, after one time step in it.

    Raises UserError as `evaluator_of`, and where the environment's own code fails or returns what gymnasium does not."""
    evaluator = evaluator_of(table, [[0]])
    try:
        with contextlib.closing(evaluator):
            return evaluator.rehearse()
    except UserError as error:
        raise UserError(f"dataset {table.dataset!r}: {error}") from None
