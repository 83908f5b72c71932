"""Episodes in the environment that a dataset was recorded in."""

from __future__ import annotations

from collections.abc import Sequence

from trainables.datasets.table import Table
from trainables.errors import UserError
from trainables.simulation.evaluator import Evaluator


def evaluator_of(table: Table, seeds: Sequence[Sequence[int]]) -> Evaluator:
    """An evaluator in the environment of a dataset; raises UserError where observations or actions of the two differ in size."""
    evaluator = Evaluator(table.environment, seeds)
    sizes, wanted = (table.observation_size, table.action_size), (evaluator.observation_size, evaluator.action_size)
    if sizes != wanted:
        evaluator.close()
        raise UserError(f"dataset {table.dataset!r} has observations and actions of {sizes} numbers, {table.environment} of {wanted}")
    return evaluator
