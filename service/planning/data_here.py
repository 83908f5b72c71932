"""What trials were trained on, against the datasets on this machine. A dataset's id is a name; its content hash is what a trial saw."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from service.ledger.ledger import Ledger
from service.spool import lines as spool
from service.storage import paths
from trainables.datasets.known_hashes import known_hash
from trainables.errors import UserError
from trainables.trial import Trial

SHOWN = 12  # digits of a hash in messages
APART = 16  # digits of a hash in `Trial.data`
NAMED = 3  # revisions named


class DataHere:
    """The datasets' hashes on this machine, as far as they are known without opening one, and the origins of a storage's trials."""

    def __init__(self, storage: Path, ledger: Ledger) -> None:
        self._storage, self._hashes, self._origins = storage, dict[str, str](), dict[str, Mapping[str, str]]()
        self._begun = {folder.name for folder in paths.trials(storage).glob("*")}
        self._apart = {replace(e.trial, data="").key: e.trial for e in ledger.entries.values() if e.trial.data}  # the newest of each
        self._keys = ledger.entries.keys()

    def hash_of(self, dataset: str) -> str:
        """Empty where the dataset is absent or was not opened yet."""
        if dataset not in self._hashes:
            self._hashes[dataset] = known_hash(dataset)
        return self._hashes[dataset]

    def origin(self, key: str) -> Mapping[str, str]:
        """`dataset_hash`, `revision` and more of what a trial has committed; empty where it has committed nothing."""
        if key not in self._origins:
            self._origins[key] = spool.origin(paths.spool(self._storage, key)) if key in self._begun else {}
        return self._origins[key]

    def trained_on(self, trial: Trial) -> str:
        """The hash of the data that a trial has been trained on; empty where it has not begun, or older code kept none."""
        return str(self.origin(trial.key).get("dataset_hash", ""))

    def differs(self, trial: Trial) -> bool:
        """Whether a trial has been trained on data that is known to be another than what is here."""
        here, there = self.hash_of(trial.dataset), self.trained_on(trial)
        return bool(here and there and here != there)

    def as_trained(self, trial: Trial, apart: bool = False) -> Trial:
        """The trial on the data that is here: the sweep's own apart from one on other data where it has that, or where `apart` asks for it.

        Without the dataset, the newest that the sweep has."""
        base, here = replace(trial, data="") if trial.data else trial, self.hash_of(trial.dataset)
        if not here:
            return self._apart.get(base.key, trial)
        if not self._apart and not apart:  # the sweep has none that it trains apart: no need to look for this one
            return trial if trial.data and self.differs(base) else base
        variant = replace(base, data=here[:APART])
        if variant.key in self._keys or (apart and self.differs(base)):
            return variant
        return trial if trial.data and self.differs(base) else base

    def not_opened(self, trials: Iterable[Trial]) -> tuple[str, ...]:
        """The datasets whose hash here is not known, although some of the trials have been trained on one."""
        ids: dict[str, None] = {}
        for trial in trials:
            if trial.dataset not in ids and not self.hash_of(trial.dataset) and self.trained_on(trial):
                ids[trial.dataset] = None
        return tuple(ids)


def other_data(trials: Sequence[Trial], data: DataHere) -> list[str]:
    """A phrase for each dataset of which some of the trials have seen another version than the one that is here."""
    groups: dict[tuple[str, str], list[Trial]] = {}
    for trial in trials:
        if data.differs(trial):
            groups.setdefault((trial.dataset, data.trained_on(trial)), []).append(trial)
    return [
        f"{len(group)} {'trials' if len(group) > 1 else 'trial'} ({group[0].name}{', ...' if len(group) > 1 else ''}) "
        f"trained on {dataset} {there[:SHOWN]}, which is {data.hash_of(dataset)[:SHOWN]} here"
        for (dataset, there), group in groups.items()
    ]


def versions(trials: Sequence[Trial], data: DataHere) -> list[str]:
    """A line for each dataset of which the trials have seen several versions, or another than the one that is here."""
    notes = []
    for dataset in dict.fromkeys(trial.dataset for trial in trials):
        count = Counter(found for trial in trials if trial.dataset == dataset and (found := data.trained_on(trial)))
        here = data.hash_of(dataset)
        if len(count) > 1 or (here and count.keys() - {here}):
            seen = ", ".join(f"{number} on {version[:SHOWN]}" for version, number in count.most_common())
            notes.append(f"warning: of the trials of {dataset}, {seen}" + (f"; {here[:SHOWN]} is here" if here else ""))
    return notes


def other_code(trials: Sequence[Trial], data: DataHere, revision: str) -> str:
    """A phrase for the trials that other code has trained; empty where there are none."""
    known = Counter(str(found) for trial in trials if (found := data.origin(trial.key).get("revision", revision)) != revision)
    if not known:
        return ""
    codes = ", ".join([*list(known)[:NAMED], *(["..."] if len(known) > NAMED else [])])
    return f"{known.total()} {'trials were' if known.total() > 1 else 'trial was'} trained by code {codes}; this is code {revision}"


def refuse(what: str, phrases: Sequence[str], instead: str) -> None:
    """Raise UserError in one line where there is any phrase."""
    if phrases:
        raise UserError(f"{what}: {'; '.join(phrases)}; {instead}")
