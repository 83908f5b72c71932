"""Stacks in Tune's words: what it asks for work and tells of it, one ray_trial per stack."""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from ray import tune
from ray.experimental import internal_kv

from service.cluster import places, workers
from service.cluster.ended_trials import Forgetful
from service.cluster.places import IdleWorkers, Sharing
from service.scheduling.shares import CORE
from service.terminal import signals
from trainables.trial import Stack
from trainables.tune_trainable import NAMESPACE, leaves

LOOK = 0.02  # seconds between two looks whether they have


class Conductor(places.Conductor, Protocol):
    """Gives the cluster its work, and receives the events of it."""

    def next(self, kind: str = ...) -> Stack | None: ...
    def busy(self) -> bool: ...
    def started(self, stack: Stack) -> None: ...
    def reported(self, stack: Stack, news: dict[str, Any]) -> None: ...
    def ended(self, stack: Stack, news: dict[str, Any]) -> None: ...
    def idle(self) -> None: ...
    def silent(self) -> list[Stack]: ...
    def stalled(self) -> list[Stack]: ...
    def spent(self) -> bool: ...
    def end(self) -> None: ...
    def left(self, stack: Stack, update: int, kept: int) -> None: ...
    def yields(self, stack: Stack) -> None: ...


class Source(tune.search.Searcher):  # type: ignore[misc]
    """Gives Tune the next ray_trial; keeps which ray_trial trains which stack."""

    def __init__(
        self, conductor: Conductor, max_concurrent: Callable[[], int], slots: Callable[[], Mapping[str, int]] | None = None
    ) -> None:
        """`slots`: places by kind, where there are several."""
        super().__init__()
        self._slots = slots
        self.kinds: dict[str, str] = {}  # by ray_trial id, where there are several
        self.conductor, self._max_concurrent = conductor, max_concurrent
        self.stacks: dict[str, Stack] = {}  # by ray_trial id, until it has ended
        self.running: dict[str, Any] = {}  # the ray_trials of those of them that have a worker, by id
        self.trouble: Exception | None = None
        self.sharing: Sharing | None = None  # on a cluster
        self.here: Callable[[], list[str]] = list  # the kinds of place that the run uses

    @contextlib.contextmanager
    def shares(self) -> Iterator[None]:
        """Inside, the run keeps to its share of a cluster."""
        if self.sharing is None:
            yield
            return
        self.sharing.begin(self.here())
        IdleWorkers.to_be_ended = lambda: not self._room() and len(self.stacks) == len(self.running)
        try:
            yield
        finally:
            IdleWorkers.to_be_ended = lambda: False
            self.sharing.end()

    def _room(self, kind: str = "") -> bool:
        """Whether the share of a cluster has a place left, of one kind or any."""
        if self.sharing is None:
            return True
        used = sum(kind == other for other in self.kinds.values()) if kind else len(self.stacks)
        return used < self.sharing.most([kind] if kind else self.here())

    def suggest(self, trial_id: str) -> Any:
        if len(self.stacks) >= self._max_concurrent() or not self._room():
            return None if self.stacks or self.tell(self.conductor.busy) else self.FINISHED
        kind, stack = self._next()
        if stack is None:
            return None if self.tell(self.conductor.busy) else self.FINISHED
        self.stacks[trial_id] = stack
        where = {}
        if kind:
            self.kinds[trial_id] = kind
            where = {"kind": kind, "device": "cpu" if kind == CORE else "cuda"}
        return {"stack": json.dumps([trial.to_json() for trial in stack.trials]), **where}

    def _next(self) -> tuple[str, Stack | None]:
        """The next stack, and the kind of its place where there are several: a GPU, which is worth more, is asked for first."""
        if self._slots is None:
            return "", self.tell(self.conductor.next)
        taken = Counter(self.kinds.values())
        for kind, count in sorted(self._slots().items(), key=lambda item: item[0] == CORE):
            if taken[kind] < count and self._room(kind) and (stack := self.tell(self.conductor.next, kind)) is not None:
                return kind, stack
        return "", None

    def nowhere(self) -> set[str]:
        """The ray_trials that wait for a kind of place of which none is there any more."""
        there = self._slots() if self._slots else {}
        return {id for id, kind in self.kinds.items() if id not in self.running and not there.get(kind)}

    def tell(self, method: Callable[..., Any], *arguments: Any) -> Any:
        """Call the conductor, and keep what it raises: Tune wraps some exceptions and swallows others."""
        try:
            return method(*arguments)
        except Exception as error:
            self.trouble = self.trouble or error
            raise

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """TuneEvents gets this event with its reason."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing is restored from it."""

    restore = save

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its parts; nothing of this one is needed again."""
        return {}


class TuneEvents(tune.Callback):  # type: ignore[misc]
    """Tune's events in the conductor's words: stacks, not ray_trials."""

    def __init__(self, source: Source, let_commit: Callable[[], None], yields: Callable[[Stack], bytes], scheduler: Forgetful) -> None:
        self._source, self.let_commit, self._yields, self._calls = source, let_commit, yields, workers.Calls()
        self._scheduler, self._withdrawn = scheduler, set[str]()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._source.running[trial.trial_id] = trial
        self._tell("started", trial)

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any) -> None:
        self._tell("reported", trial, result)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        gone = {"failure": {"reason": "withdrawn", "message": "its kind of place is not there any more"}}
        self._end(trial, gone if trial.trial_id in self._withdrawn else trial.last_result)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The worker or its node died; an error of the training itself comes as a result."""
        stack = self._source.stacks.get(trial.trial_id)
        self._end(trial, {"failure": death(_error_text(trial), len(stack) if stack else 1)})

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self._scheduler.forget(trials)
        self._source.tell(self._source.conductor.idle)
        self._calls.call(self._training(self._source.tell(self._source.conductor.silent)))
        for ray_trial in self._training(self._source.tell(self._source.conductor.stalled)).values():
            workers.end(ray_trial)
        self._withdraw(self._source.nowhere(), trials)
        self._keep_to_share(trials)
        if self._source.tell(self._source.conductor.spent):
            self.let_commit()
            self._source.tell(self._source.conductor.end)

    def _keep_to_share(self, trials: list[Any]) -> None:
        """Report to the cluster's other sweeps, and ask stacks to leave whose places are theirs now."""
        source = self._source
        if source.sharing is None:
            return
        leaving = source.sharing.step(source.stacks, source.running, source.kinds, source.here())
        for id in leaving:
            source.tell(source.conductor.yields, source.stacks[id])
            if id in source.running:
                internal_kv._internal_kv_put(self._yields(source.stacks[id]), b"", namespace=NAMESPACE)
        self._withdraw({*leaving} - source.running.keys(), trials)

    def _withdraw(self, ids: set[str], trials: list[Any]) -> None:
        """Take ray_trials that wait for a worker back from Ray."""
        self._withdrawn |= ids
        for ray_trial in [each for each in trials if each.trial_id in ids] if ids else ():
            self._scheduler.withdraw(ray_trial)

    def _training(self, stacks: list[Stack]) -> dict[str, Any]:
        """The ray_trials that train these stacks, by id."""
        return {id: running for id, running in self._source.running.items() if any(self._source.stacks[id] is stack for stack in stacks)}

    def _end(self, trial: Any, news: Any) -> None:
        self._tell("ended", trial, news)
        if self._source.sharing is not None and trial.trial_id in self._source.sharing.leaving:
            internal_kv._internal_kv_del(self._yields(self._source.stacks[trial.trial_id]), namespace=NAMESPACE)
        self._source.running.pop(trial.trial_id, None)
        self._source.stacks.pop(trial.trial_id, None)
        self._source.kinds.pop(trial.trial_id, None)

    def _tell(self, event: str, trial: Any, *news: Any) -> None:
        stack = self._source.stacks.get(trial.trial_id)
        if stack is not None:
            self._source.tell(getattr(self._source.conductor, event), stack, *news)


def let_commit(run: str, source: Source, patience: float) -> None:
    """Ask the workers to leave, and wait at most so many seconds until all have committed what they have. A second signal ends it."""
    until, waited_for = time.monotonic() + patience, {leaves(run, source.stacks[id]): source.stacks[id] for id in source.running}
    internal_kv._internal_kv_put(leaves(run), b"", namespace=NAMESPACE)
    while waited_for and time.monotonic() < until and not signals.hurried():
        for key in waited_for.keys() & internal_kv._internal_kv_list(leaves(run) + b"/", namespace=NAMESPACE):
            source.conductor.left(waited_for.pop(key), **json.loads(internal_kv._internal_kv_get(key, namespace=NAMESPACE)))
        time.sleep(LOOK)
    internal_kv._internal_kv_del(leaves(run), del_by_prefix=True, namespace=NAMESPACE)


def death(text: str, size: int) -> dict[str, str]:
    """The class of a failure, from Ray's message about a dead worker with a stack of `size`. Where the node was low on memory, a larger
    stack may have been the reason; one trial alone is tried again, as its neighbours may be gone by then."""
    memory = "out_of_memory" if size > 1 else "infrastructure"
    why = memory if "running low on memory" in text else "error" if "error raised in its creation task" in text else "infrastructure"
    last = (text.strip().splitlines() or ["no message"])[-1].strip()
    return {"reason": why, "message": f"the worker died: {last[:300]}"}


def _error_text(trial: Any) -> str:
    """What Tune has just written about a ray_trial's end. Trial.get_error would look where it is copied later."""
    try:
        return Path(trial.error_file).read_text()
    except (OSError, TypeError):
        return ""
