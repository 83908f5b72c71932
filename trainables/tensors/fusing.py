"""Recorded calls of C that go together: a product rectifies or gates its own result, which is then not read and written once more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trainables.tensors.calls import Call, address
from trainables.tensors.operations import CODES
from trainables.tensors.product import Product

RELU, GATE = CODES["relu"], CODES["gate"]


def fused(calls: Sequence[Any]) -> list[Any]:
    """`calls`, in which each product has taken over what the next call does to all of its result, in place. The numbers are the same.

    The products' arguments are changed."""
    made: list[Any] = []
    for call in calls:
        before = made[-1] if made else None
        if isinstance(call, Call) and isinstance(before, Call) and before.function == address("winnow_product") and _takes(before, call):
            before.kept = (before.kept, call.kept)
        else:
            made.append(call)
    return made


def _takes(before: Call, call: Call) -> bool:
    """Whether the product `before` has taken `call` over."""
    if call.function != address("winnow_elementwise"):
        return False
    product: Product = before.arguments
    then = call.arguments
    numbers, neighbours = product.matrices * product.rows * product.columns, [[0, 0, 1]] * 2
    if product.relu or product.gate or product.columns == 1 or [*then.size] != [1, 1, numbers]:
        return False
    if [*then.data[:2]] != [product.c] * 2 or [[*step] for step in then.step[:2]] != neighbours:
        return False
    if then.operation == RELU:
        product.relu = 1
    elif then.operation == GATE and [*then.step[2]] == neighbours[0] and [*then.step[3]] == [0, 0, 0] and then.number[2] == 0:
        product.gate = then.data[2]
    return bool(product.relu or product.gate)
