"""What an environment's code owes: `reset` and `step` as gymnasium calls them. What it does otherwise is a line that names the call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from trainables.errors import UserError, one_line

RESET = "(observation, info)"
STEP = "(observation, reward, terminated, truncated, info)"
OURS = Path(__file__).parents[1]


def failed(environment: str, call: str, error: Exception) -> UserError:
    """The error of a call of an environment as a UserError with the line of its code. Raises one of memory or files as it is, since the
    machine may be to blame: work that failed so is tried again."""
    if isinstance(error, (UserError, MemoryError, OSError)):
        raise error
    where = _line_of(error.__traceback__)
    return UserError(
        f"environment {environment!r}: its {call} raised {type(error).__name__}: {one_line(error)}" + (f" ({where})" * bool(where))
    )


def begun(environment: str, result: Any, size: int) -> Any:
    """The observation in what `reset` has returned; raises UserError for what is not RESET with an observation of `size` numbers."""
    if not isinstance(result, tuple) or len(result) != 2:
        raise UserError(f"environment {environment!r}: its reset returned {_shown(result)}, not {RESET}")
    _check_observation(environment, "reset", result[0], size)
    return result[0]


def check_step(environment: str, result: Any, size: int) -> None:
    """Raise UserError for what `step` has returned unless it is STEP with an observation of `size` numbers and a number as reward."""
    if not isinstance(result, tuple) or len(result) != 5:
        raise UserError(f"environment {environment!r}: its step returned {_shown(result)}, not {STEP}")
    observation, reward, _, _, info = result
    _check_observation(environment, "step", observation, size)
    if np.ndim(reward) != 0 or not np.issubdtype(np.asarray(reward).dtype, np.number):
        raise UserError(f"environment {environment!r}: its step returned the reward {_shown(reward)}, not a number")
    if not isinstance(info, Mapping):
        raise UserError(f"environment {environment!r}: its step returned the info {_shown(info)}, not a dict")


def rehearse(environment: Any, name: str, size: int, action: npt.NDArray[Any]) -> Iterator[str]:
    """Begin an episode twice and take one action; yields what to know about it. Raises UserError for calls that fail, and for what they
    return."""
    call = "reset"
    try:
        first, again = (np.array(begun(name, environment.reset(seed=0), size)) for _ in range(2))
        call = "step"
        result = environment.step(action)
        check_step(name, result, size)
    except Exception as error:  # an environment's code may raise anything
        raise failed(name, call, error) from error
    for call, numbers in (("reset", first), ("step", np.append(result[0], result[1]))):
        if not np.isfinite(numbers).all():
            raise UserError(f"environment {name!r}: its {call} returned numbers that are not finite: {_shown(numbers)}")
    if (first != again).any():
        yield (
            f"{name} begins other episodes at the same seed, so that scores differ from run to run: its reset must call "
            f"super().reset(seed=seed) and draw from self.np_random"
        )


def _check_observation(environment: str, call: str, observation: Any, size: int) -> None:
    if np.shape(observation) != (size,):
        wanted = f"of {size} numbers, as its observation_space says"
        raise UserError(f"environment {environment!r}: its {call} returned the observation {_shown(observation)}, not one {wanted}")


def _shown(value: Any) -> str:
    """A value in few words: its kind, and how many it is of."""
    if isinstance(value, tuple):
        return f"{len(value)} values"
    if isinstance(value, np.ndarray):
        value = f"an array of shape {value.shape}" if value.size > 8 else value.tolist()
    text = " ".join(str(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."


def _line_of(trace: TracebackType | None) -> str:
    """`my_envs.py, line 12`: where an error was raised; empty where no code but ours was running, as for a wrong signature."""
    last = trace
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    file = Path(last.tb_frame.f_code.co_filename) if last is not None else OURS
    return "" if last is None or OURS in file.parents else f"{file.name}, line {last.tb_lineno}"
