"""How many members fit on a GPU: a stack is as large as its memory allows, up to what keeps it busy."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from trainables import plugins
from trainables.agent import Agent
from trainables.datasets.minibatches import minibatches_of
from trainables.datasets.table import load_table
from trainables.trial import LARGEST, Stack, Trial, shape_of

SPARE = 0.8  # of the memory: the rest is for CUDA itself and for what does not fit exactly


def members_that_fit(trial: Trial, room: int) -> int:
    """How many trials like this one can train as one stack in `room` bytes; at least 1."""
    table = load_table(trial.dataset)
    return max(1, min(LARGEST, int((SPARE * room - table.rows.nbytes) // member_bytes(trial))))


def member_bytes(trial: Trial) -> int:
    """Bytes that a member takes: its parameters, moments, gradients and draws, and all tensors that one update makes.

    Counted on updates of one member on the CPU. A recorded update gives most of the tensors it makes their memory back on the way, so
    this is an upper bound."""
    shape = shape_of(trial)
    if shape not in _known:
        _known[shape], periods = _counted(trial, 0)
        if due := math.lcm(*periods) - 1:  # the first update in which all is done that is not done in every one
            _known[shape] = max(_known[shape], _counted(trial, due)[0])
    return _known[shape]


_known: dict[str, int] = {}  # by shape: stacks are packed again and again


def _counted(trial: Trial, update: int) -> tuple[int, set[int]]:
    """The bytes by one update of a new agent, and the periods that its algorithm asks for."""
    table = load_table(trial.dataset)
    algorithm = plugins.load("algorithms", trial.algorithm)
    stack = Stack((trial,))
    agent = Agent(algorithm, stack, table.observation_size, table.action_size, recorded=True)
    agent.build()
    data = minibatches_of(algorithm, stack, table)
    data.look_ahead(trial.n_step_at(trial.updates))
    held = sum(row.nbytes for row in agent.rows().values()) + sum(network.parameters.nbytes for network in agent.networks.values())
    agent.at(update)
    with _Counting() as made:
        algorithm.update(agent, data.draw(agent.streams, agent.hyper.batch_size))
    return held + made.bytes, agent.periods


class _Counting(TorchDispatchMode):
    """Adds up the memory of all tensors that are made inside."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = {x.untyped_storage().data_ptr() for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        new = {s.data_ptr(): s for x in tree_leaves(out) if isinstance(x, Tensor) and (s := x.untyped_storage()).data_ptr() not in given}
        self.bytes += sum(storage.nbytes() for storage in new.values())
        return out


def free_bytes() -> int:
    """Memory that is free on this process's GPU."""
    free, _ = torch.cuda.mem_get_info()
    return free
