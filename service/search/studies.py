"""Adaptive search: Optuna suggests what to train next, from the scores so far. With places.py the only file that imports optuna.

The studies follow the manifest: a suggestion is planned there first, with everything needed to rebuild it, and Optuna is told its result
once the manifest has recorded the end. So a lost study, or one in a new database, is rebuilt from the manifest.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from search_spaces.sweep import Sweep
from search_spaces.sweep.ranges import Range, Search
from search_spaces.sweep.space import Label, Space, spaces
from service.ledger.ledger import TERMINAL, Ledger
from service.search.findings import Finding, Try
from service.search.places import Guarded, open_file
from service.spool import scores
from service.storage import paths
from trainables.errors import UserError, unknown
from trainables.trial import Trial

KEY = "key"  # attribute of Optuna's trial: the keys of our trials, one per seed, separated by blanks; empty if they cannot be made
WHY = "infeasible"  # attribute of a suggestion that cannot be trained, whoever tries: why
AGAIN = "again"  # attribute of a suggestion that was not drawn but comes from the manifest
REPEAT_LIMIT = 50  # repeated or infeasible suggestions in a row after which the space counts as exhausted
STATES = {TrialState.RUNNING: "under way", TrialState.COMPLETE: "done", TrialState.PRUNED: "stopped", TrialState.FAIL: "failed"}
REDUCTION = 3  # ASHA: one in three passes each rung


@dataclass(frozen=True)
class Suggestion:
    """One of Optuna's trials: `params` of a study, trained with every seed; without trials where there are none of these parameters.

    `why` is then the reason."""

    study: str
    params: Mapping[str, Label]
    trials: tuple[Trial, ...]
    why: str = ""

    @property
    def key(self) -> str:
        return " ".join(trial.key for trial in self.trials)

    def detail(self) -> dict[str, Any]:
        """What the manifest stores with the trials to rebuild the study."""
        return {"study": self.study, "params": dict(self.params), "keys": self.key.split()}


def findings(name: str, sweep: Sweep, storage: Path, database: BaseStorage | None) -> list[Finding]:
    """The results of a sweep's studies, without writing anything. Raises UserError if they have not been started."""
    assert sweep.search is not None
    file = paths.study(storage, name)
    if database is None and not file.exists():
        raise UserError(f"sweep {name!r} has no study in {file}; if it was run with --study-storage, give that")
    database = database or JournalStorage(JournalFileBackend(str(file)))
    wanted = [space.study(name) for space in spaces(sweep)]
    existing = {study.study_name for study in optuna.get_all_study_summaries(database)}
    if absent := [study for study in wanted if study not in existing]:
        raise unknown("study", absent[0], sorted(existing))
    return [_finding(optuna.load_study(study_name=study, storage=database), sweep.search.objective) for study in wanted]


class Adaptive:
    """The studies of a sweep, opened for writing by its driver."""

    def __init__(
        self,
        name: str,
        sweep: Sweep,
        storage: Path,
        ledger: Ledger,
        database: BaseStorage | None = None,
        as_trained: Callable[[Trial], Trial] = lambda trial: trial,
        again: str = "",
    ) -> None:
        """`database` replaces the file in the sweep's folder; `as_trained` maps a suggested trial to the one that the sweep trains;
        `again` is the command that continues the run."""
        assert sweep.search is not None
        self._search, self._storage, self._ledger, self._as_trained = sweep.search, storage, ledger, as_trained
        self._spaces = {space.study(name): space for space in spaces(sweep)}
        where = "the study database" if database else str(paths.study(storage, name))
        self._database = cast(BaseStorage, Guarded(database or open_file(paths.study(storage, name)), where, again))
        self._studies = {study: self._open(study, space) for study, space in self._spaces.items()}

    def restore(self) -> list[Trial]:
        """Update the studies from the manifest after a crash, a loss or `resume`; returns the unfinished trials."""
        details = [e.events[0].detail for e in self._ledger.entries.values()]
        ours = [d for d in details if d.get("study") in self._spaces and _fits(self._spaces[d["study"]], d["params"])]
        planned = {tuple(d["keys"]): d for d in ours if self._known(d["keys"])}
        for keys, detail in planned.items():
            states = [trial.state for trial in self._of(detail["study"]) if _keys(trial) == [*keys]]
            if not states or (TrialState.RUNNING not in states and self._under_way(keys)):
                again = Suggestion(detail["study"], detail["params"], tuple(self._ledger.entries[key].trial for key in keys))
                self.add([again], AGAIN)
        self.settle()
        open_keys = dict.fromkeys(key for study in self._studies for trial in self._of(study, TrialState.RUNNING) for key in _keys(trial))
        return [self._ledger.entries[key].trial for key in open_keys if self._ledger.state(key) not in TERMINAL]

    @property
    def left(self) -> int:
        """The number of suggestions still to come."""
        return sum(self._left(study) for study in self._studies)

    def ask(self, count: int) -> list[Suggestion]:
        """The next `count` suggestions, for the study with the largest remaining budget; fewer if that ends, none if all have ended.

        Repeated suggestions are included but not counted; they get the result of the first one. So are those of which no trial can be made.
        `add` stores suggestions.
        """
        name = max(self._studies, key=self._left)
        space, seen = self._spaces[name], {"", *(trial.user_attrs[KEY] for trial in self._of(name))}
        # Sampled in a copy, so that `add` stores a suggestion with its key in one write.
        copy = optuna.create_study(directions=_directions(self._search))
        copy.add_trials(self._of(name))
        suggestions: list[Suggestion] = []
        new, repeats = 0, self._repeats(name)
        while new < min(count, self._left(name)) and repeats < REPEAT_LIMIT:
            copy.sampler = _sampler(self._search, len(copy.get_trials(deepcopy=False)))
            params = _choose(space, copy.ask())
            try:
                suggestions.append(Suggestion(name, params, tuple(self._as_trained(trial) for trial in space.trials(params))))
            except UserError as error:
                suggestions.append(Suggestion(name, params, (), str(error)))
            new, repeats = (new, repeats + 1) if suggestions[-1].key in seen else (new + 1, 0)
            seen.add(suggestions[-1].key)
        return suggestions

    def add(self, suggestions: Iterable[Suggestion], mark: str = "") -> None:
        """Store suggestions that the manifest has recorded, and those that cannot be made, as failed. They get the attribute `mark`."""
        for each in suggestions:
            axes = {name: _distribution(self._spaces[each.study].dimensions[name]) for name in each.params}
            about = {
                KEY: each.key,
                "trial": each.trials[0].name if each.trials else "",
                **({WHY: each.why} if each.why else {}),
                **({mark: True} if mark else {}),
            }
            state = TrialState.RUNNING if each.trials else TrialState.FAIL
            trial = optuna.trial.create_trial(state=state, params=dict(each.params), distributions=axes, user_attrs=about)
            self._studies[each.study].add_trial(trial)

    def trials_to_stop(self, keys: Iterable[str]) -> dict[str, dict[str, str]]:
        """Store the newest scores of trials; returns those to stop early, with reason and message."""
        stops: dict[str, dict[str, str]] = {}
        if self._search.objective != "score":
            return stops  # Optuna stores no intermediate scores for several objectives
        wanted = set(keys)
        for name, study in self._studies.items():
            touched = [trial for trial in self._of(name, TrialState.RUNNING) if wanted & set(_keys(trial))]
            for update, trials in self._note(touched).items():
                for trial in trials:
                    now = self._database.get_trial(trial._trial_id)
                    if update < self._trials(trial)[0].updates and study.pruner.prune(study, now):
                        message = f"score {now.intermediate_values[update]:.1f} after update {update:,} is not enough to continue"
                        stops |= {key: {"reason": self._search.stop, "message": message} for key in _keys(trial)}
        return {key: why for key, why in stops.items() if self._ledger.state(key) not in TERMINAL}

    def settle(self) -> None:
        """Tell the studies about suggestions that have ended. Idempotent."""
        for name, study in self._studies.items():
            for trial in self._of(name, TrialState.RUNNING):
                if not self._known(_keys(trial)):  # `forget` has taken some of them
                    study.tell(trial.number, state=TrialState.FAIL)
                    continue
                if self._under_way(_keys(trial)):
                    continue
                if self._search.objective == "score":
                    self._note([trial])
                values = self._values(trial)
                if why := self._infeasible(trial):
                    self._database.set_trial_user_attr(trial._trial_id, WHY, why)
                study.tell(trial.number, values, state=TrialState.COMPLETE if values else self._unfinished(_keys(trial)))

    def _note(self, trials: Sequence[FrozenTrial]) -> dict[int, list[FrozenTrial]]:
        """Store new intermediate scores; returns the trials that have one, by update, ascending."""
        scored: dict[int, list[FrozenTrial]] = {}
        for trial in trials:
            for update, score in scores.curve(self._storage, self._trials(trial)).items():
                if update not in trial.intermediate_values:
                    scored.setdefault(update, []).append(trial)
                    self._database.set_trial_intermediate_value(trial._trial_id, update, score)
        return dict(sorted(scored.items()))

    def findings(self) -> list[Finding]:
        """The results of each study."""
        return [_finding(study, self._search.objective) for study in self._studies.values()]

    def _values(self, trial: FrozenTrial) -> list[float] | None:
        """The objectives; None unless every seed is done and has them."""
        trials = self._trials(trial)
        if any(self._ledger.state(each.key) != "done" for each in trials):
            return None
        objectives = [scores.last(self._storage, trials)]
        if self._search.objective == "pareto":
            objectives.append(scores.effective_density(self._storage, trials))
        values = [value for value in objectives if value is not None and math.isfinite(value)]
        return values if len(values) == len(objectives) else None

    def _unfinished(self, keys: Iterable[str]) -> TrialState:
        """Optuna's state: its samplers learn from stopped trials, which it calls 'pruned', but not from failed ones."""
        states = {self._ledger.state(key) for key in keys}
        return TrialState.PRUNED if "stopped" in states else TrialState.FAIL

    def _infeasible(self, trial: FrozenTrial) -> str:
        """Why training refuses the suggestion; empty if it does not, or has failed for reasons of the machine."""
        entries = [self._ledger.entries[key] for key in _keys(trial)]
        return next((str(entry.detail.get("message", "")) for entry in entries if entry.infeasible), "")

    def _under_way(self, keys: Iterable[str]) -> bool:
        return any(self._ledger.state(key) not in TERMINAL for key in keys)

    def _known(self, keys: Iterable[str]) -> bool:
        return all(self._ledger.state(key) for key in keys)

    def _trials(self, trial: FrozenTrial) -> tuple[Trial, ...]:
        return tuple(self._ledger.entries[key].trial for key in _keys(trial))

    def _of(self, study: str, *states: TrialState) -> list[FrozenTrial]:
        """The trials of a study that we added, in order."""
        return [trial for trial in self._studies[study].get_trials(deepcopy=False, states=states or None) if KEY in trial.user_attrs]

    def _left(self, study: str) -> int:
        made = len({trial.user_attrs[KEY] for trial in self._of(study)} - {""})
        return 0 if self._repeats(study) >= REPEAT_LIMIT else max(0, self._search.suggestions - made)

    def _repeats(self, study: str) -> int:
        """How many of the newest suggestions in a row are repeats or infeasible. What `restore` has added was not drawn again."""
        seen: set[str] = {""}
        count = 0
        for trial in (trial for trial in self._of(study) if AGAIN not in trial.user_attrs):
            count = count + 1 if trial.user_attrs[KEY] in seen else 0
            seen.add(trial.user_attrs[KEY])
        return count

    def _open(self, name: str, space: Space) -> optuna.Study:
        evaluations = space.trials({})[0].evaluation_updates()
        first = evaluations[min(self._search.grace, len(evaluations)) - 1]
        return optuna.create_study(
            storage=self._database, study_name=name, directions=_directions(self._search), pruner=_pruner(self._search.stop, first),
            load_if_exists=True,
        )  # fmt: skip


def _finding(study: optuna.Study, objective: str) -> Finding:
    ours = _distinct([trial for trial in study.get_trials(deepcopy=False) if KEY in trial.user_attrs])
    best = {trial.number for trial in study.best_trials if KEY in trial.user_attrs} if objective == "pareto" else set()
    return Finding(study.study_name, objective, tuple(_try(trial, trial.number in best) for trial in ours))


def _distinct(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Each suggestion once, though it was made or tried again: as it ended with a score, else the newest."""
    kept: dict[str, FrozenTrial] = {}
    for trial in trials:
        key = trial.user_attrs[KEY] or f"infeasible {trial.number}"
        if key not in kept or kept[key].state != TrialState.COMPLETE:
            kept.pop(key, None)
            kept[key] = trial
    return list(kept.values())


def _try(trial: FrozenTrial, on_front: bool) -> Try:
    values = tuple(trial.values) if trial.state == TrialState.COMPLETE and trial.values else ()
    why = str(trial.user_attrs.get(WHY, "")) if trial.state == TrialState.FAIL else ""
    state = "infeasible" if why else STATES.get(trial.state, "")
    return Try(trial.number, state, values, trial.params, trial.user_attrs["trial"], tuple(_keys(trial)), on_front, why)


def _directions(search: Search) -> list[StudyDirection]:
    return [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE] if search.objective == "pareto" else [StudyDirection.MAXIMIZE]


def _sampler(search: Search, number: int) -> optuna.samplers.BaseSampler:
    """A sampler seeded by the number of the suggestion, so that a restarted driver draws the same."""
    seed = zlib.crc32(f"{search.seed} {number}".encode())
    if search.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, multivariate=False)


def _pruner(stop: str, first: int) -> optuna.pruners.BasePruner:
    """Optuna's early-stopping rule of this name; it stops nothing before update `first`."""
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


def _fits(space: Space, params: Mapping[str, Any]) -> bool:
    """Whether these are parameters of the space, which an adopted file need not say rightly."""
    for name, value in params.items():
        values = space.dimensions.get(name, {})
        if not (isinstance(value, int | float) and values.low <= value <= values.high if isinstance(values, Range) else value in values):
            return False
    return True


def _keys(trial: FrozenTrial) -> list[str]:
    """The keys of our trials, one per seed."""
    return str(trial.user_attrs[KEY]).split()
