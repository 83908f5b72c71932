"""The ledger: the state of every trial of a sweep, replayed from the lines of its journal. Pure: it touches no file."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from service.ledger.errors import IllegalTransitionError, StaleEpochError
from trainables.errors import UserError
from trainables.trial import Trial

# state now -> states that may follow. Anything else is a fault of the service, and raises with the trial's story.
TRANSITIONS: dict[str, tuple[str, ...]] = {
    "": ("planned",),
    "planned": ("leased", "done", "stopped"),  # done at once: another sweep of this storage did it; stopped: before it was its turn
    "leased": ("leased", "planned", "done", "failed", "diverged", "stopped"),  # leased again, by a later driver; planned: given back
    "failed": ("planned",),
    "diverged": ("planned",),
    "stopped": ("planned",),  # another sweep has done it since
    "done": (),
}
TERMINAL = ("done", "failed", "diverged", "stopped")


@dataclass(frozen=True, kw_only=True)
class Event:
    """One line of the journal: a trial enters a state. `epoch` is that of the driver's lease, higher for each later driver."""

    key: str
    state: str
    epoch: int = 0
    time: float = 0.0
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Entry:
    """What the journal says about one trial, the newest event last."""

    trial: Trial
    story: list[Event] = field(default_factory=list)

    @property
    def state(self) -> str:
        return self.story[-1].state if self.story else ""

    @property
    def detail(self) -> Mapping[str, Any]:
        return self.story[-1].detail if self.story else {}

    @property
    def reused(self) -> bool:
        """Whether another sweep did the trial."""
        return self.state == "done" and "sweep" in self.detail

    def tries(self) -> list[Event]:
        """What has happened since a person last asked for the trial: the first planning, or `resume`."""
        asked = max((i for i, event in enumerate(self.story) if event.detail.get("resumed")), default=0)
        return self.story[asked:]

    def failures(self, reason: str, reached: int) -> int:
        """How often the trial has failed for `reason` at its committed update `reached`, this time counted, without getting any further.

        Those before a person last asked for it do not count, nor those before it last came further: it is making its way."""
        count = 1
        for detail in (
            event.detail for event in reversed(self.tries()) if event.state == "failed" and event.detail.get("reason") == reason
        ):
            if detail.get("update", 0) < max(0, reached):
                break
            count += 1
        return count

    def size(self) -> int | None:
        """The largest stack that it may be tried in, where a failure has set one."""
        return min((event.detail["size"] for event in self.tries() if event.state == "planned" and "size" in event.detail), default=None)


class Ledger:
    """The state of every trial of a sweep, by key, in the order of planning. Pure: events in, states out."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.epoch = 0
        self.owner = ""

    def apply(self, event: Event) -> None:
        """Take in an event; raises IllegalTransitionError or StaleEpochError, and then changes nothing."""
        if event.epoch < self.epoch:
            raise StaleEpochError(f"{event.state} of {event.key} comes from epoch {event.epoch}; {self.owner} took over with {self.epoch}")
        if event.state == "opened":
            self.epoch, self.owner = event.epoch, str(event.detail.get("owner", "?"))
            return
        entry = self.entries.get(event.key)
        now = entry.state if entry else ""
        if event.state not in TRANSITIONS[now]:
            raise IllegalTransitionError(f"{event.key} cannot become {event.state!r}: {_story(entry)}")
        if entry is None:
            entry = self.entries[event.key] = Entry(Trial.from_json(event.detail["trial"]))
        entry.story.append(event)

    def take_back(self, event: Event) -> None:
        """Undo the last `apply`, which was of `event`, a trial's."""
        entry = self.entries[event.key]
        entry.story.pop()
        if not entry.story:
            del self.entries[event.key]

    def state(self, key: str) -> str:
        """`""` for a trial that the journal does not know."""
        return self.entries[key].state if key in self.entries else ""

    def keys_in(self, *states: str) -> list[str]:
        return [key for key, entry in self.entries.items() if entry.state in states]


def replay(content: bytes, where: str) -> tuple[Ledger, int]:
    """The ledger that a journal's lines make, and the length up to its last whole line: a crash may have torn the one after.

    Raises UserError, with `where` and the line's number, for a damaged line.
    """
    ledger, good = Ledger(), 0
    for number, raw in enumerate(content.splitlines(keepends=True), start=1):
        if not raw.endswith(b"\n"):
            break
        try:
            with contextlib.suppress(StaleEpochError):  # slipped through between a superseded driver's check and its write: not an event
                ledger.apply(Event(**json.loads(raw)))
        except UserError as error:  # a whole line, of a trial that this code cannot make
            raise UserError(f"{where} line {number}: {error}; put back what the trial needs, or remove its lines") from error
        except (ValueError, TypeError, KeyError, RuntimeError) as error:
            raise UserError(f"{where} line {number} is damaged ({error}); mend or remove that line") from error
        good += len(raw)
    return ledger, good


def _story(entry: Entry | None) -> str:
    if entry is None:
        return "it was never planned"
    steps = (f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(e.time))} {e.state} (epoch {e.epoch})" for e in entry.story)
    return f"{entry.trial.name}: " + " -> ".join(steps)
