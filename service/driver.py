"""The driver: says what trains next, hears what happens to the stacks, and writes it into the manifest and onto the progress line."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from service import mirror, spool
from service.manifest import Manifest
from service.packing import pack, retry
from service.plan import STACK_SIZE, Plan, limits, progress_of
from service.progress import Display, Progress
from trainables import paths
from trainables.trial import Stack, Trial, shape_of

LONGEST_PAUSE = 60.0  # seconds before a trial is tried again whose worker, node or storage keeps failing


class Driver:
    """Conducts a cluster through one run of a sweep; the manifest learns of an event before anybody else does."""

    def __init__(self, plan: Plan, journal: Manifest, storage: Path, size: int | None = None) -> None:
        self.plan, self._journal, self._storage, self._size = plan, journal, storage, size
        self._progress = Progress({trial.key: trial.updates for trial in plan.todo})
        self._display = Display()
        self._ready: deque[Stack] = deque()
        self._again: list[tuple[float, Trial]] = []  # when, and which: trials that wait for another try
        self._out: set[str] = set()  # keys of the trials that were handed out and have not ended
        self._from: dict[str, int] = {}
        self.device = plan.device
        self._fit: Callable[[Trial], int] | None = None

    def prepare(self) -> None:
        """Bring the manifest up to the plan: new trials, those that another sweep has done, and those to try again."""
        self._journal.plan(self.plan.trials)
        ledger = self._journal.ledger
        again = [*self.plan.elsewhere, *(trial.key for trial in self.plan.todo)]
        asked = [key for key in again if ledger.state(key) in ("failed", "diverged")]
        self._journal.record("planned", {key: {"retry": True, "resumed": True} for key in asked})
        reused = {key: sweep for key, sweep in self.plan.elsewhere.items() if ledger.state(key) != "done"}
        self._journal.record("done", {key: {"sweep": sweep} for key, sweep in reused.items()})

    def begin(self, device: str, fit: Callable[[Trial], int] | None = None) -> None:
        """The device is known: make stacks of all that the plan has to do. `fit` says how many trials like one go into its memory."""
        self.device, self._fit = device, fit
        self._pack(self.plan.todo)

    def next(self) -> Stack | None:
        """The stack to train now; None where there is none, for now (`busy`) or for good."""
        now = time.monotonic()
        due = [trial for when, trial in self._again if when <= now]
        if due:
            self._again = [(when, trial) for when, trial in self._again if when > now]
            self._pack(due)
        if not self._ready:
            return None
        stack = self._ready.popleft()
        self._out |= {trial.key for trial in stack.trials}
        return stack

    def busy(self) -> bool:
        """Whether there may be more to do."""
        return bool(self._out or self._again or self._ready)

    def started(self, stack: Stack) -> None:
        now = time.monotonic()
        self._journal.record("leased", {trial.key: {"size": len(stack)} for trial in stack.trials})
        for trial in stack.trials:
            self._progress.start(trial.key, self._from.get(trial.key, 0), now)

    def reported(self, stack: Stack, news: Mapping[str, Any]) -> None:
        now = time.monotonic()
        for trial in stack.trials:
            if "update" in news:
                self._progress.at(trial.key, news["update"], now)
            score = news.get("scores", {}).get(trial.key)
            if score is not None and score == score:  # not NaN
                self._progress.score(trial.key, trial.cell, score)
        self.idle()

    def ended(self, stack: Stack, news: Mapping[str, Any]) -> None:
        """Each member gets its own end: what its spool says, else the failure that ended the stack; one fsync for all."""
        failure = news.get("failure") or {"reason": "error", "message": "the stack ended without a word"}
        events: list[tuple[str, str, Mapping[str, Any]]] = []
        mirror.refresh(self._storage, [trial.key for trial in stack.trials])
        for trial in stack.trials:
            if self._journal.ledger.state(trial.key) != "leased":  # its worker died before it could begin
                events.append((trial.key, "leased", {"size": len(stack)}))
            end = spool.outcome(spool.read(paths.spool(self._storage, trial.key)))
            if end is None:
                events += self._failed(trial, len(stack), failure)
            elif end["kind"] == "diverged":
                events.append((trial.key, "diverged", {"reason": "divergence", "message": end["reason"]}))
            else:
                events.append((trial.key, "done", self._done(trial, len(stack), end)))
        self._journal.record_all(events)
        self._tell(stack, events)
        self._out -= {trial.key for trial in stack.trials}
        self.idle()

    def leave(self) -> None:
        """Give back what is leased and not ended, so that the journal tells of no worker that is gone; twice is once."""
        mine = {trial.key for trial in self.plan.trials}
        leased = [key for key in self._journal.ledger.keys_in("leased") if key in mine]
        self._journal.record("planned", {key: {"reason": "interrupted"} for key in leased})

    def last_line(self) -> None:
        if self.plan.todo:
            self._display.show(self._progress.line(), last=True)

    def idle(self) -> None:
        self._display.show(self._progress.line())

    def exit_code(self) -> int:
        """0 where every trial of the plan is done, else 1."""
        return 0 if all(self._journal.ledger.state(trial.key) == "done" for trial in self.plan.trials) else 1

    def _pack(self, trials: Iterable[Trial]) -> None:
        todo = list(trials)
        progress = progress_of(self._storage, todo)
        self._from |= progress
        size, most = self._size or STACK_SIZE[self.device], limits(self._journal.ledger, todo)
        if self._fit and not self._size:
            fits = {shape_of(trial): trial for trial in todo}
            room = {shape: self._fit(trial) for shape, trial in fits.items()}
            size = max(room.values(), default=size)
            most = {trial.key: min(room[shape_of(trial)], most.get(trial.key, size)) for trial in todo}
        self._ready += pack(todo, size, progress, most)

    def _failed(self, trial: Trial, size: int, failure: Mapping[str, Any]) -> list[tuple[str, str, Mapping[str, Any]]]:
        """The failure, and with it, so that no crash comes between, the next try where there is one."""
        failures = self._journal.ledger.entries[trial.key].failures(failure["reason"]) + 1
        events: list[tuple[str, str, Mapping[str, Any]]] = [(trial.key, "failed", failure)]
        again = retry(size, failure["reason"], failures)
        if again:
            pause = min(LONGEST_PAUSE, 2.0**failures) if failure["reason"] == "infrastructure" and failures > 1 else 0.0
            self._again.append((time.monotonic() + pause, trial))
            limit = {} if failure["reason"] == "infrastructure" else {"size": again}
            why = {name: failure[name] for name in ("reason", "message")}
            events.append((trial.key, "planned", {**why, "retry": True, **limit}))
        return events

    def _done(self, trial: Trial, size: int, end: Mapping[str, Any]) -> Mapping[str, Any]:
        trained = (trial.updates - self._from.get(trial.key, 0)) * size
        rate = {"updates_per_second": round(trained / end["seconds"], 1)} if trained and end["seconds"] > 0 else {}
        return {"device": self.device, "execution": end["execution"], "seconds": end["seconds"], **rate}

    def _tell(self, stack: Stack, events: Iterable[tuple[str, str, Mapping[str, Any]]]) -> None:
        last = {key: (state, detail) for key, state, detail in events}
        for trial in stack.trials:
            state, detail = last[trial.key]
            self._progress.end(trial.key, "failed" if state == "planned" else state)
            if state == "planned":
                self._display.note(f"{trial.name}: {detail['reason']}: {detail['message']}; it is tried again")
            elif state != "done":
                self._display.note(f"{trial.name} {state}: {detail['reason']}: {detail['message']}")


def cell_of(trial: Trial) -> str:
    """`snip@95`, `dense`: the trial's cell in the table."""
    return trial.pruner if trial.pruner == "dense" else f"{trial.pruner}@{100 * trial.sparsity:g}"
