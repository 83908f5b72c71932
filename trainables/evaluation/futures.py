"""Results that another process is computing and results that are known already, behind one protocol."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


class Future(Protocol):
    """A result that is being computed, as in concurrent.futures."""

    def done(self) -> bool: ...
    def result(self) -> Any: ...


@dataclass(frozen=True)
class Done:
    """A result that is known already."""

    value: Any = None

    def done(self) -> bool:
        return True

    def result(self) -> Any:
        return self.value


@dataclass(frozen=True)
class Joined:
    """Results [k, E] of parts of a stack, as one [K, E]."""

    parts: Sequence[Future]

    def done(self) -> bool:
        return all(part.done() for part in self.parts)

    def result(self) -> np.ndarray[Any, Any]:
        return np.concatenate([part.result() for part in self.parts])


Beside = Callable[..., Future]  # (function, *arguments) -> its result, computed in another process
