"""The trials that wait for places of several kinds: the scheduler decides on counts, this hands out the trials."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from service.planning.gpu_stacks import GpuStacks, StackTiming, groups
from service.planning.options import TrainingOptions
from service.planning.update_cost import Kind, costs, families
from service.scheduling.costs import Job
from service.scheduling.scheduler import Placement, Scheduler
from trainables.trial import LARGEST, Stack, Trial, comparison, shape_of, stack_mates

DIVIDE_EVERY = 60.0  # seconds between two looks at how many stacks a GPU is to have
HEARD = 0.1  # share of its updates after which a stack's speed corrects the estimates


@dataclass
class _Running:
    """A stack that has a place, of `beside` on its GPU, and the updates that it has to do. Where it trains, `began` says since when."""

    placed: Placement
    beside: int
    share: float
    updates: int = 0
    began: float | None = None
    heard: bool = False


class Pool:
    """A trial that has begun on a kind of device waits for that kind. Not thread-safe; the clock is handed in."""

    def __init__(
        self,
        kinds: Mapping[str, Kind],
        slots: Callable[[], Mapping[str, int]],
        options: TrainingOptions,
        rates: Mapping[str, float],
        gpus: GpuStacks | None = None,
        devices: Callable[[], Mapping[str, float]] = dict,
    ) -> None:
        """`slots`: how many places of each kind there are now. `rates`: dense updates per second on a core, by algorithm. `gpus`: how they
        are divided, which changes with what stacks take. `devices`: how many cores, and GPUs of each kind, there are now."""
        self._kinds, self._slots, self._options, self._rates = dict(kinds), slots, options, rates
        self._gpus, self._devices = gpus or GpuStacks(options), devices
        self._on_gpus = [name for name, kind in kinds.items() if kind.device == "cuda"]
        self._scheduler = Scheduler(self._on_gpus, largest=self._largest)
        self._examples: dict[Job, Trial] = {}
        self._sizes: dict[tuple[str, str], int] = {}  # of stacks at most, by kind and shape; emptied where more is known
        self._divided = 0.0  # when the GPUs were last
        self._jobs: dict[Any, Job] = {}
        self._waiting: dict[Job, deque[Trial]] = {}
        self._running: dict[str, _Running] = {}  # by the first member's key
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
        """More trials are to be trained, or again. `began`: the kinds on which they continue."""
        trials = list(trials)
        if not self._jobs:
            self._divide_first(trials, progress)
        for trial in trials:
            done, limit = progress.get(trial.key, 0), limits.get(trial.key, 0)
            kind = began.get(trial.key) if done else None
            kind = kind or self._bound.get(comparison(trial))
            mates = stack_mates(trial) if self._options.execution == "auto" else ""
            alike = (shape_of(trial), done, limit, kind, mates, trial.sparsity)
            job = self._jobs.get(alike)
            if job is None:
                job = self._jobs[alike] = Job(trial.name, self._costs(trial, done, limit, kind), families(trial), alike[:4])
                self._examples[job] = trial
            self._waiting.setdefault(job, deque()).append(trial)
            self._scheduler.add(job, 1)

    def take(self, kind: str, now: float) -> Stack | None:
        """The stack for a free place of a kind."""
        if now - self._divided >= DIVIDE_EVERY:
            self._divide_again(now)
        if (there := self._there()) != self._scheduler.places:
            self._scheduler.resize(there, now)
        placed = self._scheduler.take(kind, now)
        if placed is None:
            return None
        stack = Stack(tuple(self._waiting[job].popleft() for job, count in placed.parts for _ in range(count)))
        on_gpu = kind in self._on_gpus
        self._running[stack.lead.key] = _Running(placed, self._gpus.stacks(kind), self._gpus.share(kind) if on_gpu else 0.0)
        return stack

    def _largest(self, job: Job, kind: str) -> float:
        """How many trials of a job a stack on a kind may have, by what is known now."""
        if kind not in self._on_gpus:
            return math.inf
        trial = self._examples[job]
        known = (kind, shape_of(trial))
        if known not in self._sizes:
            self._sizes[known] = self._gpus.members(self._kinds[kind], trial)
        return self._sizes[known]

    def _divide_first(self, trials: Iterable[Trial], progress: Mapping[str, int]) -> None:
        """Choose how many stacks a GPU of each kind has, before anything is known of these."""
        work = groups(trials, progress)
        for name in self._on_gpus:
            if self._gpus.divide(self._kinds[name], work, self._devices()):
                self._kinds[name] = replace(self._kinds[name], share=self._gpus.share(name))

    def _divide_again(self, now: float) -> None:
        """Choose again, by what stacks have taken; those that train stay as they are."""
        self._divided = now
        self._sizes.clear()
        mates: dict[Any, list[Job]] = {}
        for job, waiting in self._waiting.items():
            if waiting:
                mates.setdefault(job.mates, []).append(job)
        leads = {key: self._examples[jobs[0]] for key, jobs in mates.items()}
        for name in self._on_gpus:
            before = self._gpus.stacks(name)
            work = [
                (sum(len(self._waiting[job]) for job in jobs), leads[key].updates - key[1], leads[key])
                for key, jobs in mates.items()
                if name in jobs[0].costs
            ]
            if work and self._gpus.divide(self._kinds[name], work, self._devices()):
                self._scheduler.corrections.scale(name, self._gpus.stacks(name) / before)

    def _there(self) -> dict[str, int]:
        there = {kind: count for kind, count in self._slots().items() if count}
        self._seen |= there.keys()
        return there

    def place_of(self, stack: Stack) -> dict[str, Any]:
        running = self._running[stack.lead.key]
        return {"on": running.placed.kind, **({"share": running.share} if running.share else {})}

    def device_of(self, stack: Stack) -> str:
        return self._kinds[self.place_of(stack)["on"]].device

    def started(self, stack: Stack, begins_at: int, now: float) -> None:
        """A worker has the stack, which continues from update `begins_at`."""
        running = self._running[stack.lead.key]
        running.updates, running.began = stack.lead.updates - begins_at, now

    def reached(self, stack: Stack, update: int, now: float) -> None:
        """A stack's first news of how fast it is correct the estimates."""
        running = self._running[stack.lead.key]
        share = 1 - (stack.lead.updates - update) / running.updates if running.updates else 0.0
        if HEARD <= share < 1 and not running.heard and running.began is not None:
            running.heard = True
            self._scheduler.progressed(running.placed, share, now - running.began, now)
            self._learn(stack, running, share, now - running.began)

    def ended(self, stack: Stack, done: bool, now: float) -> None:
        """A stack has left its place, done or not; what is not done comes again by `add`. Idempotent."""
        if running := self._running.pop(stack.lead.key, None):
            took = now - running.began if done and running.began is not None else None
            self._scheduler.end(running.placed, took)
            if took is not None:
                self._learn(stack, running, 1.0, took)

    def _learn(self, stack: Stack, running: _Running, share: float, seconds: float) -> None:
        """What a share of a stack's updates took on a GPU says how large stacks are to be, and how many are beside each other."""
        if running.share:
            done = share * running.updates
            self._gpus.learn(StackTiming(running.placed.kind, stack.lead, len(stack), running.beside, done, seconds))
            self._sizes.clear()

    def _costs(self, trial: Trial, done: int, limit: int, kind: str | None) -> dict[str, Any]:
        found = costs(trial, trial.updates - done, self._kinds, self._rates, self._options.execution)
        sized = {}
        for name, cost in found.items():
            if kind is None or name == kind:
                most = self._options.stack_size or (LARGEST if name in self._on_gpus else cost.most)
                sized[name] = replace(cost, most=min(most, limit or most))
        return sized or {kind or "": replace(next(iter(found.values())), most=1)}
