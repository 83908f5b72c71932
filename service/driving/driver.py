"""The driver schedules stacks, records their events in the manifest, and keeps the progress line up to date."""

from __future__ import annotations

import contextlib
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from service.driving.elsewhere import Elsewhere
from service.driving.endings import Endings, Event, Why
from service.driving.keep import Keep
from service.driving.limits import LimitReachedError, Limits
from service.driving.pool import Pool
from service.driving.queue import Queue, Waiting
from service.driving.searching import Searching
from service.driving.shared import Shared
from service.driving.workers.silence import Silence
from service.ledger import stop_requests
from service.ledger.ledger import LIMIT, TERMINAL
from service.ledger.manifest import Manifest
from service.planning.plan import Plan, cost, limits, progress_of, stack_size
from service.scheduling.shares import Share
from service.spool import lines
from service.storage import paths
from service.terminal.live_line import Progress
from service.terminal.words import duration
from trainables.errors import UserError
from trainables.trial import Stack, Trial

if TYPE_CHECKING:
    from service.search.studies import Adaptive

LOOK_EVERY = 2.0  # seconds, up to twice as many, between two looks at the sweeps that train what we wait for
GOLDEN = 0.618  # multiples of it, modulo 1, are spread evenly, however many there are


class Screen(Protocol):
    """Where the progress line goes: service/terminal/display.py."""

    def show(self, line: str, *, last: bool = False) -> None: ...
    def note(self, line: str) -> None: ...


class Driver:
    """Conducts a cluster through one run of a sweep; an event is in the manifest before anybody else learns of it."""

    def __init__(
        self,
        plan: Plan,
        manifest: Manifest,
        storage: Path,
        screen: Screen,
        *,
        refresh: Callable[[Sequence[str]], None] = lambda keys: None,
        adaptive: Adaptive | None = None,
        tell: Callable[[str, str], None] = lambda event, text: None,
    ) -> None:
        """`refresh` brings the files of trials, by key, from where their workers left them; `adaptive` suggests more trials; `tell` takes
        news of stalled workers."""
        self.plan, self._manifest, self._storage, self._screen, self._refresh = plan, manifest, storage, screen, refresh
        self._options = plan.settings.options
        self._trials = {trial.key: trial for trial in plan.trials}
        self._todo = {trial.key: trial for trial in plan.todo}
        self._progress, self._silence = Progress({}), Silence(storage, plan.name, screen, self._options.stalled_after, tell)
        self._again: list[tuple[float, Trial]] = []  # when, and which: trials that wait for another try
        self._keep = Keep(storage, self._options.keep)
        self._limits, self._limit = Limits(self._options), ""
        self._elsewhere = Elsewhere(storage, plan.name)
        self._search = Searching(adaptive, plan, manifest, storage, self._elsewhere, refresh)
        self._shared = Shared(storage, plan.name, screen, self._options)
        self.waits_for: dict[str, str] = {}  # trials that another sweep trains now, by key, and that sweep
        self._look = 0.0  # when to look after them next
        self._out: set[str] = set()  # keys of the trials that were handed out and have not ended
        self._from: dict[str, int] = {}
        self.first_update = math.inf  # when any trial had first got further than it was before, by time.monotonic
        self._endings = Endings(storage, manifest, self._from)
        self._left: dict[str, dict[str, int]] = {}  # of the trials whose workers have left: `update` they reached, and the one `kept`
        self.device, self._at_once = plan.device, plan.stack_size  # how many trials a search suggests at once
        self._queue: Waiting = Queue(plan.device, self._options, plan.stack_size)

    def prepare(self) -> None:
        """Bring the manifest up to the plan: new trials, those that another sweep has done, and those to try again.

        A part plans a trial when it hands it out, so that its manifest holds what it has trained."""
        ledger = self._manifest.ledger
        if not self.plan.part:
            self._manifest.plan(self.plan.trials)
        again = [*self.plan.elsewhere, *(trial.key for trial in self.plan.todo)]
        # What a search has stopped is here only where another sweep has done it since, or where the sweep is a grid now.
        asked = [key for key in again if ledger.state(key) in ("failed", "diverged", "stopped")]
        stop_requests.withdraw(self._storage, self.plan.name, [key for key in asked if ledger.state(key) == "stopped"])
        self._manifest.record("planned", {key: {"retry": True, "resumed": True} for key in asked})
        # Asked again, now that our journal names them: what `forget` has removed since the plan was made is to be trained, and from here
        # on it removes none of them.
        there = self._elsewhere.done(self.plan.elsewhere) if self.plan.elsewhere else {}
        undone = [key for key in self.plan.elsewhere if ledger.state(key) not in ("", "done")]
        self._todo |= {key: self._trials[key] for key in undone if key not in there}
        reused = {key: there[key] for key in undone if key in there}
        self._manifest.record("done", {key: {"sweep": sweep} for key, sweep in reused.items()})
        self._todo |= self._search.restore()
        self._trials |= self._todo
        self._expect(self._todo)

    @property
    def measured(self) -> Mapping[str, Sequence[float]]:
        """Dense updates per second of the stacks that are done, by algorithm."""
        return self._endings.measured

    def has_work(self) -> bool:
        """Whether there is anything to train."""
        return bool(self._todo or self._search.left)

    def begin(
        self, device: str, max_concurrent: int, fit: Callable[[Trial], int] | None = None, place: Mapping[str, Any] | None = None
    ) -> None:
        """The cluster is known: make stacks of all that the plan has to do, of which `max_concurrent` train at a time.

        `fit` returns how many trials like the given one a stack is best made of. `place`: what the journal says of each stack's."""
        # A search on CPUs asks for one suggestion at a time and learns from each, however many trials there are already.
        size = self._options.stack_size or stack_size(device, 0 if self._search.learns else len(self._todo), max_concurrent)
        self.device, self._queue = device, (queue := Queue(device, self._options, size, fit, place))
        self._at_once = size
        self._silence.forget()
        self._shared.forget()
        self._expect(self._todo)
        self._pack(self._todo.values())
        # Drivers that start at once on the same stacks would meet at each of them: a part begins somewhere else.
        queue.rotate(self.plan.part * GOLDEN % 1)

    def begin_on_all(self, pool: Pool) -> None:
        """The cluster is known, and its places are of several kinds: `pool` decides what trains where."""
        self._queue, self.device = pool, "all"
        self._silence.forget()
        self._shared.forget()
        self._expect(self._todo)
        if self._options.pin:
            pool.pin(self._trials.values(), self._began_on(self._trials))
        self._pack(self._todo.values())
        on = Counter(kind for key, kind in self._began_on(self._todo).items() if self._from.get(key))
        if on:
            counts = ", ".join(f"{count} on {kind}" for kind, count in sorted(on.items()))
            self._screen.note(f"trials already started continue on the kind of device they started on: {counts}")
        for kind, count in sorted(pool.missing().items()):
            self._screen.note(
                f"{count} trials started on {kind}, which is not here, and wait for it; --device cpu or cuda would continue them"
            )

    def _began_on(self, keys: Iterable[str]) -> dict[str, str]:
        """The kind of device of each of these trials that was trained on one of several, by key."""
        entries = ((key, self._manifest.ledger.entries.get(key)) for key in keys)
        kinds = ((key, next((e.detail["on"] for e in reversed(entry.events) if "on" in e.detail), None)) for key, entry in entries if entry)
        return {key: kind for key, kind in kinds if kind}

    def _take(self, kind: str) -> Stack | None:
        if not len(self._queue):
            self._suggest()
        return self._queue.take(kind, time.monotonic())

    def next(self, kind: str = "") -> Stack | None:
        """The stack to train now, on a place of a kind where there are several; None where there is none, for now (`busy`) or for good."""
        now = time.monotonic()
        due = [trial for when, trial in self._again if when <= now]
        if due:
            self._again = [(when, trial) for when, trial in self._again if when > now]
            self._pack(due)
        if self.waits_for and now >= self._look:
            self._look_elsewhere(now)
        while (stack := self._take(kind)) is not None:
            if done := self._elsewhere.done(trial.key for trial in stack.trials):
                self._queue.ended(stack, False, time.monotonic())
                self._take_over(done)
                self._pack(trial for trial in stack.trials if trial.key not in done)
                continue
            if theirs := self._elsewhere.training(trial.key for trial in stack.trials):
                self._leave_to_others(stack, theirs)
                continue
            if asked := self._search.asked_to_stop(stack):
                self._queue.ended(stack, False, time.monotonic())
                self._stop(asked)
                self._pack(trial for trial in stack.trials if trial.key not in asked)
                continue
            self._manifest.plan(stack.trials)
            place = self._queue.place_of(stack)
            self._manifest.record("leased", {trial.key: {"size": len(stack), **place} for trial in stack.trials})
            # They may have looked before that and recorded after it. Of two that see each other now, both leave it and look again later.
            if theirs := self._elsewhere.training(trial.key for trial in stack.trials):
                self._leave_to_others(stack, theirs)
                continue
            self._out |= {trial.key for trial in stack.trials}
            return stack
        return None

    def busy(self) -> bool:
        """Whether there may be more to do later. A part does not wait for what others train: the sweep's own driver does."""
        return bool(self._out or self._again or len(self._queue) or (self.waits_for and not self.plan.part))

    def started(self, stack: Stack) -> None:
        now = time.monotonic()
        self._limits.started(stack, self._queue.place_of(stack).get("share", 0.0))
        self._silence.started(stack, now)
        self._queue.started(stack, self._from.get(stack.lead.key, 0), now)
        for trial in stack.trials:
            self._progress.start(trial.key, self._from.get(trial.key, 0), now)

    def reported(self, stack: Stack, news: Mapping[str, Any]) -> None:
        now = time.monotonic()
        self._silence.news(stack, now)
        if "update" in news:
            self._queue.reached(stack, news["update"], now)
        for trial in stack.trials:
            if "update" in news:
                self._progress.at(trial.key, news["update"], now)
                if news["update"] > self._from.get(trial.key, 0):
                    self.first_update = min(self.first_update, now)
            score = news.get("scores", {}).get(trial.key)
            if score is not None and score == score:  # not NaN
                self._progress.score(trial.key, trial.cell, score)
        self._search.reported(stack, news)
        if "waits" in news:
            failed, pause = self._endings.judged(news["waits"]["failure"]), duration(news["waits"]["seconds"])
            self._screen.note(
                f"{stack.lead.name}: {failed['message']}; its worker waits {pause}, as the host would fail the next stack, too"
            )
        self.idle()

    def ended(self, stack: Stack, news: Mapping[str, Any]) -> None:
        """Record each member's end; one fsync for all."""
        self._limits.ended(stack, news.get("seconds"))
        failure = self._silence.ended(stack) or news.get("failure") or {"reason": "error", "message": "the stack ended without a reason"}
        self._search.over(stack)
        why = Why(failure, self._search.asked_to_stop(stack), self._shared.why_left(stack))
        self._refresh([trial.key for trial in stack.trials])
        place = {"device": self._queue.device_of(stack), **self._queue.place_of(stack)}
        endings, now = self._endings.of(stack, why, place, self.device), time.monotonic()
        self._again += [(now + ending.again, ending.trial) for ending in endings if ending.again is not None]
        self.waits_for |= {ending.trial.key: "another sweep" for ending in endings if ending.elsewhere}
        events = [event for ending in endings for event in ending.events]
        self._manifest.record_all(events)
        self._keep.done([key for key, state, _ in events if state == "done"])
        self._queue.ended(stack, all(state == "done" for _, state, _ in events), time.monotonic())
        self._shared.ended(stack)
        self._tell(stack, events)
        self._out -= {trial.key for trial in stack.trials}
        self._search.settle()
        self.idle()

    def wanted(self, kind: str) -> int:
        """How many more stacks could train now on places of a kind, or on any."""
        return self._queue.waiting(kind) + self._search.left

    def interruptible(self, stacks: Sequence[Stack]) -> list[Stack]:
        """Those that have made updates since they began here, so that each leaves with something done; first those with most left to do."""
        begun = [stack for stack in stacks if self._progress.reached(stack.lead.key) > self._from.get(stack.lead.key, 0)]
        return sorted(begun, key=lambda stack: self._progress.reached(stack.lead.key) - stack.lead.updates)

    def yields(self, stack: Stack) -> None:
        """A stack is asked to leave its place to another sweep; its trials continue later."""
        self._shared.leaves(stack)

    def shared(self, share: Share) -> None:
        """What this sweep may use of a cluster that others use, too."""
        self._shared.is_now(share)

    def not_shared(self, why: str) -> None:
        self._screen.note(why)

    def spent(self) -> bool:
        """Whether the run has reached a limit before it is done: the workers are then to commit what they have, and `end` is called."""
        if not self._limit and self.has_more():
            self._limit = self._limits.reached()
        return bool(self._limit)

    def has_more(self) -> bool:
        """Whether anything is left to train, now or later."""
        return self.busy() or bool(self._search.left)

    def end(self) -> None:
        """Raise LimitReachedError."""
        raise LimitReachedError(self._limit)

    def left(self, stack: Stack, update: int, kept: int) -> None:
        """A worker has left because we leave: its stack had reached `update`, of which a checkpoint has `kept`."""
        self._left |= {trial.key: {"update": update, "kept": kept} for trial in stack.trials if update}

    def leave(self) -> None:
        """Give back what is leased and not ended, also by a driver before, so that the manifest names none that is gone. Idempotent."""
        leased = self._manifest.ledger.keys_in("leased")
        why = {"reason": LIMIT, "message": self._limit} if self._limit else {"reason": "interrupted"}
        self._manifest.record("planned", {key: {**why, **self._reached(key)} for key in leased})
        if self._limit:
            self._manifest.end_at_limit(self._limit)

    def _leave_to_others(self, stack: Stack, theirs: Mapping[str, str]) -> None:
        """Wait for what other sweeps train, and make another stack of the rest."""
        self._queue.ended(stack, False, time.monotonic())
        leased = [trial.key for trial in stack.trials if self._manifest.ledger.state(trial.key) == "leased"]
        self._manifest.record("planned", {key: {"reason": "elsewhere"} for key in leased})
        for name in dict.fromkeys(theirs.values()):
            if name not in self.waits_for.values():
                self._screen.note(f"sweep {name!r} is training some of these trials; waiting for them")
        self.waits_for |= theirs
        self._look = time.monotonic() + random.uniform(1, 2) * LOOK_EVERY
        self._pack(trial for trial in stack.trials if trial.key not in theirs)

    def _look_elsewhere(self, now: float) -> None:
        """Take over what other sweeps have done meanwhile as done, and train what they have left."""
        self._look = now + random.uniform(1, 2) * LOOK_EVERY
        still = self._elsewhere.training(self.waits_for)
        over = [key for key in self.waits_for if key not in still]
        self.waits_for = still
        if not over:
            return
        done = self._elsewhere.done(over)
        self._take_over(done)
        self._pack(self._trials[key] for key in over if key not in done)

    def _take_over(self, done: Mapping[str, str]) -> None:
        """Record as done what other sweeps have done, as far as the manifest has it."""
        self._refresh(list(done))
        self._manifest.record("done", {key: {"sweep": name} for key, name in done.items() if self._manifest.ledger.state(key)})
        for key in done:
            self._progress.end(key, "done")
        self._search.settle()

    def _reached(self, key: str) -> dict[str, int]:
        """How far a trial is and how much of that is kept, by its worker or else by the newest reports; nothing where none has come."""
        if key in self._left or not (update := self._progress.reached(key)):
            return self._left.get(key, {})
        kept = 0
        with contextlib.suppress(UserError, OSError):
            kept = max(0, lines.committed_update(lines.read(paths.spool(self._storage, key))))
        return {"update": max(update, kept), "kept": kept}

    def shipped(self) -> None:
        """MLflow has everything: what is not to be kept of finished trials goes, also what earlier runs have left."""
        entries = self._manifest.ledger.entries
        own = [key for key in self._trials if key in entries and entries[key].state == "done" and not entries[key].reused]
        self._keep.shipped(own)

    def last_line(self) -> None:
        if self._todo:
            self._screen.show(self._progress.line(), last=True)

    def idle(self) -> None:
        for kind in self._queue.gone():
            self._screen.note(f"{kind} is no longer here: trials that started on it wait until it is back, the others continue elsewhere")
        self._screen.show(self._progress.line(self._silence.look(), self.waits_for.values()))

    def silent(self) -> list[Stack]:
        """The stacks whose workers are silent for longer than usual."""
        return self._silence.silent()

    def stalled(self) -> list[Stack]:
        """The stacks whose workers are to be ended now; each is named once."""
        return self._silence.over_limit()

    def exit_code(self) -> int:
        """0 where every trial of the plan is done, else 1; of a part, every trial that it has trained.

        To a search, an infeasible trial is an answer, too, but it needs a score."""
        ledger = self._manifest.ledger
        mine = ledger.entries.keys() - self.waits_for.keys() if self.plan.part else self._trials.keys()
        entries = [ledger.entries[key] for key in self._trials if key in mine]
        if self._search.learns:
            if entries and not self._search.scored:
                return 1
            entries = [entry for entry in entries if not entry.infeasible]
        return 0 if all(entry.state in self._search.answers for entry in entries) else 1

    def _suggest(self) -> None:
        """Make stacks of suggestions, as far as there are any, of which one round fills a stack."""
        while not len(self._queue) and self._search.left:
            made = self._search.suggest(self._at_once)
            state = self._manifest.ledger.state
            todo = {key: trial for key, trial in made.items() if key not in self._trials and state(key) not in TERMINAL}
            self._trials |= made
            self._todo |= todo
            self._expect(todo)
            self._pack(todo.values())

    def _stop(self, asked: Mapping[str, Mapping[str, Any]]) -> None:
        """Stop trials that nobody trains now."""
        self._manifest.record("stopped", asked)
        for key in asked:
            self._progress.end(key, "stopped")
        self._search.settle()

    def _expect(self, trials: Mapping[str, Trial]) -> None:
        later = self._search.left * len(self.plan.sweep.seeds)
        goal = {trial.key: trial.updates for trial in trials.values()}
        costs = {
            trial.key: cost(trial, self.plan.rates, "cpu" if self.device == "all" else self.device, self._options.execution)
            for trial in trials.values()
        }
        self._progress.expect(goal, later, self.plan.sweep.updates, costs)

    def _pack(self, trials: Iterable[Trial]) -> None:
        todo = list(trials)
        progress = progress_of(self._storage, todo)
        self._from |= progress
        self._queue.add(todo, progress, limits(self._manifest.ledger, todo), self._began_on([trial.key for trial in todo]))

    def _tell(self, stack: Stack, events: Iterable[Event]) -> None:
        last = {key: (state, detail) for key, state, detail in events}
        for trial in stack.trials:
            state, detail = last[trial.key]
            self._progress.end(trial.key, "failed" if detail.get("retry") else state)
            if state == "planned" and not detail.get("retry"):
                continue
            if state == "planned":
                self._screen.note(f"{trial.name}: {detail['reason']}: {detail['message']}; it will be retried")
            elif state != "done":
                self._screen.note(f"{trial.name} {state}: {detail['reason']}: {detail['message']}")
