"""The trials that wait for places of several kinds: the scheduler decides on counts, this hands out the trials."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from service.planning.options import TrainingOptions
from service.planning.update_cost import Kind, costs, families
from service.scheduling.costs import Job
from service.scheduling.scheduler import Placed, Scheduler
from trainables.trial import Stack, Trial, comparison, shape_of, stack_mates

HEARD = 0.1  # share of its updates after which a stack's speed corrects the estimates


class Pool:
    """A trial that has begun on a kind of device waits for that kind. Not thread-safe; the clock is handed in."""

    def __init__(
        self,
        kinds: Mapping[str, Kind],
        slots: Callable[[], Mapping[str, int]],
        options: TrainingOptions,
        rates: Mapping[str, float],
        fit: Callable[[str, Trial], int] | None = None,
    ) -> None:
        """`slots`: how many places of each kind there are now. `rates`: dense updates per second on a core, by algorithm. `fit`: how many
        trials like one fit into a stack's share of a GPU's memory."""
        self._kinds, self._slots, self._options, self._rates, self._fit = kinds, slots, options, rates, fit
        self._scheduler = Scheduler([name for name, kind in kinds.items() if kind.device == "cuda"])
        self._jobs: dict[Any, Job] = {}
        self._waiting: dict[Job, deque[Trial]] = {}
        self._placed: dict[str, tuple[Placed, int]] = {}  # by the first member's key, with the updates that the stack has to do
        self._began: dict[str, float] = {}
        self._seen: set[str] = set()  # kinds of which there has been a place in this run
        self._named: set[str] = set()  # those of them that have gone and were told of
        self._bound: dict[str, str] = {}  # the kind of all trials that are compared with one another, with `--pin`

    def __len__(self) -> int:
        """How many trials wait for a kind that is there, or that was and may come back."""
        there = self._there().keys() | self._seen
        return sum(len(waiting) for job, waiting in self._waiting.items() if job.costs.keys() & there)

    def waiting(self, kind: str) -> int:
        """How many trials could go to a place of a kind, each alone."""
        return sum(len(waiting) for job, waiting in self._waiting.items() if kind in job.costs)

    def gone(self) -> Collection[str]:
        """The kinds of place that have gone since this was last asked."""
        there = self._there().keys()
        self._named -= there
        new = self._seen - there - self._named
        self._named |= new
        return sorted(new)

    def missing(self) -> Counter[str]:
        """How many trials wait for kinds that are not there."""
        there, found = self._there().keys(), Counter[str]()
        for job, waiting in self._waiting.items():
            if waiting and not job.costs.keys() & there:
                found[next(iter(job.costs))] += len(waiting)
        return found

    def pin(self, trials: Iterable[Trial], began: Mapping[str, str]) -> None:
        """Choose the kind for each group of trials that are compared: where one of it has begun, else so that all kinds end together."""
        groups: dict[str, list[Trial]] = {}
        for trial in trials:
            groups.setdefault(comparison(trial), []).append(trial)
        for name, group in groups.items():
            if known := [began[trial.key] for trial in group if trial.key in began]:
                self._bound[name] = known[0]
        there = self._there()
        loads = dict.fromkeys(there, 0.0)
        work = {}
        for name, group in groups.items():
            each = [costs(trial, trial.updates, self._kinds, self._rates, self._options.execution) for trial in group]
            work[name] = {kind: sum(cost[kind].per_trial(len(group)) for cost in each) / count for kind, count in there.items()}
        for name in sorted(work, key=lambda name: -min(work[name].values())):
            kind = self._bound.setdefault(name, min(there, key=lambda kind: loads[kind] + work[name][kind]))
            if kind in loads:
                loads[kind] += work[name][kind]

    def add(self, trials: Iterable[Trial], progress: Mapping[str, int], limits: Mapping[str, int], began: Mapping[str, str]) -> None:
        """More trials are to be trained, or again. `began`: the kinds on which they go on."""
        for trial in trials:
            done, limit = progress.get(trial.key, 0), limits.get(trial.key, 0)
            kind = began.get(trial.key) if done else None
            kind = kind or self._bound.get(comparison(trial))
            mates = stack_mates(trial) if self._options.execution == "auto" else ""
            alike = (shape_of(trial), done, limit, kind, mates, trial.sparsity)
            job = self._jobs.get(alike)
            if job is None:
                job = self._jobs[alike] = Job(trial.name, self._costs(trial, done, limit, kind), families(trial), alike[:4])
            self._waiting.setdefault(job, deque()).append(trial)
            self._scheduler.add(job, 1)

    def take(self, kind: str, now: float) -> Stack | None:
        """The stack for a free place of a kind."""
        if (there := self._there()) != self._scheduler.places:
            self._scheduler.resize(there, now)
        placed = self._scheduler.take(kind, now)
        if placed is None:
            return None
        stack = Stack(tuple(self._waiting[job].popleft() for job, count in placed.parts for _ in range(count)))
        self._placed[stack.lead.key] = placed, 0
        return stack

    def _there(self) -> dict[str, int]:
        there = {kind: count for kind, count in self._slots().items() if count}
        self._seen |= there.keys()
        return there

    def place_of(self, stack: Stack) -> dict[str, str]:
        return {"on": self._placed[stack.lead.key][0].kind}

    def device_of(self, stack: Stack) -> str:
        return self._kinds[self.place_of(stack)["on"]].device

    def started(self, stack: Stack, begins_at: int, now: float) -> None:
        """A worker has the stack, which continues from update `begins_at`."""
        self._placed[stack.lead.key] = self._placed[stack.lead.key][0], stack.lead.updates - begins_at
        self._began[stack.lead.key] = now

    def reached(self, stack: Stack, update: int, now: float) -> None:
        """A stack's first news of how fast it is correct the estimates."""
        placed, updates = self._placed[stack.lead.key]
        share = 1 - (stack.lead.updates - update) / updates if updates else 0.0
        if HEARD <= share < 1:
            self._scheduler.progressed(placed, share, now - self._began[stack.lead.key], now)
            self._placed[stack.lead.key] = placed, 0

    def ended(self, stack: Stack, done: bool, now: float) -> None:
        """A stack has left its place, done or not; what is not done comes again by `add`. Idempotent."""
        if known := self._placed.pop(stack.lead.key, None):
            began = self._began.pop(stack.lead.key, None)
            self._scheduler.end(known[0], now - began if done and began is not None else None)

    def _costs(self, trial: Trial, done: int, limit: int, kind: str | None) -> dict[str, Any]:
        found = costs(trial, trial.updates - done, self._kinds, self._rates, self._options.execution)
        sized = {}
        for name, cost in found.items():
            if kind is None or name == kind:
                most = self._options.stack_size or (
                    self._fit(name, trial) if self._fit and self._kinds[name].device == "cuda" else cost.most
                )
                sized[name] = replace(cost, most=min(most, limit or most))
        return sized or {kind or "": replace(next(iter(found.values())), most=1)}
