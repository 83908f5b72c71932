"""How a sweep stands, as metrics of its MLflow run: how many trials are in each state, and every cell's mean with its interval.

trials/done                                        also total, planned, running, failed, diverged and stopped
mean/td3_bc halfcheetah-medium/snip 95             of the cell's last scores; `low`, `high` and `seeds` in place of `mean` are the ends of
                                                   its 95 % interval, where there are two seeds, and how many scores there are
mean/td3_bc halfcheetah-medium/best                the same of the pruned cell with the highest mean, of those whose seeds are all done
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from service.results.cells import Cell, Task, tasks_of
from service.results.runs import runs_of
from service.terminal import labels
from service.tracking.reading import RunRow
from trainables.trial import Trial

STATES = {"planned": "planned", "leased": "running", "done": "done", "failed": "failed", "diverged": "diverged", "stopped": "stopped"}
NUMBERS = ("mean", "low", "high", "seeds")
LIMIT = 800  # metrics, which go to MLflow in one call; cells past it are in the report alone
LENGTH = 100  # characters of a task's or a cell's name; MLflow takes 250 in all
BEST = "best"


@dataclass(frozen=True)
class Standing:
    """`metrics`: at most LIMIT, by name, none of them nan. `best`: a line a task, `td3_bc hopper-medium: snip 95, 67.5 [60.0, 75.0]`."""

    metrics: Mapping[str, float]
    best: str


def standing_of(trials: Sequence[Trial], rows: Mapping[str, RunRow]) -> Standing:
    """How a sweep stands. `rows` are its trials' runs, by trial key; a trial without one is planned."""
    counted = Counter(STATES[rows[trial.key].tags["winnow.state"]] if trial.key in rows else "planned" for trial in trials)
    metrics: dict[str, float] = {"trials/total": float(len(trials))} | {
        f"trials/{state}": float(counted[state]) for state in STATES.values()
    }
    tasks = _named(tasks_of(runs_of(trials, rows)))
    best = {name: cell for name, task in tasks.items() if (cell := _best(task))}
    for task, cell, name in chain(((task, cell, BEST) for task, cell in best.items()), _cells(tasks)):
        if len(metrics) > LIMIT - len(NUMBERS):
            break
        metrics |= {f"{what}/{task}/{name}": value for what, value in _numbers(cell).items()}
    return Standing(metrics, "\n".join(f"{task}: {readable(cell.runs[0].trial.cell)}, {_text(cell)}" for task, cell in best.items()))


def readable(text: str) -> str:
    """The text with only what MLflow allows in a name, and no longer than LENGTH: `snip@95,critic@90` becomes `snip 95 critic 90`."""
    name = " ".join(re.sub(r"[^\w.: -]+", " ", re.sub(r"(?<=\d),(?=\d)", "", text)).split())
    return name if len(name) <= LENGTH else f"{name[: LENGTH - 9].rstrip()} {hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _named(tasks: Iterable[Task]) -> dict[str, Task]:
    """The tasks by a name in identifiers, followed by what sets apart those that would share it."""
    found: dict[str, Task] = {}
    for task in tasks:
        name = ", ".join([f"{task.trial.algorithm} {labels.dataset_name(task.trial.dataset)}", *task.apart])
        found[_free(name, found)] = task
    return found


def _cells(tasks: Mapping[str, Task]) -> Iterator[tuple[str, Cell, str]]:
    for task, about in tasks.items():
        seen: dict[str, Cell] = {}
        for cell in about.cells.values():
            name = _free(cell.runs[0].trial.cell, seen)
            seen[name] = cell
            yield task, cell, name


def _best(task: Task) -> Cell | None:
    """The pruned cell with the highest mean; controls, which others are compared with, and cells that lack a seed do not count."""
    whole = [cell for cell in task.cells.values() if cell.method != labels.DENSE and not cell.control and not cell.absent]
    return max(whole, key=lambda cell: float(cell.scores().mean()), default=None)


def _free(text: str, taken: Mapping[str, object]) -> str:
    """The name of a text; one that is taken is followed by a hash of the text."""
    name = readable(text)
    return f"{name} {hashlib.sha256(text.encode()).hexdigest()[:8]}" if name in taken else name


def _numbers(cell: Cell) -> dict[str, float]:
    """A cell's NUMBERS, without an interval where it has none; empty without a score."""
    if cell.mean is None:
        return {}
    numbers = zip(NUMBERS, (cell.mean.value, cell.mean.low, cell.mean.high, float(cell.mean.seeds)), strict=True)
    return {name: value + 0.0 for name, value in numbers if not math.isnan(value)}  # some databases have no negative zero


def _text(cell: Cell) -> str:
    assert cell.mean is not None  # of a best cell, whose seeds are done
    return f"{cell.mean.value:.1f} [{cell.mean.note or f'{cell.mean.low:.1f}, {cell.mean.high:.1f}'}]"
