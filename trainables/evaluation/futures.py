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
    """Results of parts of a stack, arrays [k, E] by name, as those of the stack, [K, E]."""

    parts: Sequence[Future]

    def done(self) -> bool:
        return all(part.done() for part in self.parts)

    def result(self) -> dict[str, np.ndarray[Any, Any]]:
        parts = [part.result() for part in self.parts]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


Beside = Callable[..., Future]  # (function, *arguments) -> its result, computed in another process
