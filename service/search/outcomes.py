"""What has become of a suggestion, by the manifest and the spools of its trials. Pure bookkeeping; it needs no study."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from service.ledger.ledger import TERMINAL, Entry, Ledger
from service.spool import scores

UNDER_WAY, DONE, STOPPED, FAILED, INFEASIBLE = "under way", "done", "stopped", "failed", "infeasible"


@dataclass(frozen=True)
class Outcome:
    """`scores`: one per seed; `values`: the objectives, first their mean. Both are empty where the suggestion has no score.

    `why`: of one that failed or is infeasible."""

    state: str
    scores: tuple[float, ...] = ()
    values: tuple[float, ...] = ()
    why: str = ""


def known(keys: Sequence[str], ledger: Ledger) -> bool:
    """Whether all trials of a suggestion are the sweep's: `forget` may have taken some, or a plug-in is gone."""
    return all(ledger.state(key) for key in keys)


def under_way(keys: Sequence[str], ledger: Ledger) -> bool:
    return any(ledger.state(key) not in TERMINAL for key in keys)


def outcome(keys: Sequence[str], ledger: Ledger, storage: Path, objective: str) -> Outcome:
    """The outcome of a suggestion all of whose trials are the sweep's."""
    if under_way(keys, ledger):
        return Outcome(UNDER_WAY)
    entries = [ledger.entries[key] for key in keys]
    states = {entry.state for entry in entries}
    if states == {"done"}:
        return _done(entries, storage, objective)
    if why := next((str(entry.detail.get("message", "")) for entry in entries if entry.infeasible), ""):
        return Outcome(INFEASIBLE, why=why)
    if "stopped" in states:
        return Outcome(STOPPED)
    ended = next(entry for entry in entries if entry.state != "done")
    said = [str(ended.detail[name]) for name in ("reason", "message") if ended.detail.get(name)]
    return Outcome(FAILED, why=": ".join(said) or ended.state)


def _done(entries: Sequence[Entry], storage: Path, objective: str) -> Outcome:
    """A suggestion whose every seed is done: a score that is missing or not finite leaves it without one."""
    trials = [entry.trial for entry in entries]
    seeds = [scores.last(storage, [trial]) for trial in trials]
    density = scores.effective_density(storage, trials) if objective == "pareto" else 0.0
    found = [score for score in seeds if score is not None and math.isfinite(score)]
    if len(found) < len(seeds):
        return Outcome(FAILED, why="a score is not finite" if None not in seeds else "a seed has no score after its last update")
    if density is None or not math.isfinite(density):
        return Outcome(FAILED, why="the actor's effective density is not known")
    return Outcome(DONE, tuple(found), (fmean(found), *([density] if objective == "pareto" else [])))
