"""`winnow verify --data`: the prepared tables on this machine, hashed again, against what each trial was trained on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from service.ledger.ledger import Entry, Ledger
from service.planning.data_here import SHOWN
from service.spool import lines as spool
from service.storage import paths
from service.terminal.waiting import waiting
from trainables.datasets import local
from trainables.errors import UserError


def differences(ledger: Ledger, storage: Path) -> list[str]:
    """A line for each dataset that cannot be compared, and for each trial that has seen other data than what is here, or several."""
    entries = list(ledger.entries.values())
    hashes: dict[str, str] = {}
    found = []
    for dataset in dict.fromkeys(entry.trial.dataset for entry in entries):
        try:
            hashes[dataset] = _hash(dataset)
        except UserError as error:
            found.append(f"data: {error}")
    return found + [line for entry in entries if entry.trial.dataset in hashes for line in _of_trial(entry, hashes, storage)]


def describe(found: list[str]) -> str:
    return "\n".join([*found, f"{len(found)} differences in the data"]) if found else "the data here is what every trial was trained on"


def _hash(dataset: str) -> str:
    """The content hash of a dataset that is on this machine; raises UserError otherwise: nothing is downloaded to be compared."""
    from trainables.datasets.table import load_table  # imports numpy

    if not local.exists(dataset):
        raise local.missing(dataset)
    with waiting(f"hashing {dataset}"):
        return load_table(dataset, verify=True).hash


def _of_trial(entry: Entry, hashes: dict[str, str], storage: Path) -> Iterator[str]:
    """Attempts before the first committed line count as little as what they computed."""
    trial, here = entry.trial, hashes[entry.trial.dataset]
    lines = [placed.line for placed in spool.committed(spool.read(paths.spool(storage, trial.key)))]
    attempts = [line for line in lines if line["kind"] == "attempt"]
    first = spool.origin(paths.spool(storage, trial.key))
    counted = attempts[attempts.index(first) :] if first in attempts else []
    seen = list(dict.fromkeys(str(line["dataset_hash"]) for line in counted if "dataset_hash" in line))
    label = f"{trial.key} {trial.name}"
    if len(seen) > 1:
        yield f"{label}: trained on several versions of {trial.dataset}: {', '.join(version[:SHOWN] for version in seen)}"
    elif seen and seen != [here]:
        yield f"{label}: trained on {trial.dataset} {seen[0][:SHOWN]}, which is {here[:SHOWN]} here"
