"""What this machine's last runs have measured, kept in its cache, and how busy it is now: for estimates of time, never for results."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from trainables.errors import UserError
from trainables.storage import cache
from trainables.storage.files import write

# Seconds from the beginning of a run to its first update, on an idle machine, until this one has measured its own: Ray and its workers
# start, libraries are imported, the table is loaded and the networks are pruned.
START = {"cpu": 20.0, "cuda": 30.0}
LONG = 30.0  # seconds of training from which a trial counts: a shorter one hardly does more than begin and be evaluated
KEPT = 9  # measurements of each kind: the newest
FILE = "pace.json"


@dataclass(frozen=True)
class MachinePace:
    """Measured by this machine's last runs on one device, as on an idle machine: seconds to the first update, and dense updates per second
    of a stack by algorithm, evaluations included."""

    start: float
    rates: Mapping[str, float] = field(default_factory=dict)


def crowding(more: int = 0) -> float:
    """How many processes there are for each CPU, with `more` of our own to come; 1 where all have one to themselves."""
    return max(1.0, (load() + more) / len(os.sched_getaffinity(0)))


def load() -> float:
    """Processes that have wanted a CPU, on average over the last minute; 0 where the kernel does not tell."""
    with contextlib.suppress(OSError):
        return os.getloadavg()[0]
    return 0.0


def known(device: str) -> MachinePace:
    """The medians of what was measured on this machine."""
    about = _read().get(device, {})
    rates = {name: median(values) for name, values in about.items() if name != "start" and values}
    return MachinePace(median(about["start"]) if about.get("start") else START[device], rates)


def remember(device: str, start: float, rates: Mapping[str, Sequence[float]], crowd: float) -> None:
    """Keep what a run has measured while there were `crowd` processes for each CPU; does nothing where the cache cannot be written."""
    measured = {"start": [start / crowd], **{name: [rate * crowd for rate in values] for name, values in rates.items()}}
    everything = _read()
    before = everything.get(device, {})
    everything[device] = before | {name: [*before.get(name, []), *values][-KEPT:] for name, values in measured.items()}
    with contextlib.suppress(OSError, UserError):
        write(cache.private(cache.root()) / FILE, json.dumps(everything).encode(), mode=0o600)


def _read() -> dict[str, dict[str, list[float]]]:
    """The measurements by device and name; what is no positive number is left out."""
    file: Path = cache.root() / FILE
    try:
        held = json.loads(file.read_bytes()) if cache.trusted(file) else {}
        return {
            str(device): {str(name): [float(value) for value in values if 0 < float(value) < math.inf] for name, values in about.items()}
            for device, about in held.items()
        }
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
