"""The request to leave, which another thread makes and training looks at after each update: as cheap as reading an attribute."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Leave:
    """`asked`: training is to commit what it has and end. Its answer: the `update` that it had reached, and the one that is `kept`."""

    asked: bool = False
    update: int = 0
    kept: int = 0
