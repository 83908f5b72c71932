"""The driver: hears what happens to the stacks and writes it into the manifest and onto the progress line."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from service import spool
from service.manifest import Manifest
from service.packing import smaller
from service.plan import Plan
from service.progress import Display, Progress
from trainables import paths
from trainables.trial import Stack, Trial


class Driver:
    """Observes a cluster for one run of a sweep; the manifest learns of an event before anybody else does."""

    def __init__(self, plan: Plan, journal: Manifest, storage: Path) -> None:
        self.plan, self._journal, self._storage = plan, journal, storage
        self._by_key = {trial.key: trial for trial in plan.trials}
        self._progress = Progress({trial.key: trial.updates for trial in plan.todo})
        self._display = Display()
        self._from: dict[str, int] = {}
        self._again: dict[str, int] = {}  # trial key -> size of stack to try it in once more
        self.device = plan.device
        self.interrupted = False

    def prepare(self) -> None:
        """Bring the manifest up to the plan: new trials, those that another sweep has done, and those to try again."""
        self._journal.plan(self.plan.trials)
        ledger = self._journal.ledger
        again = [*self.plan.elsewhere, *(trial.key for trial in self.plan.todo)]
        self._journal.record("planned", {key: {"retry": True} for key in again if ledger.state(key) in ("failed", "diverged")})
        self._journal.record("done", {key: {"sweep": sweep} for key, sweep in self.plan.elsewhere.items()})

    def resume_from(self, progress: Mapping[str, int]) -> None:
        """Where the trials of the coming stacks go on from, by key."""
        self._from = dict(progress)

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
        """Each member gets its own end: what its spool says, else the failure that ended the stack."""
        failure = news.get("failure") or {"reason": "error", "message": "the stack ended without a word"}
        for trial in stack.trials:
            end = spool.outcome(spool.read(paths.spool(self._storage, trial.key)))
            if end is None:
                size = smaller(len(stack), failure["reason"])
                if size:
                    self._again[trial.key] = size
                self._record(trial, "failed", failure, silent=bool(size))
            elif end["kind"] == "diverged":
                self._record(trial, "diverged", {"reason": "divergence", "message": end["reason"]})
            else:
                trained = (trial.updates - self._from.get(trial.key, 0)) * len(stack)
                rate = {"updates_per_second": round(trained / end["seconds"], 1)} if trained and end["seconds"] > 0 else {}
                self._record(trial, "done", {"device": self.device, "execution": end["execution"], "seconds": end["seconds"], **rate})
        self.idle()

    def again(self) -> tuple[list[Trial], int]:
        """The failed trials that get another try, planned again, and the size of stack for it."""
        keys, size = list(self._again), min(self._again.values(), default=1)
        self._again.clear()
        self._journal.record("planned", {key: {"retry": True, "size": size} for key in keys})
        return [self._by_key[key] for key in keys], size

    def leave(self) -> None:
        """Give back what is leased and not ended, so that the journal tells of no worker that is gone."""
        mine = [key for key in self._journal.ledger.keys_in("leased") if key in self._by_key]
        self._journal.record("planned", {key: {"reason": "interrupted"} for key in mine})
        if self.plan.todo:
            self._display.show(self._progress.line(), last=True)

    def idle(self) -> None:
        self._display.show(self._progress.line())

    def exit_code(self) -> int:
        """0 where every trial of the plan is done, else 1."""
        return 0 if all(self._journal.ledger.state(trial.key) == "done" for trial in self.plan.trials) else 1

    def _record(self, trial: Trial, state: str, detail: Mapping[str, Any], silent: bool = False) -> None:
        self._journal.record(state, {trial.key: detail})
        self._progress.end(trial.key, state)
        if state != "done" and not silent:
            self._display.note(f"{trial.name} {state}: {detail['reason']}: {detail['message']}")
