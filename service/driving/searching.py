"""What a driver asks of the search of an adaptive sweep, and tells it. A grid has none: nothing is suggested and nothing stopped."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.driving.elsewhere import Elsewhere
from service.ledger import stop_requests
from service.ledger.manifest import Manifest
from service.planning.plan import Plan
from service.spool import lines, scores
from service.storage import paths
from service.terminal.waiting import waiting
from trainables.trial import Stack, Trial

if TYPE_CHECKING:
    from service.search.studies import Adaptive


class Searching:
    """The search of one run, with what it has not heard of yet."""

    def __init__(
        self,
        adaptive: Adaptive | None,
        plan: Plan,
        manifest: Manifest,
        storage: Path,
        elsewhere: Elsewhere,
        refresh: Callable[[Sequence[str]], None],
    ) -> None:
        """`refresh` as for the driver."""
        self._adaptive, self._plan, self._manifest, self._storage = adaptive, plan, manifest, storage
        self._elsewhere, self._refresh = elsewhere, refresh
        self._unheard: dict[str, int] = {}  # by the first member's key: the evaluation of a stack that the search has not heard of yet

    @property
    def learns(self) -> bool:
        """Whether there is a search."""
        return self._adaptive is not None

    @property
    def scored(self) -> bool:
        """Whether any suggestion has a score."""
        return self._adaptive is not None and self._adaptive.scored

    @property
    def left(self) -> int:
        """How many suggestions are still to come."""
        return self._adaptive.left if self._adaptive else 0

    @property
    def answers(self) -> tuple[str, ...]:
        """The ends of a trial that a run is for: to a search, a stopped or a diverged trial is an answer, too."""
        return ("done", "stopped", "diverged") if self._adaptive else ("done",)

    def restore(self) -> dict[str, Trial]:
        """The trials of earlier suggestions that are not finished, by key."""
        if not self._adaptive:
            return {}
        with waiting("bringing the study up to date with the sweep"):  # long where a study of hundreds is lost
            unfinished = {trial.key: trial for trial in self._adaptive.restore()}
        if self._plan.sweep.search and self._plan.sweep.search.stop == "none":  # what an earlier run has asked for is no longer wanted
            stop_requests.withdraw(self._storage, self._plan.name, unfinished)
        return unfinished

    def suggest(self, at_once: int) -> dict[str, Trial]:
        """The trials of the next suggestions, about `at_once` of them, which the manifest then has; by key."""
        if not self._adaptive:
            return {}
        made, ledger = self._adaptive.ask(math.ceil(at_once / len(self._plan.sweep.seeds))), self._manifest.ledger
        trials = {trial.key: trial for each in made for trial in each.trials}
        new = [key for key in trials if key not in ledger.entries]
        # What another study of the sweep has stopped is no answer to this one, which may compare it with others or stop nothing.
        told = {key for each in made for said in ledger.suggestions.get(each.study, ()) for key in said["keys"]}
        stopped = [key for key in trials if ledger.state(key) == "stopped" and key not in told]
        stop_requests.withdraw(self._storage, self._plan.name, stopped)
        self._manifest.suggest([each.to_json() for each in made], trials.values(), again=stopped)
        if known := self._elsewhere.done(key for key in new if key in self._plan.others):  # now that our journal names them
            self._manifest.record("done", {key: {"sweep": sweep} for key, sweep in known.items()})
        self._adaptive.add(made)
        self._adaptive.settle()
        return trials

    def settle(self) -> None:
        """Trials have ended: tell the search what has become of them."""
        if self._adaptive:
            self._adaptive.settle()

    def reported(self, stack: Stack, news: Mapping[str, Any]) -> None:
        """A stack has got further, perhaps to an evaluation."""
        if "evaluated" in news:
            self._unheard[stack.lead.key] = news["evaluated"]
        if stack.lead.key in self._unheard:
            self._hear(stack)

    def over(self, stack: Stack) -> None:
        """A stack has ended: hear what there is of it."""
        self._hear(stack)
        self._unheard.pop(stack.lead.key, None)

    def _hear(self, stack: Stack) -> None:
        """Ask the search which members the newest scores of a stack stop, and which others with the same settings.

        Scores are read from the spools, which on S3 come with the next checkpoint; until then this is called again."""
        if self._adaptive:
            self._refresh([trial.key for trial in stack.trials])
            if self._unheard.get(stack.lead.key, 0) in scores.curve(self._storage, [stack.lead]):
                self._unheard.pop(stack.lead.key, None)
            stop_requests.request(self._storage, self._plan.name, self._adaptive.trials_to_stop(trial.key for trial in stack.trials))

    def asked_to_stop(self, stack: Stack) -> dict[str, dict[str, Any]]:
        """The members that the search wants stopped and that have not ended, with reason, message and how far they got, by key."""
        if not self._adaptive:
            return {}
        asked = stop_requests.requested(self._storage, self._plan.name, [trial.key for trial in stack.trials])
        written = {key: lines.read(paths.spool(self._storage, key)) for key in asked}
        return {
            key: {**why, "stopped_at": max(0, lines.committed_update(written[key]))}
            for key, why in asked.items()
            if lines.end_line(written[key]) is None
        }
