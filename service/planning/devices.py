"""CPU or GPU: one rule for the plan and for the run. Imports neither torch nor ray."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable
from pathlib import Path

from trainables.errors import UserError

DEVICES = Path("/dev")
GPU_FILES = ("nvidia[0-9]*", "dxg")  # Linux's and, without them, the Windows Subsystem for Linux's
WITH_GPUS = ("cuda", "all")
MADE_FOR = {"sparse": "cpu", "onchip": "cuda"}  # executions that compute on one device, or are fast on one alone
INSTEAD = "take --device cpu, or auto"


def choose(device: str, gpus: float, *, search: bool = False, execution: str = "auto", usable: Callable[[], bool] | None = None) -> str:
    """`cpu`, `cuda` or `all` for `device` where there are `gpus`: `auto` takes every device if torch can use the GPUs (`usable`).

    A search compares all that it trains, so it takes one kind, the GPUs. Raises UserError where GPUs are asked for and there are none: Ray
    would wait for them forever."""
    if device == "auto":
        if not gpus or not (usable or torch_uses_gpus)():
            return "cpu"
        return MADE_FOR.get(execution, "cuda" if search else "all")
    if device in WITH_GPUS and not gpus:
        raise UserError(
            f"no GPU for --device {device} among Ray's resources; {INSTEAD}, or start a node that has one (ray start --num-gpus)"
        )
    return device


def local(device: str, *, search: bool = False, execution: str = "auto") -> str:
    """The device that `device` stands for on this machine."""
    return choose(device, gpus_here(), search=search, execution=execution) if device == "auto" else device


def refuse(device: str) -> None:
    """Raise UserError where a GPU is asked of this machine, not of a cluster, and is not available."""
    if device not in WITH_GPUS or os.environ.get("RAY_ADDRESS"):
        return
    if not gpus_here():
        raise UserError(f"no GPU for --device {device} on this machine; {INSTEAD}, or set RAY_ADDRESS to a cluster that has one")
    if not torch_uses_gpus():
        raise UserError(f"torch {importlib.metadata.version('torch')} cannot use a GPU; install it from its CUDA index, or {INSTEAD}")


def stacks_per_gpu(fraction: float) -> int:
    """How many stacks go on one GPU, each on one alone: of a fraction of 0.4 two, so that two GPUs take four and not five."""
    return max(1, int(1 / fraction + 1e-9))


def gpus_here() -> int:
    """How many GPUs this machine shows."""
    return sum(len(list(DEVICES.glob(pattern))) for pattern in GPU_FILES)


def torch_uses_gpus() -> bool:
    """Whether the installed torch was built for more than CPUs."""
    return not importlib.metadata.version("torch").endswith("+cpu")
