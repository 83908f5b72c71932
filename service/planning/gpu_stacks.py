"""How a run divides its GPUs: how many stacks are on each at a time, and how many trials a stack has. What was typed wins. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from service.ledger.ledger import Ledger
from service.planning.devices import stacks_per_gpu as of_fraction
from service.planning.options import TrainingOptions
from service.planning.update_cost import START, Kind, curve_of, prior
from service.scheduling.shares import CORE
from service.scheduling.sizes import MOST_STACKS, Load, Reports, stacks_per_gpu, wall, worthwhile
from trainables.trial import Trial, shape_of

UNKNOWN = 32  # trials of a stack where a GPU's memory is not known
IDLE = START["cuda"]
Group = tuple[int, int, Trial]  # so many trials, with so many updates left, like one


class StackTiming(NamedTuple):
    """A stack of `members` on a GPU of a kind, of `stacks` there at a time, made so many updates in so many seconds."""

    kind: str
    trial: Trial
    members: int
    stacks: int
    updates: float
    seconds: float
    idle: float = IDLE


class GpuStacks:
    """Of one run. `memory`: how many trials like one fit into a stack on a kind of GPU that so many share."""

    def __init__(self, options: TrainingOptions, timings: Iterable[StackTiming] = ()) -> None:
        self._options, self._reports, self._stacks = options, Reports(), dict[str, int]()
        self.memory: Callable[[str, Trial, int], int] = lambda kind, trial, stacks: UNKNOWN
        for timing in timings:
            self.learn(timing)

    def stacks(self, kind: str) -> int:
        """How many are on a GPU of a kind at a time."""
        fraction = self._options.gpu_fraction
        return of_fraction(fraction) if fraction else self._stacks.get(kind, 1)

    def share(self, kind: str) -> float:
        """Of a GPU, for each stack."""
        return self._options.gpu_fraction or 1 / self.stacks(kind)

    def slots(self, devices: Mapping[str, float]) -> dict[str, int]:
        """How many stacks fit on the cores and GPUs of each kind; one on a GPU needs a core, too.

        No more than the run may train at a time, the GPUs' first; but each kind that is there keeps one, for trials go on where they began.
        """
        gpus = {kind: int(count) * self.stacks(kind) for kind, count in devices.items() if kind != CORE}
        found = {**gpus, CORE: max(0, int(devices[CORE]) - sum(gpus.values()))}
        left = self._options.max_concurrent or sum(found.values())
        for kind, count in found.items():
            found[kind] = min(count, max(1, left))
            left -= found[kind]
        return found

    def members(self, kind: Kind, trial: Trial) -> int:
        """How many trials like one a stack has at most."""
        stacks = self.stacks(kind.name)
        if self._options.stack_size:
            return self._options.stack_size
        return worthwhile(
            lambda size: self._seconds(kind, trial, size) * self._factor(kind, trial, size, stacks), self.memory(kind.name, trial, stacks)
        )

    def divide(self, kind: Kind, work: Iterable[Group], devices: Mapping[str, float], *, untried: bool = False) -> bool:
        """Choose how many stacks a GPU of a kind has for what is to be trained: at most one more than anything was heard of, unless
        `untried` may be chosen, too. Returns whether that has changed. `devices`: how many cores, and GPUs of each kind, there are."""
        before, gpus = self.stacks(kind.name), devices.get(kind.name, 0.0)
        if not self._options.gpu_fraction and gpus:
            loads = [self._load(kind, *group) for group in work]
            self._stacks[kind.name] = stacks_per_gpu(
                loads, gpus, devices.get("cpu", 0.0), IDLE, MOST_STACKS if untried else 1 + self._reports.tried(kind.name)
            )
        return self.stacks(kind.name) != before

    def learn(self, timing: StackTiming) -> None:
        """Correct the estimates by what a stack has taken."""
        kind = Kind(name=timing.kind, device="cuda", most=timing.members)
        expected = wall(timing.updates, self._seconds(kind, timing.trial, timing.members), timing.stacks, timing.idle)
        if expected > 0:
            self._reports.learn(timing.kind, timing.trial.algorithm, timing.members, timing.stacks, timing.seconds / expected)

    def _load(self, kind: Kind, count: int, updates: int, trial: Trial) -> Load:
        most = self._options.stack_size
        return Load(
            count=count, updates=max(1, updates),
            seconds=lambda members: self._seconds(kind, trial, members),
            most=lambda stacks: most or self.memory(kind.name, trial, stacks),
            factor=lambda members, stacks: self._factor(kind, trial, members, stacks),
        )  # fmt: skip

    def _seconds(self, kind: Kind, trial: Trial, members: int) -> float:
        options = self._options
        return curve_of(trial, kind, prior("cpu", trial.algorithm), options.execution, tf32=options.tf32).seconds(members)

    def _factor(self, kind: Kind, trial: Trial, members: int, stacks: int) -> float:
        return self._reports.factor(kind.name, trial.algorithm, members, stacks)


def groups(trials: Iterable[Trial], progress: Mapping[str, int]) -> list[Group]:
    """Trials by what they need to share a stack, and where they continue."""
    found: dict[tuple[str, int], list[Trial]] = {}
    for trial in trials:
        found.setdefault((shape_of(trial), progress.get(trial.key, 0)), []).append(trial)
    return [(len(alike), alike[0].updates - done, alike[0]) for (_, done), alike in found.items()]


def stack_timings(ledgers: Mapping[str, Ledger]) -> list[StackTiming]:
    """What the stacks that are done on GPUs took, as the journals have it: once for each, without its start."""
    found: dict[tuple[object, ...], StackTiming] = {}
    for ledger in ledgers.values():
        for entry in ledger.entries.values():
            about = entry.detail
            if entry.state == "done" and about.get("share") and about.get("on") and about.get("updates_per_second"):
                size = next((int(event.detail["size"]) for event in reversed(entry.events) if event.state == "leased"), 1)
                seconds, rate, stacks = float(about["seconds"]), float(about["updates_per_second"]), of_fraction(float(about["share"]))
                found[about["on"], seconds, rate] = StackTiming(
                    str(about["on"]), entry.trial, size, stacks, seconds * rate / size, seconds, idle=0.0
                )
    return [*found.values()]
