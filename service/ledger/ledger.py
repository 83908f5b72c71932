"""The ledger: the state of every trial of a sweep, replayed from the lines of its journal. Pure: it touches no file."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from service.ledger.errors import IllegalTransitionError, StaleEpochError
from trainables.collector import paused
from trainables.errors import UserError
from trainables.trial import Checked, Trial

# Current state -> states that may follow. Anything else is a fault of the service and raises, with all events of the trial.
TRANSITIONS: dict[str, tuple[str, ...]] = {
    "": ("planned",),
    "planned": ("leased", "done", "stopped"),  # done at once: by another sweep of this storage; stopped: before training
    "leased": ("leased", "planned", "done", "failed", "diverged", "stopped"),  # leased again: by a later driver; planned: given back
    "failed": ("planned",),
    "diverged": ("planned",),
    "stopped": ("planned",),  # another sweep has finished it since
    "done": (),
}
ALL_FORGOTTEN = b'"all_forgotten": true'  # in an event that removes every trial; no text within JSON can hold it
LIMIT = "limit"  # why a trial was given back, or a sweep ended: the run had used what it may
TERMINAL = ("done", "failed", "diverged", "stopped")


@dataclass(frozen=True, kw_only=True)
class Event:
    """One line of the journal: a trial enters a state. `epoch` numbers the leases of the sweep; each later driver has a higher one."""

    key: str
    state: str
    epoch: int = 0
    time: float = 0.0
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Entry:
    """The events of one trial, the newest last."""

    trial: Trial
    events: list[Event] = field(default_factory=list)

    @property
    def state(self) -> str:
        return self.events[-1].state if self.events else ""

    @property
    def detail(self) -> Mapping[str, Any]:
        return self.events[-1].detail if self.events else {}

    @property
    def begun(self) -> bool:
        """Whether more than planning has happened to the trial. Until then its run, if there is one, is another sweep's to keep up."""
        return len(self.events) > 1

    @property
    def reused(self) -> bool:
        """Whether another sweep trained the trial."""
        return self.state == "done" and "sweep" in self.detail

    @property
    def infeasible(self) -> bool:
        """Whether training refuses the trial, which it would do again: e.g. its mask leaves no path through a network."""
        return self.state == "failed" and self.detail.get("reason") == "user_error"

    def tries(self) -> list[Event]:
        """The events since a user last asked for the trial: since the first plan or the last `resume`."""
        start = max((i for i, event in enumerate(self.events) if event.detail.get("resumed")), default=0)
        return self.events[start:]

    def failures_without_progress(self, reason: str, committed: int) -> int:
        """How often the trial has failed for `reason` in a row without progress past update `committed`, this failure included.

        Failures before the user's last `resume` do not count, nor do those before it last made progress."""
        count = 1
        for detail in (
            event.detail for event in reversed(self.tries()) if event.state == "failed" and event.detail.get("reason") == reason
        ):
            if detail.get("update", 0) < max(0, committed):
                break
            count += 1
        return count

    def stack_limit(self) -> int | None:
        """The largest stack that failures still allow; None without such a failure."""
        return min((event.detail["size"] for event in self.tries() if event.state == "planned" and "size" in event.detail), default=None)


class Ledger:
    """The state of every trial of a sweep, by key, in the order of planning. Pure: events in, states out."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.unreadable: dict[str, str] = {}  # trials that cannot be constructed here, by key, and why: e.g. of a plug-in that is gone
        self.epoch = 0
        self.owner = ""
        self.first: dict[str, Trial] = {}  # what the first run planned, by key, also where it was forgotten since
        self._first_epoch = 0
        self.copies = False  # whether any trial was ever planned as a copy of this sweep's own (`--fresh`)
        self._passed = 0  # events of trials that were forgotten, and those that say so
        self.forgotten: set[str] = set()  # keys of trials whose removal has begun and that were not planned again
        self.limit = ""  # that ended the newest run, e.g. `--max-hours=2`; empty where none did
        self.settings: Mapping[str, Any] = {}  # of the newest run; empty where older code wrote the journal
        self.by: dict[int, Mapping[str, str]] = {}  # epoch -> who has asked for that run; older code did not say
        self.begun = ""  # tells this journal from every other, also from one that was forgotten and begun anew
        self.suggestions: dict[str, list[Mapping[str, Any]]] = {}  # by study: all that a search has suggested, in order

    def apply(self, event: Event, trial_of: Callable[[Mapping[str, Any]], Trial] = Trial.from_json) -> None:
        """Apply an event. Raises IllegalTransitionError or StaleEpochError and then changes nothing. A trial that cannot be constructed is
        set aside, with all that happens to it, until it is planned again as one that can."""
        if event.epoch < self.epoch:
            raise StaleEpochError(f"{event.state} of {event.key} comes from epoch {event.epoch}; {self.owner} took over with {self.epoch}")
        if event.state == "opened":
            self.epoch, self.owner = event.epoch, str(event.detail.get("owner", "?"))
            if "forgotten" in event.detail:
                self._forget(event.detail["forgotten"])
            if not self.begun or event.detail.get("all_forgotten"):
                self.begun = hashlib.sha256(f"{self.owner} {event.time!r}".encode()).hexdigest()[:8]
                self.suggestions = {}
            for each in event.detail.get("suggested", ()):
                self.suggestions.setdefault(each["study"], []).append(each)
            self.settings, self.limit = event.detail.get("settings", {}), str(event.detail.get("limit", ""))
            if "by" in event.detail:
                self.by[event.epoch] = event.detail["by"]
            return
        if event.key in self.unreadable and "trial" not in event.detail:
            self._passed += 1
            return
        entry = self.entries.get(event.key)
        now = entry.state if entry else ""
        if event.state not in TRANSITIONS[now]:
            raise IllegalTransitionError(f"{event.key} cannot become {event.state!r}: {_history(entry)}")
        if entry is None:
            try:
                entry = Entry(trial_of(event.detail["trial"]))
            except UserError as error:
                self.unreadable[event.key] = str(error)
                self._passed += 1
                return
            self.entries[event.key] = entry
            self.unreadable.pop(event.key, None)
            self.forgotten.discard(event.key)
            self.copies = self.copies or bool(entry.trial.fresh)
            if not self.first:
                self._first_epoch = event.epoch
            if event.epoch == self._first_epoch:
                self.first.setdefault(event.key, entry.trial)
        entry.events.append(event)
        self._suggested(event.detail)

    def _suggested(self, detail: Mapping[str, Any]) -> None:
        """Older code's journals and archives have the suggestion with each of its trials."""
        if "study" in detail:
            known = self.suggestions.setdefault(detail["study"], [])
            if detail["keys"] not in (each["keys"] for each in known):
                known.append({name: detail[name] for name in ("study", "params", "keys")})

    def _forget(self, keys: Iterable[str]) -> None:
        self._passed += 1
        for key in keys:
            self.unreadable.pop(key, None)
            if entry := self.entries.pop(key, None):
                self._passed += len(entry.events)
            self.forgotten.add(key)

    @property
    def adaptive(self) -> bool:
        """Whether its trials are suggestions of a search."""
        return any(self.suggestions.values())

    @property
    def length(self) -> int:
        """How many events there have been, which only grows."""
        return self._passed + sum(len(entry.events) for entry in list(self.entries.values()))

    def undo(self, event: Event) -> None:
        """Undo the last `apply`, of `event`, which must belong to a trial or say what was suggested."""
        for each in event.detail.get("suggested", ()):
            self.suggestions[each["study"]].pop()
        if not event.key:
            return
        entry = self.entries[event.key]
        entry.events.pop()
        if not entry.events:
            del self.entries[event.key]
            self.first.pop(event.key, None)

    def state(self, key: str) -> str:
        """`""` for a trial that was never planned."""
        return self.entries[key].state if key in self.entries else ""

    def kept(self, epoch: int) -> str:
        """`kept 7,200 of 7,205 updates` of the trials that the driver of `epoch` gave back when it left; empty where it gave back none."""
        newest = [entry.events[-1] for entry in self.entries.values()]
        given_back = [event.detail for event in newest if event.epoch == epoch and "kept" in event.detail]
        update, kept = (sum(detail[name] for detail in given_back) for name in ("update", "kept"))
        return f"kept {kept:,} of {update:,} updates" if given_back else ""

    def asked_by(self, entry: Entry | None = None) -> Mapping[str, str]:
        """Who has asked for the newest run that trained a trial of this sweep, or for the newest of all; empty where that is not known."""
        if entry is None:
            return self.by[max(self.by)] if self.by else {}
        epochs = [event.epoch for event in entry.events if event.state == "leased"]
        return self.by.get(epochs[-1], {}) if epochs and not entry.reused else {}

    def left_out(self) -> str:
        """How many trials are unreadable, and why the first of them is; empty where none is."""
        why = next(iter(self.unreadable.values()), "").partition(";")[0]
        which = "1 trial" if len(self.unreadable) == 1 else f"{len(self.unreadable)} trials"
        return f"{which} cannot be read here and left out ({why})" if why else ""

    def keys_in(self, *states: str) -> list[str]:
        return [key for key, entry in self.entries.items() if entry.state in states]


def replay(content: bytes, where: str) -> tuple[Ledger, int]:
    """The ledger after all whole lines of a journal, and their length in bytes; a crash may have left half a line after them.

    Raises UserError, which names `where` and the line number, for a damaged line.
    """
    try:
        return extend(Ledger(), content, where, 0)
    except UserError:
        whole = content[: content.rfind(b"\n") + 1]
        if (mark := whole.rfind(ALL_FORGOTTEN)) < 0:
            raise
        return extend(Ledger(), content, where, whole.rfind(b"\n", 0, mark) + 1)  # what comes before is being removed


@paused()
def extend(ledger: Ledger, content: bytes, where: str, length: int) -> tuple[Ledger, int]:
    """The same with a ledger that has the first `length` bytes; one that has met a damaged line is of no more use."""
    before, trial_of = content.count(b"\n", 0, length), Checked().from_json
    for number, raw in enumerate(content[length:].splitlines(keepends=True), start=before + 1):
        if not raw.endswith(b"\n"):
            break
        try:
            with contextlib.suppress(StaleEpochError):  # written after a takeover, between the old driver's check and its write
                ledger.apply(
                    Event(**json.loads(raw.decode(errors="surrogatepass"))), trial_of
                )  # given bytes, it would look for their encoding
        except (ValueError, TypeError, KeyError, RuntimeError) as error:
            raise UserError(f"{where} line {number} is damaged ({error}); repair or remove that line") from error
        length += len(raw)
    return ledger, length


def _history(entry: Entry | None) -> str:
    if entry is None:
        return "it was never planned"
    steps = (f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(e.time))} {e.state} (epoch {e.epoch})" for e in entry.events)
    return f"{entry.trial.name}: " + " -> ".join(steps)
