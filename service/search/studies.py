"""Adaptive search: Optuna suggests what to train next, from the scores so far. With study_storage.py the only file that imports optuna.

The studies follow the manifest: all that is suggested is recorded there first, and Optuna is told the result once the manifest has recorded
the end. So a lost study, or one in a new database, is rebuilt from the manifest, and what others do to a database changes nothing here.
"""

from __future__ import annotations

import random
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from search_spaces.sweep import Sweep
from search_spaces.sweep.ranges import REDUCTION, UNSTOPPED, Range, Search
from search_spaces.sweep.space import REPEAT_LIMIT, Label, Space, repeats, spaces
from service.ledger.ledger import TERMINAL, Ledger
from service.search.outcomes import DONE, FAILED, INFEASIBLE, STOPPED, Outcome, known, outcome, under_way
from service.search.study_storage import Guarded, open_file
from service.spool import scores
from service.storage import paths
from trainables.errors import UserError
from trainables.trial import Trial

KEY = "key"  # attribute of Optuna's trial: the keys of our trials, one per seed, separated by blanks; empty if they cannot be made
WHY = "infeasible"  # attribute of a suggestion that cannot be trained, whoever tries: why
PATIENCE = (
    10  # repeated or infeasible suggestions in a row after which one that was not made yet is drawn by chance, where they are counted
)
STARTUP = 10  # suggestions that TPE draws by chance
ROUNDS = 4  # in which it makes the others, at least: what is suggested at once cannot learn from one another
# Optuna's samplers learn from stopped trials, which it calls 'pruned', but not from failed ones.
STATES = {DONE: TrialState.COMPLETE, STOPPED: TrialState.PRUNED, FAILED: TrialState.FAIL, INFEASIBLE: TrialState.FAIL}


@dataclass(frozen=True)
class Suggestion:
    """One of Optuna's trials: `params` of a study, trained with every seed; without trials where there are none of these parameters.

    `why` is then the reason."""

    study: str
    params: Mapping[str, Label]
    trials: tuple[Trial, ...]
    why: str = ""
    number: int = 0

    @property
    def key(self) -> str:
        return _key(self.trials)

    def to_json(self) -> dict[str, Any]:
        """What the manifest records, from which a study is rebuilt, and trials that were forgotten are made again."""
        about = {"study": self.study, "number": self.number, "params": dict(self.params), "keys": self.key.split()}
        copies = [{name: value for name in ("fresh", "data") if (value := getattr(trial, name))} for trial in self.trials]
        return about | ({"why": self.why} if self.why else {}) | ({"copies": copies} if any(copies) else {})


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
        self._shared = database is not None
        where = "the study database" if database else str(paths.study(storage, name))
        self._database = cast(BaseStorage, Guarded(database or open_file(paths.study(storage, name)), where, again))
        self._studies = {study: self._open(study, space) for study, space in self._spaces.items()}

    def restore(self) -> list[Trial]:
        """Update the studies from the manifest after a crash, a loss or `resume`; returns the unfinished trials."""
        for study in self._studies:
            there = Counter(_mark(trial.params, _keys(trial)) for trial in self._of(study))
            states: dict[str, set[TrialState]] = {}
            for trial in self._of(study):
                states.setdefault(trial.user_attrs[KEY], set()).add(trial.state)
            needed: Counter[str] = Counter()
            for each in self._suggestions(study):
                keys, mark = each["keys"], _mark(each["params"], each["keys"])
                needed[mark] += 1
                # A repeat has a trial of its own; one that is retried, or has a score after all, gets another.
                if needed[mark] > there[mark] or (needed[mark] == 1 and self._is_news(keys, states[" ".join(keys)])):
                    self.add(
                        [Suggestion(study, each["params"], tuple(self._ledger.entries[key].trial for key in keys), each.get("why", ""))]
                    )
        self.settle()
        open_keys = dict.fromkeys(key for study in self._studies for trial in self._of(study, TrialState.RUNNING) for key in _keys(trial))
        return [self._ledger.entries[key].trial for key in open_keys if self._ledger.state(key) not in TERMINAL]

    def _is_news(self, keys: Sequence[str], states: Collection[TrialState]) -> bool:
        """Whether a study that has the suggestion in these states knows only an end of it that holds no more."""
        if not keys or TrialState.RUNNING in states:
            return False
        return under_way(keys, self._ledger) or (TrialState.COMPLETE not in states and self._outcome(keys).state == DONE)

    @property
    def scored(self) -> bool:
        """Whether any suggestion has a score."""
        return any(
            each["keys"] and self._outcome(each["keys"]).state == DONE for study in self._studies for each in self._suggestions(study)
        )

    @property
    def left(self) -> int:
        """The number of suggestions still to come."""
        return sum(self._left(study) for study in self._studies)

    def ask(self, count: int) -> list[Suggestion]:
        """The next `count` suggestions, for the study with the largest remaining budget; fewer if that ends, or where the sampler would
        learn too little from so many, none if all have ended.

        Repeated suggestions are included but not counted; they get the result of the first one. So are those of which no trial can be made.
        `add` stores suggestions, once the manifest has them.
        """
        name = max(self._studies, key=self._left)
        space, made = self._spaces[name], self._suggestions(name)
        seen = {"", *(" ".join(each["keys"]) for each in made)}
        count = min(count, self._left(name), self._at_most(len(made)))
        untried = [(_key(map(self._as_trained, trials)), params) for params, trials in space.suggestions or ()]
        # Sampled in a copy, so that `add` stores a suggestion with its key in one write.
        copy = optuna.create_study(directions=_directions(self._search))
        copy.add_trials(self._of(name))
        suggestions: list[Suggestion] = []
        new, in_a_row, first = 0, repeats(self._drawn(name)), self._next(name)
        while new < count and (in_a_row < REPEAT_LIMIT or untried):
            seed = self._seed(number := first + len(suggestions))
            if in_a_row >= PATIENCE and untried:
                params = random.Random(seed).choice([params for key, params in untried if key not in seen])
            else:
                copy.sampler = _sampler(self._search, seed)
                params = _choose(space, copy.ask())
            try:
                suggestions.append(Suggestion(name, params, tuple(map(self._as_trained, space.trials(params))), number=number))
            except UserError as error:
                suggestions.append(Suggestion(name, params, (), str(error), number))
            new, in_a_row = (new, in_a_row + 1) if suggestions[-1].key in seen else (new + 1, 0)
            seen.add(suggestions[-1].key)
        return suggestions

    def _at_most(self, made: int) -> int:
        """How many suggestions one round may have after `made` ones: TPE draws the first by chance, and learns from round to round."""
        if self._search.sampler == "random":
            return self._search.suggestions
        return STARTUP - made if made < STARTUP else max(1, (self._search.suggestions - STARTUP) // ROUNDS)

    def _next(self, study: str) -> int:
        """The number of the next suggestion. Older code recorded none, and counted what the study has."""
        made = self._ledger.suggestions.get(study, ())
        numbers = [each["number"] for each in made if "number" in each]
        return max(numbers) + 1 if numbers else max(len(made), len([trial for trial in self._of(study) if "again" not in trial.user_attrs]))

    def _drawn(self, study: str) -> list[list[str]]:
        """The trial keys of all that was ever suggested, in order."""
        return [each["keys"] for each in self._ledger.suggestions.get(study, ())]

    def _seed(self, number: int) -> int:
        """The seed of a suggestion, by its number, so that a restarted driver draws the same."""
        return zlib.crc32(f"{self._search.seed} {number}".encode())

    def add(self, suggestions: Iterable[Suggestion]) -> None:
        """Store suggestions that the manifest has recorded, and those that cannot be made, as failed."""
        for each in suggestions:
            axes = {name: _distribution(self._spaces[each.study].dimensions[name]) for name in each.params}
            about = {
                KEY: each.key,
                "trial": each.trials[0].name if each.trials else "",
                **({WHY: each.why} if each.why else {}),
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
            for update, trial in self._note(touched):
                if update < self._trials(trial)[0].updates and (score := self._is_behind(study, trial, update)) is not None:
                    message = f"score {score:.1f} after update {update:,} is not enough to continue"
                    stops |= {key: {"reason": self._search.stop, "message": message} for key in _keys(trial)}
        return {key: why for key, why in stops.items() if self._ledger.state(key) not in TERMINAL}

    def settle(self) -> None:
        """Tell the studies about suggestions that have ended. Idempotent."""
        for name, study in self._studies.items():
            for trial in self._of(name, TrialState.RUNNING):
                keys = _keys(trial)
                if not known(keys, self._ledger):  # `forget` has taken some of them
                    study.tell(trial.number, state=TrialState.FAIL)
                    continue
                if under_way(keys, self._ledger):
                    continue
                if self._search.objective == "score":
                    for update, each in self._note([trial]):
                        if update < self._trials(each)[0].updates:
                            self._is_behind(study, each, update)  # for those to come: which scores have got how far
                end = self._outcome(keys)
                if end.state == INFEASIBLE:
                    self._database.set_trial_user_attr(trial._trial_id, WHY, end.why)
                study.tell(trial.number, end.values or None, state=STATES[end.state])

    def _note(self, trials: Sequence[FrozenTrial]) -> Iterator[tuple[int, FrozenTrial]]:
        """Store new intermediate scores, update by update; each is stored, for all that have it, before the first is returned."""
        scored: dict[int, list[tuple[FrozenTrial, float]]] = {}
        for trial in trials:
            for update, score in scores.curve(self._storage, self._trials(trial)).items():
                if update not in trial.intermediate_values:
                    scored.setdefault(update, []).append((trial, score))
        for update, each in sorted(scored.items()):
            for trial, score in each:
                self._database.set_trial_intermediate_value(trial._trial_id, update, score)
            yield from ((update, trial) for trial, _ in each)

    def _is_behind(self, study: optuna.Study, trial: FrozenTrial, update: int) -> float | None:
        """The score at which Optuna's rule stops a suggestion after `update`; None where it does not. The rule remembers who was there."""
        now = self._database.get_trial(trial._trial_id)
        return now.intermediate_values[update] if study.pruner.prune(study, now) else None

    def _outcome(self, keys: Sequence[str]) -> Outcome:
        return outcome(keys, self._ledger, self._storage, self._search.objective)

    def _trials(self, trial: FrozenTrial) -> tuple[Trial, ...]:
        return tuple(self._ledger.entries[key].trial for key in _keys(trial))

    def _of(self, study: str, *states: TrialState) -> list[FrozenTrial]:
        """The trials of a study that we added, in order."""
        return [trial for trial in self._studies[study].get_trials(deepcopy=False, states=states or None) if KEY in trial.user_attrs]

    def _suggestions(self, study: str) -> list[Mapping[str, Any]]:
        """What the manifest has of a study, in order, without suggestions that make no sense here or have lost trials."""
        made = self._ledger.suggestions.get(study, ())
        return [each for each in made if known(each["keys"], self._ledger) and self._spaces[study].fits(each["params"])]

    def _left(self, study: str) -> int:
        return self._spaces[study].left(self._drawn(study), [each["keys"] for each in self._suggestions(study)])

    def _open(self, name: str, space: Space) -> optuna.Study:
        evaluations = space.trials({})[0].evaluation_updates()
        first = evaluations[min(self._search.grace, len(evaluations)) - 1]
        return optuna.create_study(
            storage=self._database, study_name=self._name(name), directions=_directions(self._search),
            pruner=_pruner(self._search.stop, first), load_if_exists=True,
        )  # fmt: skip

    def _name(self, study: str) -> str:
        """The name in the database, where others may keep a study of the same sweep. Older code knew no difference."""
        if not self._shared:
            return study
        own = f"{study}/{self._ledger.begun}"
        existing = set(optuna.get_all_study_names(self._database))
        made = self._ledger.suggestions.get(study, ())
        if own in existing or study not in existing or not made or any("number" in each for each in made[:1]):
            return own
        theirs = optuna.load_study(study_name=study, storage=self._database).get_trials(deepcopy=False)
        return study if all(known(_keys(trial), self._ledger) for trial in theirs if KEY in trial.user_attrs) else own


def _directions(search: Search) -> list[StudyDirection]:
    return [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE] if search.objective == "pareto" else [StudyDirection.MAXIMIZE]


def _sampler(search: Search, seed: int) -> optuna.samplers.BaseSampler:
    if search.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, multivariate=False)


def _pruner(stop: str, first: int) -> optuna.pruners.BasePruner:
    """Optuna's early-stopping rule of this name; it stops nothing before update `first`."""
    if stop == "asha":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=first, reduction_factor=REDUCTION)
    return optuna.pruners.MedianPruner(UNSTOPPED, first) if stop == "median" else optuna.pruners.NopPruner()


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


def _key(trials: Iterable[Trial]) -> str:
    return " ".join(trial.key for trial in trials)


def _mark(params: Mapping[str, Any], keys: Sequence[str]) -> str:
    """What tells one suggestion from another: also those of which no trial can be made."""
    return " ".join(keys) or repr(sorted(params.items()))


def _keys(trial: FrozenTrial) -> list[str]:
    """The keys of our trials, one per seed."""
    return str(trial.user_attrs[KEY]).split()
