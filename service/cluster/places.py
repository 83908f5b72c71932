"""How a sweep's driver keeps to its share of a cluster: it tells an actor, one for the whole cluster, what it uses and wants, and hears
what it may use. It never waits for that. For tune_stacks.py (docs/decisions/020-shared-fairly.md)."""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

import ray
from ray.tune.execution import tune_controller
from ray.tune.utils.object_cache import _ObjectCache

from service.planning.options import PRIORITIES, TrainingOptions
from service.planning.submitter import submitter
from service.scheduling.shares import CORE, Demand, Patience, Share, Shares, spread
from trainables.errors import one_line
from trainables.trial import Stack

NAME, NAMESPACE = "winnow-places", "winnow-1"  # 1: of the protocol; sweeps of another one know nothing of each other
ON_THE_HEAD = {"node:__internal_head__": 0.001}  # nodes without a stack can go
REPORT_EVERY = 1.0  # seconds
FIRST = 3.0  # seconds to wait for the first answer of an actor that is there
PATIENCE = 120.0  # seconds without an answer after which a sweep goes on as if it were alone
AGAIN = 5.0  # seconds between two tries to reach an actor that has failed
NOT_SHARED = "the sweeps of this cluster do not share it by weight for now ({}): this one takes what Ray gives it"


class Places:
    """The actor. All that it knows is told again every second, so it may die at any time."""

    def __init__(self) -> None:
        self._shares = Shares(time.monotonic())

    def report(self, id: str, demand: Mapping[str, Any], capacity: Mapping[str, float]) -> dict[str, Any] | None:
        """A sweep's share; None while others may not have reported yet."""
        now = time.monotonic()
        share = self._shares.report(id, Demand(**demand), capacity, now)
        return asdict(share) if self._shares.settled(now) else None

    def leave(self, id: str) -> None:
        self._shares.leave(id, time.monotonic())


class Conductor(Protocol):
    """What is asked of the driver."""

    def wanted(self, kind: str) -> int: ...
    def interruptible(self, stacks: Sequence[Stack]) -> list[Stack]: ...
    def shared(self, share: Share) -> None: ...
    def not_shared(self, why: str) -> None: ...


class Sharing:
    """One run among others. `devices`: how many there are now, by kind. `stacks`: of this run, on a GPU of a kind."""

    def __init__(
        self,
        id: str,
        sweep: str,
        options: TrainingOptions,
        conductor: Conductor,
        devices: Callable[[], Mapping[str, float]],
        stacks: Callable[[str], int] = lambda kind: 1,
    ) -> None:
        who = submitter(sweep).get("user", "")
        self._id, self._name, self._options, self._conductor, self._devices = id, f"{sweep} ({who})", options, conductor, devices
        self._stacks = stacks
        self._patience = Patience()
        self._share: Share | None = None
        self._actor: Any = None
        self._answer: Any = None
        self._sent = self._tried = -math.inf
        self._heard = time.monotonic()
        self._why, self._said = "", False
        self.leaving: set[str] = set()  # ids of the ray_trials that are asked to leave

    def begin(self, kinds: Sequence[str]) -> None:
        """Tell the actor of this run before anything is started; a new actor has nobody else to tell of."""
        with self._trying(), contextlib.suppress(ValueError):  # none there
            self._actor = ray.get_actor(NAME, namespace=NAMESPACE)
        there = self._actor is not None
        self._report(time.monotonic(), Counter(), Counter(), kinds)
        if there and self._answer is not None:
            ray.wait([self._answer], timeout=FIRST)
            self._listen(time.monotonic())

    def end(self) -> None:
        """The others need not wait until this run is missed."""
        if self._actor is not None:
            with self._trying():
                self._actor.leave.remote(self._id)

    def most(self, kinds: Sequence[str]) -> float:
        """How many stacks this run may have on these kinds together; one where there is no place yet, so that a cluster that grows by what
        waits begins to."""
        if self._share is None or not self._share.others:
            return math.inf
        if not any(self._share.whole.get(kind, 0) for kind in kinds):
            return 1
        return sum(self._share.places.get(kind, 0) for kind in kinds)

    def step(self, stacks: Mapping[str, Stack], running: Mapping[str, Any], kinds: Mapping[str, str], here: Sequence[str]) -> list[str]:
        """Report and listen; returns the ids of the ray_trials that are to leave their places now. `stacks`: all that Ray has, by id;
        `running`: those with a worker; `kinds`: of their places, where that is known; `here`: all kinds that this run uses."""
        now = time.monotonic()
        self.leaving &= stacks.keys()
        uses, holds = (self._by_kind(ids, kinds, here) for ids in (stacks, running))
        self._listen(now)
        if now - self._sent >= REPORT_EVERY and self._answer is None:
            self._report(now, uses, holds, here)
        if self._share is None:
            return []
        found: list[str] = []
        for kind, count in self._patience.over(uses, self._share, now).items():
            ours = {id: stack for id, stack in stacks.items() if kinds.get(id, kind) == kind and id not in self.leaving}
            begun = sum(kinds.get(id, kind) == kind for id in self.leaving)
            found += self._cheapest(ours, running, kind in self._share.urgent)[: max(0, count - begun)]
            self.leaving.update(found)
        return found

    def _cheapest(self, stacks: Mapping[str, Stack], running: Mapping[str, Any], urgent: bool) -> list[str]:
        """Those that wait for a worker, then what the driver names; those that are starting only where it is urgent."""
        waiting = [id for id in reversed(list(stacks)) if id not in running]
        ids = {stack.lead.key: id for id, stack in stacks.items() if id in running}
        named = [ids[stack.lead.key] for stack in self._conductor.interruptible([stacks[id] for id in ids.values()])]
        return waiting + named + ([id for id in reversed(list(stacks)) if id not in (*waiting, *named)] if urgent else [])

    def _by_kind(self, ids: Mapping[str, Any], kinds: Mapping[str, str], here: Sequence[str]) -> Counter[str]:
        """How many stacks there are on each kind; where only Ray knows, they are spread over the kinds as the devices are."""
        known = Counter(kinds[id] for id in ids if id in kinds)
        devices = self._devices()
        return known + spread(len(ids) - known.total(), {kind: devices.get(kind, 0.0) for kind in here})

    def _report(self, now: float, uses: Counter[str], holds: Counter[str], here: Sequence[str]) -> None:
        options = self._options
        units = {kind: 1.0 if kind == CORE else 1 / self._stacks(kind) for kind in here}
        room = max(0, (options.max_concurrent or math.inf) - uses.total())
        wants = {kind: uses[kind] + int(min(room, self._conductor.wanted(kind))) for kind in here}
        demand = Demand(
            name=self._name, weight=options.weight, priority=PRIORITIES[options.priority],
            uses=dict(uses), holds=dict(holds), wants=wants, units=units,  # asdict would spoil a Counter
        )  # fmt: skip
        if self._actor is None and now - self._tried >= AGAIN:
            self._tried = now
            how = {"name": NAME, "namespace": NAMESPACE, "lifetime": "detached", "get_if_exists": True, "max_restarts": -1}
            with self._trying():
                self._actor = ray.remote(Places).options(**how, num_cpus=0, resources=ON_THE_HEAD).remote()
        if self._actor is not None:
            with self._trying():
                self._answer, self._sent = self._actor.report.remote(self._id, asdict(demand), dict(self._devices())), now

    def _listen(self, now: float) -> None:
        """Take an answer that has come; after a while without one nothing limits the run."""
        if self._answer is not None and ray.wait([self._answer], timeout=0)[0]:
            with self._trying():
                said, self._answer, self._heard = ray.get(self._answer), None, now
                self._share = self._share if said is None else Share(**said)
            if self._share is not None:
                self._conductor.shared(self._share)
        if now - max(self._heard, self._tried) > PATIENCE:
            self._answer = self._actor = None  # it may answer nobody any more: make or find it anew
        if now - self._heard > PATIENCE and not self._said:
            self._said = True
            self._conductor.not_shared(NOT_SHARED.format(self._why or f"no answer for {PATIENCE:.0f} s"))
        if now - self._heard > PATIENCE:
            self._share = None

    @contextlib.contextmanager
    def _trying(self) -> Iterator[None]:
        """What is raised inside means that the actor has to be made or found again. Nothing of it may end a sweep."""
        try:
            yield
        except Exception as error:
            self._why, self._answer, self._actor = one_line(error), None, None


class IdleWorkers(_ObjectCache):  # type: ignore[misc]
    """Tune keeps an idle worker for its next ray_trial; its place goes back to Ray where it is another sweep's now."""

    to_be_ended: Callable[[], bool] = staticmethod(lambda: False)

    def flush_cached_objects(self, force_all: bool = False) -> Any:
        return super().flush_cached_objects(force_all or IdleWorkers.to_be_ended())


tune_controller._ObjectCache = IdleWorkers
