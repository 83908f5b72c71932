"""What other sweeps of a storage have made of a sweep's trials: what is done for one is done for all."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from pathlib import Path

from search_spaces.sweep import load_sweep
from service.ledger import manifest
from service.ledger.ledger import TERMINAL, Event, Ledger
from service.storage import paths, trial_objects
from trainables.errors import UserError


def done_elsewhere(ledgers: Mapping[str, Ledger], name: str, keys: Collection[str] | None = None) -> dict[str, str]:
    """Trials, of `keys` where given, that another sweep has done and this one has not: trial key -> the other sweep."""
    here, found = set(ledgers[name].keys_in("done")) if name in ledgers else set(), dict[str, str]()
    for other, ledger in ledgers.items():
        if other != name:
            done = ledger.keys_in("done") if keys is None else [key for key in keys if ledger.state(key) == "done"]
            found |= {key: _trainer(ledger, key, other, name) for key in done if key not in here}
    return found


def settle(ledgers: Mapping[str, Ledger], name: str) -> Ledger:
    """The ledger of the sweep, in which what another sweep has done since is done, too, as its next driver will write it down.

    For readers: the events that this adds are in no journal. What a worker of this sweep has stays with it."""
    ledger, now = ledgers.get(name, Ledger()), time.time()
    for key, other in done_elsewhere(ledgers, name).items():
        if (state := ledger.state(key)) and state != "leased":
            if state in TERMINAL:
                ledger.apply(Event(key=key, state="planned", epoch=ledger.epoch, time=now))
            ledger.apply(Event(key=key, state="done", epoch=ledger.epoch, time=now, detail={"sweep": other}))
    return ledger


def _trainer(ledger: Ledger, key: str, other: str, name: str) -> str:
    """The sweep that has trained what `other` has done; `other` itself where that was this one, whose own record has been forgotten."""
    trainer = str(ledger.entries[key].detail.get("sweep", other))
    return other if trainer == name else trainer


def ledger_of(name: str, storage: Path) -> Ledger:
    """The ledger of a sweep, with what other sweeps have done of its trials. Raises UserError if it has never been run."""
    trial_objects.pull(storage)
    ledgers = manifest.read_all(storage, required=name)
    if name not in ledgers or not ledgers[name].epoch:
        load_sweep(name)  # a name that no sweep has is said to be that
        raise UserError(f"sweep {name!r} has not been run in {paths.shown(storage)}; there are: {', '.join(ledgers) or 'none'}")
    return settle(ledgers, name)
