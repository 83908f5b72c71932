"""The state of a sweep as its journal and its spools tell it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from search_spaces.sweep import load_sweep
from service import manifest, spool
from service.manifest import Ledger
from service.plan import progress_of
from trainables import paths
from trainables.errors import UserError


def journal_of(name: str, storage: Path) -> Ledger:
    """The ledger of a sweep that has been run; raises UserError for one that has not."""
    load_sweep(name)
    ledger = manifest.read(storage, name)
    if not ledger.epoch:
        raise UserError(f"sweep {name!r} has not been run in {storage}; there are: {', '.join(manifest.read_all(storage)) or 'none'}")
    return ledger


def describe(name: str, storage: Path) -> str:
    """Counts by state, then a line for each trial that is under way or ended badly."""
    ledger = journal_of(name, storage)
    counts = Counter(entry.state for entry in ledger.entries.values())
    lines = [f"{name}: " + ", ".join(f"{count} {state}" for state, count in counts.items()) + f"; last run by {ledger.owner}"]
    at = progress_of(storage, [ledger.entries[key].trial for key in ledger.keys_in("leased", "planned")])
    for key, entry in ledger.entries.items():
        if entry.state in ("failed", "diverged"):
            lines.append(f"  {entry.state:<9}{key}  {entry.trial.name}: {entry.detail.get('reason')}: {entry.detail.get('message')}")
        elif at.get(key):
            lines.append(f"  {entry.state:<9}{key}  {entry.trial.name}: {at[key]:,} of {entry.trial.updates:,} updates committed")
        for warning in warnings_of(storage, key):
            lines.append(f"  {'warning':<9}{key}  {entry.trial.name}: {warning}")
    return "\n".join(lines)


def warnings_of(storage: Path, key: str) -> list[str]:
    """What a trial's newest report on its masks warns of."""
    told = [placed.line["warnings"] for placed in spool.read(paths.spool(storage, key)) if placed.line.get("warnings") is not None]
    return list(told[-1]) if told else []
