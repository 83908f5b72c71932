"""What becomes of a stack's trials when it has ended: their events, and which of them are tried again or left to another sweep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from service.ledger.errors import GoneError
from service.ledger.manifest import Manifest
from service.planning import estimate
from service.planning.packing import retry
from service.planning.update_cost import price
from service.spool import lines
from service.storage import paths
from trainables.trial import Stack, Trial

LONGEST_PAUSE = 60.0  # seconds before a trial is tried again whose worker, node or storage keeps failing

Event = tuple[str, str, Mapping[str, Any]]  # key, state, and what else is to be said


@dataclass(frozen=True)
class Ending:
    """Of one trial."""

    trial: Trial
    events: tuple[Event, ...]
    again: float | None = None  # seconds until it is tried again
    elsewhere: bool = False  # another sweep has it now


@dataclass(frozen=True)
class Why:
    """A stack's end as the driver knows it: the `failure` of what has no end in its spool, the trials that were `asked` to stop, by key,
    and the event's detail where the stack `gave_way` to another sweep."""

    failure: Mapping[str, Any]
    asked: Mapping[str, Mapping[str, Any]]
    gave_way: Mapping[str, Any] | None


class Endings:
    """Of one run."""

    def __init__(self, storage: Path, manifest: Manifest, began: Mapping[str, int]) -> None:
        """`began`: the update from which each trial has gone on in this run, by key."""
        self._storage, self._manifest, self._began = storage, manifest, began
        self.measured: dict[str, list[float]] = {}  # dense updates per second of the stacks that are done, by algorithm

    def of(self, stack: Stack, why: Why, place: Mapping[str, Any], device: str) -> list[Ending]:
        """What each member's spool says, else the failure. `place`: what the journal says of the stack's; `device`: the run's, or "all"."""
        why = replace(why, failure=self.judged(why.failure))
        return [self._of(trial, len(stack), why, place, device) for trial in stack.trials]

    def judged(self, failure: Mapping[str, Any]) -> Mapping[str, Any]:
        """A worker's failure, also where it has not found this run's lease. While the driver finds it there, the worker's host is at fault:
        it would fail with every other stack, too, so the tries are counted."""
        if failure["reason"] != "gone":
            return failure
        try:
            self._manifest.lease.check_there()
        except GoneError:
            return {**failure, "reason": "superseded"}
        host, storage = failure.get("host", "the worker's host"), paths.shown(self._storage)
        message = f"{host} does not see the storage {storage}, or sees another one there; use a storage that all hosts share"
        return {"reason": "infrastructure", "message": message}

    def _of(self, trial: Trial, size: int, why: Why, place: Mapping[str, Any], device: str) -> Ending:
        told = lines.read(paths.spool(self._storage, trial.key))
        end, reason = lines.end_line(told), why.failure["reason"]
        if trial.key in why.asked:
            return Ending(trial, ((trial.key, "stopped", why.asked[trial.key]),))
        if end is None and reason in ("stopped", "withdrawn"):
            shrinks = {"reason": "stack shrinks", "message": "others of it were stopped"}
            return Ending(trial, ((trial.key, "planned", why.gave_way or (why.failure if reason == "withdrawn" else shrinks)),), again=0.0)
        if end is None and reason == "superseded":
            return Ending(trial, ((trial.key, "planned", {"reason": reason, "message": why.failure["message"]}),), elsewhere=True)
        if end is None:
            return self._failed(trial, size, why.failure, lines.committed_update(told))
        if end["kind"] == "diverged":
            return Ending(trial, ((trial.key, "diverged", {"reason": "divergence", "message": end["reason"]}),))
        return Ending(trial, ((trial.key, "done", {**place, **self._done(trial, size, end, device)}),))

    def _failed(self, trial: Trial, size: int, failure: Mapping[str, Any], reached: int) -> Ending:
        """The failure, and with it, so that no crash comes between, the next try where there is one. `reached`: the newest update that is
        committed, below 0 for none."""
        failure = {**failure, "update": max(0, reached)}
        failures = self._manifest.ledger.entries[trial.key].failures_without_progress(failure["reason"], reached)
        failed = (trial.key, "failed", failure)
        again = retry(size, failure["reason"], failures)
        if not again:
            return Ending(trial, (failed,))
        of_machines = failure["reason"] == "infrastructure"
        limit = {} if of_machines else {"size": again}
        planned = (trial.key, "planned", {**{name: failure[name] for name in ("reason", "message")}, "retry": True, **limit})
        return Ending(trial, (failed, planned), again=min(LONGEST_PAUSE, 2.0**failures) if of_machines and failures > 1 else 0.0)

    def _done(self, trial: Trial, size: int, end: Mapping[str, Any], device: str) -> Mapping[str, Any]:
        trained = (trial.updates - self._began.get(trial.key, 0)) * size
        rate = {"updates_per_second": round(trained / end["seconds"], 1)} if trained and end["seconds"] > 0 else {}
        if rate:
            rate["crowding"] = round(estimate.crowding(), 2)
            if end["seconds"] >= estimate.LONG and not trial.hyper and device != "all":
                dense = rate["updates_per_second"] * price(trial, device, end["execution"])
                self.measured.setdefault(trial.algorithm, []).append(dense)
        return {"execution": end["execution"], "seconds": end["seconds"], **rate}
