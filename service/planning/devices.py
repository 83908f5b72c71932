"""CPU or GPU: one rule for the plan and for the run. Imports neither torch nor ray."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import json
import os
import re
import shlex
import subprocess
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path

from trainables.errors import UserError

DEVICES = Path("/dev")
GROUP = Path("/sys/fs/cgroup")
GPU_FILES = ("nvidia[0-9]*", "dxg")  # Linux's and, without them, the Windows Subsystem for Linux's
WITH_GPUS = ("cuda", "all")
MADE_FOR = {"sparse": "cpu", "onchip": "cuda"}  # executions that compute on one device, or are fast on one alone
SLICE = "gpu:"  # before the name of a MIG slice, in the names of a Ray node's resources
SLICES = {"A30": 4, "RTX PRO 6000": 4, "RTX PRO 5000": 2}  # into which MIG can divide a GPU; others into 7
LONGEST_ANSWER = 20.0  # seconds
INSTEAD = "take --device cpu, or auto"


def cores() -> int:
    """How many cores this process may use: its affinity, or less where a container's quota (`docker run --cpus`) allows less."""
    allowed = len(os.sched_getaffinity(0))
    return min(allowed, max(1, int(quota))) if (quota := _quota()) else allowed


def _quota() -> float:
    """CPUs of the control group's quota, of version 2 or 1; 0 where it has none."""
    for files in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        with contextlib.suppress(OSError, ValueError):
            quota, period = " ".join((GROUP / file).read_text().strip() for file in files).split()
            return max(0.0, float(quota) / float(period))  # `max` of version 2 is no number, -1 of version 1 no quota
    return 0.0


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
    """How many GPUs this machine shows, or slices of GPUs where it has any; no more than $CUDA_VISIBLE_DEVICES names,
    of which CUDA takes none from the first impossible one on: -1 hides all."""
    if not (found := sum(len(list(DEVICES.glob(pattern))) for pattern in GPU_FILES)):
        return 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    named = found if visible is None else len(list(takewhile(_possible, map(str.strip, visible.split(",")))))
    return len(chosen(slices_here())[1]) or min(found, named)


def _possible(name: str) -> bool:
    return name not in ("", "NoDevFiles") and not name.startswith("-")


def slices_here() -> dict[str, list[str]]:
    """The MIG slices that this process may use, as `slices`; none on a machine without GPUs."""
    if not any(next(DEVICES.glob(pattern), None) for pattern in GPU_FILES):
        return {}
    return slices(_listed(), os.environ.get("CUDA_VISIBLE_DEVICES"))


def slices(listing: str, visible: str | None = None) -> dict[str, list[str]]:
    """MIG slices by the name that torch gives them, `NVIDIA A100-SXM4-40GB MIG 1g.5gb`, with their UUIDs, from what `nvidia-smi -L` prints.

    `visible`: $CUDA_VISIBLE_DEVICES, which leaves the others out; None: all."""
    found: dict[str, list[str]] = {}
    gpu, wanted = "", None if visible is None else [each.strip() for each in visible.split(",")]
    for line in listing.splitlines():
        if whole := re.match(r"GPU \d+: (.+?) \(UUID: ", line):
            gpu = whole[1]
        part = re.match(r"\s+MIG (\S+)\s+Device\s+\d+: \(UUID: (MIG-[^)]+)\)", line)
        if part and (wanted is None or part[2] in wanted):
            found.setdefault(f"{gpu} MIG {part[1]}", []).append(part[2])
    return found


def chosen(found: Mapping[str, Sequence[str]]) -> tuple[str, Sequence[str]]:
    """The name and the slices that a Ray of this process uses: those of one kind, which add up to most. A node of Ray numbers its GPUs, so
    that nothing tells slices of two kinds apart."""
    return max(found.items(), key=lambda item: (part_of(item[0]) * len(item[1]), item[0]), default=("", ()))


def part_of(name: str) -> float:
    """How much of a whole GPU one of this name is: 3/7 of `NVIDIA H100 80GB HBM3 MIG 3g.40gb`, and of a third of it, `1c.3g.40gb`, 1/7."""
    if not (found := re.search(r"\bMIG (?:(\d)c\.)?(\d)g\.", name)):
        return 1.0
    return int(found[1] or found[2]) / next((slices for model, slices in SLICES.items() if model in name), 7)


def ray_words(name: str, ids: Sequence[str]) -> str:
    """The command that starts a node of Ray with slices of one kind, apart from the address of the head."""
    resources = shlex.quote(json.dumps({SLICE + name: len(ids)}))
    return f"CUDA_VISIBLE_DEVICES={','.join(ids)} ray start --num-gpus={len(ids)} --resources={resources}"


@functools.cache
def _listed() -> str:
    """What `nvidia-smi -L` prints; nothing where it is not there or fails."""
    try:
        return subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True, timeout=LONGEST_ANSWER).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def torch_uses_gpus() -> bool:
    """Whether the installed torch was built for more than CPUs."""
    return not importlib.metadata.version("torch").endswith("+cpu")
