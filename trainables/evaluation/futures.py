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
        names = dict.fromkeys(name for part in parts for name in part)
        unknown = [np.full_like(next(iter(part.values())), np.nan) for part in parts]  # of a quantity that no episode of a part has
        return {name: np.concatenate([part.get(name, nan) for part, nan in zip(parts, unknown, strict=True)]) for name in names}


Beside = Callable[..., Future]  # (function, *arguments) -> its result, computed in another process
