"""An algorithm's Python state, which it keeps between updates. A recorded update (updates.py) would not see it change."""

from __future__ import annotations

from types import FunctionType, ModuleType
from typing import Any

from torch import Tensor

from trainables.agent import Agent

DEPTH = 6  # of values within values


def python_state(agent: Agent) -> Any:
    """The values in the algorithm's file and those it put on the agent, in a form that can be compared later."""
    put = {name: value for name, value in vars(agent).items() if name not in agent.attributes}
    return _plain([vars(agent.algorithm), vars(agent.hyper), put], DEPTH)


def _plain(value: Any, depth: int) -> Any:
    """A copy of `value` that can be compared and does not change with it."""
    if depth == 0 or isinstance(value, ModuleType | type):
        return id(value)
    match value:
        case None | bool() | int() | float() | complex() | str() | bytes():
            return value
        case Tensor():
            return value.data_ptr(), value._version, value.shape
        case dict():
            return {key: _plain(inner, depth - 1) for key, inner in value.items() if key != "__builtins__"}
        case list() | tuple():
            return [_plain(inner, depth - 1) for inner in value]
        case FunctionType():
            return _plain([value.__defaults__, *map(_content, value.__closure__ or ())], depth - 1)
    return [id(value), repr(value), _plain(getattr(value, "__dict__", {}), depth - 1)]  # repr tells a counter's number, an array's too


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None
