"""Adaptive search: what to try next, learned by Optuna from the scores so far. The only file that imports optuna.

The manifest is the truth and the studies follow it: a suggestion is planned there first, with all that makes it one of Optuna's trials,
and told when the manifest knows how it ended. So a study can be lost, or be begun elsewhere, and is made again from the manifest.
"""

from __future__ import annotations

import contextlib
import math
import os
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.exceptions import DuplicatedStudyError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, get_storage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from search_spaces.sweep import Sweep
from search_spaces.sweep.ranges import Range, Search
from search_spaces.sweep.space import Label, Space, spaces
from service.ledger.ledger import TERMINAL, Ledger
from service.search.findings import Finding, Try
from service.spool import scores
from service.storage import paths
from service.tracking.connection import told
from trainables.errors import UserError, unknown
from trainables.trial import Trial

KEY = "key"  # attribute of Optuna's trial: the keys of our trials, one per seed, with blanks between
MOST_AGAIN = 50  # suggestions in a row that were made before: then the space is taken for exhausted
STATES = {TrialState.RUNNING: "under way", TrialState.COMPLETE: "done", TrialState.PRUNED: "stopped", TrialState.FAIL: "failed"}
REDUCTION = 3  # ASHA lets a third of the members pass each rung
optuna.logging.set_verbosity(optuna.logging.ERROR)  # its warnings of a database that fails are many lines; ours is one


@dataclass(frozen=True)
class Suggestion:
    """One of Optuna's trials in our words: `params` of a study, tried with every seed."""

    study: str
    params: Mapping[str, Label]
    trials: tuple[Trial, ...]

    @property
    def key(self) -> str:
        return " ".join(trial.key for trial in self.trials)

    def detail(self) -> dict[str, Any]:
        """What the manifest keeps with the trials, so that the study can be made again."""
        return {"study": self.study, "params": dict(self.params), "keys": self.key.split()}


def findings(name: str, sweep: Sweep, storage: Path, place: BaseStorage | None) -> list[Finding]:
    """What the studies of a sweep have found, for anybody: nothing is written. Raises UserError where they have not been begun."""
    assert sweep.search is not None
    file = paths.study(storage, name)
    if place is None and not file.exists():
        raise UserError(f"sweep {name!r} has no study in {file}; give --study-storage where it was run with one")
    place = place or JournalStorage(JournalFileBackend(str(file)))
    wanted = [space.study(name) for space in spaces(sweep)]
    there = {study.study_name for study in optuna.get_all_study_summaries(place)}
    if absent := [study for study in wanted if study not in there]:
        raise unknown("study", absent[0], sorted(there))
    return [_finding(optuna.load_study(study_name=study, storage=place), sweep.search.objective) for study in wanted]


class Adaptive:
    """The studies of a sweep, opened for writing by its one driver."""

    def __init__(
        self,
        name: str,
        sweep: Sweep,
        storage: Path,
        ledger: Ledger,
        place: BaseStorage | None = None,
        own: Callable[[Trial], Trial] = lambda trial: trial,
    ) -> None:
        """`place`: an open database, used instead of a file in the sweep's folder; `own` makes a trial the sweep's own (as_trained)."""
        assert sweep.search is not None
        self._search, self._storage, self._ledger, self._own = sweep.search, storage, ledger, own
        self._spaces = {space.study(name): space for space in spaces(sweep)}
        where = "the study database" if place else str(paths.study(storage, name))
        self._place = cast(BaseStorage, _Guarded(place or open_file(paths.study(storage, name)), where, name))
        self._studies = {study: self._open(study, space) for study, space in self._spaces.items()}

    def restore(self) -> list[Trial]:
        """Bring the studies up to the manifest after a crash, a loss or `resume`; returns the trials that are under way."""
        planned = {tuple(d["keys"]): d for e in self._ledger.entries.values() if (d := e.story[0].detail).get("study") in self._spaces}
        for keys, detail in planned.items():
            there = [trial.state for trial in self._of(detail["study"]) if _keys(trial) == [*keys]]
            if not there or (TrialState.RUNNING not in there and self._under_way(keys)):
                self.add([Suggestion(detail["study"], detail["params"], tuple(self._ledger.entries[key].trial for key in keys))])
        self.settle()
        open_keys = dict.fromkeys(key for study in self._studies for trial in self._of(study, TrialState.RUNNING) for key in _keys(trial))
        return [self._ledger.entries[key].trial for key in open_keys if self._ledger.state(key) not in TERMINAL]

    @property
    def left(self) -> int:
        """How many suggestions are still to be made."""
        return sum(self._left(study) for study in self._studies)

    def ask(self, count: int) -> list[Suggestion]:
        """The next `count` suggestions, for the study that has had the fewest; fewer where its budget ends, none where all do.

        A suggestion that repeats one is among them but not counted: it is told the result of the other. Nothing is stored yet: `add`.
        """
        name = max(self._studies, key=self._left)
        space, seen = self._spaces[name], {trial.user_attrs[KEY] for trial in self._of(name)}
        # Sampled in a copy: what is stored is then whole, in one write, with its key.
        copy = optuna.create_study(directions=_directions(self._search))
        copy.add_trials(self._of(name))
        found: list[Suggestion] = []
        new, again = 0, self._again(name)
        while new < min(count, self._left(name)) and again < MOST_AGAIN:
            copy.sampler = _sampler(self._search, len(copy.get_trials(deepcopy=False)))
            params = _choose(space, copy.ask())
            found.append(Suggestion(name, params, tuple(self._own(trial) for trial in space.trials(params))))
            new, again = (new, again + 1) if found[-1].key in seen else (new + 1, 0)
            seen.add(found[-1].key)
        return found

    def add(self, suggestions: Iterable[Suggestion]) -> None:
        """Store suggestions that the manifest knows."""
        for each in suggestions:
            axes = {name: _distribution(self._spaces[each.study].dimensions[name]) for name in each.params}
            about = {KEY: each.key, "trial": each.trials[0].name}
            given = optuna.trial.create_trial(
                state=TrialState.RUNNING, params=dict(each.params), distributions=axes, user_attrs=about
            )  # fmt: skip
            self._studies[each.study].add_trial(given)

    def heard(self, keys: Iterable[str]) -> dict[str, dict[str, str]]:
        """Take in the newest scores of trials; returns which are to stop, with reason and message, where the search stops any."""
        stops: dict[str, dict[str, str]] = {}
        if self._search.objective != "score":
            return stops  # Optuna keeps no scores on the way to several objectives
        wanted = set(keys)
        for name, study in self._studies.items():
            touched = [trial for trial in self._of(name, TrialState.RUNNING) if wanted & set(_keys(trial))]
            for update, trials in self._note(touched).items():
                for trial in trials:
                    now = self._place.get_trial(trial._trial_id)
                    if update < self._trials(trial)[0].updates and study.pruner.prune(study, now):
                        message = f"score {now.intermediate_values[update]:.1f} after update {update:,} is not enough to go on"
                        stops |= {key: {"reason": self._search.stop, "message": message} for key in _keys(trial)}
        return {key: why for key, why in stops.items() if self._ledger.state(key) not in TERMINAL}

    def settle(self) -> None:
        """Tell the studies what has ended; what was told is not told again."""
        for name, study in self._studies.items():
            for trial in self._of(name, TrialState.RUNNING):
                if self._under_way(_keys(trial)):
                    continue
                if self._search.objective == "score":
                    self._note([trial])
                values = self._values(trial)
                study.tell(trial.number, values, state=TrialState.COMPLETE if values else self._unfinished(_keys(trial)))

    def _note(self, trials: Sequence[FrozenTrial]) -> dict[int, list[FrozenTrial]]:
        """Store scores on the way that are not stored yet; returns by update, ascending, whom they belong to."""
        found: dict[int, list[FrozenTrial]] = {}
        for trial in trials:
            for update, score in scores.curve(self._storage, self._trials(trial)).items():
                if update not in trial.intermediate_values:
                    found.setdefault(update, []).append(trial)
                    self._place.set_trial_intermediate_value(trial._trial_id, update, score)
        return dict(sorted(found.items()))

    def findings(self) -> list[Finding]:
        """What each study has found, from the file or the database."""
        return [_finding(study, self._search.objective) for study in self._studies.values()]

    def _values(self, trial: FrozenTrial) -> list[float] | None:
        """The objectives, where every seed is done and has them."""
        trials = self._trials(trial)
        if any(self._ledger.state(each.key) != "done" for each in trials):
            return None
        found = [scores.last(self._storage, trials)]
        if self._search.objective == "pareto":
            found.append(scores.effective_density(self._storage, trials))
        values = [value for value in found if value is not None and math.isfinite(value)]
        return values if len(values) == len(found) else None

    def _unfinished(self, keys: Iterable[str]) -> TrialState:
        """In Optuna's words: a stopped member is 'pruned', which a sampler learns from; of a failure it learns nothing."""
        states = {self._ledger.state(key) for key in keys}
        return TrialState.PRUNED if "stopped" in states else TrialState.FAIL

    def _under_way(self, keys: Iterable[str]) -> bool:
        return any(self._ledger.state(key) not in TERMINAL for key in keys)

    def _trials(self, trial: FrozenTrial) -> tuple[Trial, ...]:
        return tuple(self._ledger.entries[key].trial for key in _keys(trial))

    def _of(self, study: str, *states: TrialState) -> list[FrozenTrial]:
        """Optuna's trials that are ours, in order."""
        return [trial for trial in self._studies[study].get_trials(deepcopy=False, states=states or None) if KEY in trial.user_attrs]

    def _left(self, study: str) -> int:
        made = len({trial.user_attrs[KEY] for trial in self._of(study)})
        return 0 if self._again(study) >= MOST_AGAIN else max(0, self._search.suggestions - made)

    def _again(self, study: str) -> int:
        """How many suggestions in a row, up to the newest, were made before."""
        seen: set[str] = set()
        count = 0
        for trial in self._of(study):
            count = count + 1 if trial.user_attrs[KEY] in seen else 0
            seen.add(trial.user_attrs[KEY])
        return count

    def _open(self, name: str, space: Space) -> optuna.Study:
        evaluations = space.trials({})[0].evaluation_updates()
        first = evaluations[min(self._search.grace, len(evaluations)) - 1]
        return optuna.create_study(
            storage=self._place, study_name=name, directions=_directions(self._search), pruner=_pruner(self._search.stop, first),
            load_if_exists=True,
        )  # fmt: skip


def open_file(file: Path) -> BaseStorage:
    """The studies in a file, for the holder of the lease: what a killed driver may have left, its lock and half a line, is taken away.

    Raises UserError for a damaged file.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{file}.lock")
    if file.exists() and not (content := file.read_bytes()).endswith(b"\n"):
        os.truncate(file, content.rfind(b"\n") + 1)
    try:
        return JournalStorage(JournalFileBackend(str(file)))
    except (ValueError, KeyError) as error:
        raise UserError(f"{file} is damaged ({error}); remove it and run again: it is made anew from the manifest") from error


def open_database(url: str) -> BaseStorage:
    """The studies in a database. Raises UserError, without what the address may hold of passwords, where it cannot be opened."""
    try:
        return RDBStorage(url, engine_kwargs={"pool_pre_ping": True})  # connections that a restarted server has cut are made anew
    except Exception as error:  # whatever SQLAlchemy and the database's driver raise
        raise UserError(f"the study storage cannot be opened ({told(error)})") from None


class _Guarded:
    """Optuna's storage, whose failures are told in one line: it may be lost, locked or cut off at any moment of a sweep."""

    def __init__(self, place: BaseStorage, where: str, sweep: str) -> None:
        self._place, self._where, self._sweep = get_storage(place), where, sweep

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._place, name)
        return partial(self._call, found) if callable(found) else found

    def _call(self, method: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        try:
            return method(*arguments, **named)
        except DuplicatedStudyError:
            raise  # which `load_if_exists` asks for
        except Exception as error:  # whatever SQLAlchemy, a database's driver, the journal and the disk raise
            again = f"`python -m service run {self._sweep}` goes on, and makes the study again from the manifest where it is gone"
            raise UserError(f"{self._where} fails ({told(_first(error))}); nothing is lost: {again}") from error


def _first(error: BaseException) -> Exception:
    """The error that the others were raised from."""
    while isinstance(error.__cause__, Exception):
        error = error.__cause__
    return cast(Exception, error)


def _finding(study: optuna.Study, objective: str) -> Finding:
    ours = [trial for trial in study.get_trials(deepcopy=False) if KEY in trial.user_attrs]
    best = {trial.number for trial in study.best_trials if KEY in trial.user_attrs} if objective == "pareto" else set()
    return Finding(study.study_name, objective, tuple(_try(trial, trial.number in best) for trial in ours))


def _try(trial: FrozenTrial, on_front: bool) -> Try:
    values = tuple(trial.values) if trial.state == TrialState.COMPLETE and trial.values else ()
    return Try(trial.number, STATES.get(trial.state, ""), values, trial.params, trial.user_attrs["trial"], tuple(_keys(trial)), on_front)


def _directions(search: Search) -> list[StudyDirection]:
    return [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE] if search.objective == "pareto" else [StudyDirection.MAXIMIZE]


def _sampler(search: Search, number: int) -> optuna.samplers.BaseSampler:
    """A sampler for the suggestion with this number alone, so that a driver that was killed in between goes on with the same draws."""
    seed = zlib.crc32(f"{search.seed} {number}".encode())
    if search.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, multivariate=False)


def _pruner(stop: str, first: int) -> optuna.pruners.BasePruner:
    """Optuna's rule by our name; nobody is stopped before update `first`."""
    if stop == "asha":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=first, reduction_factor=REDUCTION)
    return optuna.pruners.MedianPruner(n_warmup_steps=first) if stop == "median" else optuna.pruners.NopPruner()


def _choose(space: Space, trial: optuna.Trial) -> dict[str, Label]:
    params: dict[str, Label] = {}
    for name, values in space.dimensions.items():
        if not space.needs(name, params):
            continue
        if isinstance(values, Range):
            params[name] = trial.suggest_float(name, values.low, values.high, log=values.log)
        else:
            params[name] = cast(Label, trial.suggest_categorical(name, tuple(values)))
    return params


def _distribution(values: Range | Mapping[Label, Any]) -> BaseDistribution:
    if isinstance(values, Range):
        return FloatDistribution(values.low, values.high, log=values.log)
    return CategoricalDistribution(tuple(values))


def _keys(trial: FrozenTrial) -> list[str]:
    """The keys of our trials, one per seed."""
    return str(trial.user_attrs[KEY]).split()
