"""What a run would do: trials, those done, stacks, datasets, time. Imports no torch, ray or mlflow, so that planning is instant."""

from __future__ import annotations

import heapq
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean, median
from typing import Any

from search_spaces.sweep import Sweep, expand, load_sweep, override
from search_spaces.sweep.space import Space, spaces
from service.ledger import manifest
from service.ledger.ledger import TERMINAL, Ledger
from service.ledger.manifest import Followed
from service.ledger.others import done_elsewhere
from service.planning import devices, estimate
from service.planning.data_here import DataHere, other_data
from service.planning.gpu_stacks import UNKNOWN, StackTiming, stack_timings
from service.planning.packing import pack
from service.planning.run_settings import RunSettings
from service.planning.update_cost import price, prior
from service.spool import lines as spool
from service.storage import paths, trial_objects
from service.storage.commands import command
from trainables import project
from trainables.collector import paused
from trainables.datasets import local
from trainables.environments import name_modules
from trainables.errors import UserError
from trainables.trial import Stack, Trial

STACK_SIZE = {"cpu": 4, "cuda": UNKNOWN}  # why: docs/decisions/012-stacks-on-a-cpu.md
ROUNDS = 2  # stacks per CPU at least, so that no CPU is left idle for long at the end


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A sweep against what its storage holds: `state` and, where another sweep did the trial, `elsewhere`, by trial key.

    Of an adaptive sweep the trials are those suggested so far, with `left` suggestions to come. `others` is all that other
    sweeps have done. `stack_timings`: what stacks on GPUs took. `other_data`: phrases about trials that have seen other data than what
    is here; `not_opened`: datasets for which that is not known yet. `device`, `stack_size` and `max_concurrent` are those of this machine
    where `settings.options` leave them open. `rates` are dense updates per second of a stack by algorithm on an idle machine; `seconds`
    is what a run takes, of which `start` are over before its first update, and all with `crowding` processes for each CPU. `data` and
    `followed` have read what a run asks again.
    """

    name: str
    sweep: Sweep
    settings: RunSettings
    trials: tuple[Trial, ...]
    state: Mapping[str, str]
    elsewhere: Mapping[str, str]
    absent: tuple[str, ...] = ()
    device: str
    stack_size: int
    max_concurrent: int
    stacks: tuple[Stack, ...]
    rates: Mapping[str, float]
    seconds: float
    start: float = 0.0
    crowding: float = 1.0
    left: int = 0
    others: Mapping[str, str] = field(default_factory=dict)
    other_data: tuple[str, ...] = ()
    stack_timings: tuple[StackTiming, ...] = ()
    not_opened: tuple[str, ...] = ()
    data: DataHere | None = None
    followed: Followed | None = None

    @property
    def part(self) -> int:
        """The number of a further driver that trains the sweep's trials; 0 of the sweep's own."""
        return project.part(self.name)

    @property
    def todo(self) -> list[Trial]:
        return [trial for trial in self.trials if self.state[trial.key] not in TERMINAL]

    @property
    def needs(self) -> tuple[str, ...]:
        """The datasets that a run would train on."""
        return tuple(dict.fromkeys([*(self.sweep.datasets if self.left else ()), *(trial.dataset for trial in self.todo)]))


@dataclass(frozen=True)
class _Known:
    """What a storage and this machine hold, as a plan for the sweep `name` reads it: once."""

    name: str
    storage: Path
    ledgers: Mapping[str, Ledger]  # of all sweeps
    followed: Followed  # the sweep's own, for whoever reads it again
    data: DataHere

    @classmethod
    def of(cls, name: str, storage: Path) -> _Known:
        trial_objects.pull(storage)
        ledgers = manifest.read_all(storage, required=name, followed=(followed := Followed(storage, name)))
        return cls(name, storage, ledgers, followed, DataHere(storage, ledgers.get(name, Ledger())))

    @property
    def ledger(self) -> Ledger:
        return self.ledgers.get(self.name, Ledger())


@paused()
def make_plan(name: str, settings: RunSettings | None = None, *, storage: Path) -> Plan:
    """Expand the sweep, look up what is done, pack the rest. Writes nothing; raises UserError for any bad input."""
    settings = settings or RunSettings()
    name_modules(settings.options.imports)
    sweep = override(load_sweep(name), settings.overrides)
    _refuse_part(name, sweep, settings)
    absent = absent_datasets(sweep.datasets)
    known, left = _Known.of(name, storage), list[tuple[Space, int]]()
    others = done_elsewhere(known.ledgers, name)
    own = (as_trained(trial, name, known.ledger, settings.fresh, others) for trial in expand(sweep))
    trials = tuple(known.data.as_trained(trial, settings.new_data) for trial in own)
    if sweep.search:
        trials, left = suggested(sweep, name, known.ledger)
    check_cuts({(trial.dataset, trial.transitions) for trial in trials if trial.transitions and trial.dataset not in absent})
    return replace(_planned(sweep, settings, trials, left, known), absent=absent)


def plan_again(plan: Plan, storage: Path) -> Plan:
    """The same plan, now that more is known: datasets that were absent or unopened are not any more."""
    settings = plan.settings
    if not settings.resumed:
        return make_plan(plan.name, settings, storage=storage)
    changes = {name: getattr(settings, name) for name in ("study_storage", "new_data", "same_code", "notify")}
    return resume_plan(plan.name, storage, vars(settings.options), **changes)


@paused()
def resume_plan(name: str, storage: Path, options: Mapping[str, Any] | None = None, **changes: Any) -> Plan:
    """All trials that the sweep has ever planned, whatever its file says now, trained with the options of its newest run.

    `options` of TrainingOptions, and `changes` of the other settings that are not empty, replace those. An adaptive sweep also continues to
    suggest, as in its newest run. Writes nothing; raises UserError for a sweep that was never run.
    """
    sweep = load_sweep(name)
    known, left = _Known.of(name, storage), list[tuple[Space, int]]()
    ledger = known.ledger
    if not ledger.epoch:
        start = command("run", name, storage=storage)
        raise UserError(f"sweep {name!r} has not been run in {paths.shown(storage)}, so there is nothing to resume; `{start}` starts it")
    settings = RunSettings.from_json(ledger.settings)
    changes, options = {name: value for name, value in changes.items() if value}, dict(options or {})
    options["imports"] = tuple(dict.fromkeys([*settings.options.imports, *options.get("imports", ())]))
    settings = replace(settings, options=replace(settings.options, **options), resumed=True, **changes)
    if sweep.search:
        sweep = override(sweep, settings.overrides)
    trials = tuple(entry.trial for entry in ledger.entries.values())
    if sweep.search:
        own, left = suggested(sweep, name, ledger)
        trials += tuple(trial for trial in own if trial.key not in ledger.entries)
    else:  # of two versions of a trial, the one for the data that is here
        on_data = (known.data.as_trained(trial, settings.new_data) for trial in trials)
        trials = tuple({trial.key: trial for trial in on_data}.values())
    plan = _planned(sweep, settings, trials, left, known)
    return replace(plan, absent=absent_datasets(plan.needs))


def _planned(sweep: Sweep, settings: RunSettings, trials: tuple[Trial, ...], to_come: Sequence[tuple[Space, int]], known: _Known) -> Plan:
    """What is left to do of the trials, in stacks, and how long that takes; which datasets are absent is for the caller to say."""
    name, ledger, ledgers, options = known.name, known.ledger, known.ledgers, settings.options
    left = sum(suggestions for _, suggestions in to_come)
    elsewhere = done_elsewhere(ledgers, name)
    # What is infeasible to a search that has had success stays so to `resume`: it would fail again, and be one suggestion more.
    final = sweep.search and ledger.keys_in("done") and not settings.retry_failed
    kept = {key for key, entry in ledger.entries.items() if final and entry.infeasible}
    state = {t.key: _state(ledger.state(t.key), t.key in elsewhere, settings.retries and t.key not in kept) for t in trials}
    if sweep.search is None:  # what a search has stopped, when the sweep was one, is no answer to a grid
        state = {key: "planned" if now == "stopped" else now for key, now in state.items()}
    todo = [t for t in trials if state[t.key] not in TERMINAL]
    # What is done on other data stays done to `resume`, unless more is to be trained on that dataset: the two would not be comparable.
    at_stake = {trial.dataset for trial in todo} if settings.resumed and not left else {trial.dataset for trial in trials}
    device = devices.local(options.device, search=bool(sweep.search), execution=options.execution)
    if device == "all" and sweep.search:
        raise UserError(f"sweep {name!r} is a search, which compares what it trains: it takes --device cpu or cuda, not all")
    shown, device = device, "cpu" if device == "all" else device  # stacks and time are those of the cores alone
    max_concurrent = at_a_time(device, options.max_concurrent)
    size = options.stack_size or stack_size(device, 0 if sweep.search else len(todo), max_concurrent)
    progress = progress_of(known.storage, todo)
    stacks = pack(todo, size, progress, limits(ledger, todo), (device, options.execution))
    algorithms = dict.fromkeys([*sweep.algorithms, *(trial.algorithm for trial in trials)])
    pace = estimate.known(device)
    rates = {algorithm: _rate(ledgers, device, algorithm, pace) for algorithm in algorithms}
    unknown = [_expected(space, number, size, rates, device, options.execution) for space, number in to_come if number]
    left_of = {t.key: (t.updates - progress.get(t.key, 0)) * cost(t, rates, device, options.execution) for t in todo}
    training = _seconds([sum(left_of[t.key] for t in stack.trials) for stack in stacks], max_concurrent, unknown)
    crowding = estimate.crowding(min(max_concurrent, len(stacks) + sum(number for number, _ in unknown)))
    start = pace.start * crowding if training else 0.0
    return Plan(
        name=name, sweep=sweep, settings=settings, trials=trials, state=state,
        elsewhere={k: s for k, s in elsewhere.items() if k in state}, device=shown, stack_size=size,
        max_concurrent=max_concurrent, stacks=stacks, rates=rates,
        seconds=start + training * crowding, start=start, crowding=crowding,
        left=left, others=elsewhere, other_data=tuple(other_data([t for t in trials if t.dataset in at_stake], known.data)),
        not_opened=known.data.not_opened(trials), stack_timings=tuple(stack_timings(ledgers)), data=known.data, followed=known.followed,
    )  # fmt: skip


def at_a_time(device: str, most: int | None) -> int:
    """How many stacks train at a time, as far as is known before a cluster is asked; `most` is what the user allows."""
    if device != "cpu" or os.environ.get("RAY_ADDRESS"):
        return most or (devices.cores() if device == "cpu" else 1)
    return min(most or devices.cores(), devices.cores())


def stack_size(device: str, trials: int, max_concurrent: int) -> int:
    """The default stack size, where a GPU's memory is not known yet."""
    limit = STACK_SIZE[device]
    return limit if device == "cuda" else max(1, min(limit, trials // (ROUNDS * max_concurrent)))


def suggested(sweep: Sweep, name: str, ledger: Ledger) -> tuple[tuple[Trial, ...], list[tuple[Space, int]]]:
    """The trials suggested so far to an adaptive sweep, and how many suggestions are left of each space; from the manifest, without Optuna.

    What `forget` has removed of a suggestion is made again."""
    trials: dict[str, Trial] = {}
    left: list[tuple[Space, int]] = []
    for space in spaces(sweep):
        made = [each for each in ledger.suggestions.get(space.study(name), ()) if space.fits(each["params"])]
        whole = []
        for each in made:
            known = {key: ledger.entries[key].trial for key in each["keys"] if key in ledger.entries}
            if len(known) < len(each["keys"]):
                known |= _made_again(space, each)
            trials |= known
            whole += [each["keys"]] * (len(known) == len(each["keys"]))
        left.append((space, space.left([each["keys"] for each in made], whole)))
    return tuple(trials.values()), left


def _made_again(space: Space, suggestion: Mapping[str, Any]) -> dict[str, Trial]:
    """The trials of a suggestion by key; none where there are no such trials any more, e.g. of a plug-in that is gone."""
    try:
        raw = space.trials(suggestion["params"])
        copies = suggestion.get("copies") or [{}] * len(raw)
        trials = {trial.key: trial for trial in (replace(each, **copy) for each, copy in zip(raw, copies, strict=True))}
    except (UserError, ValueError, TypeError):
        return {}
    return trials if [*trials] == suggestion["keys"] else {}


def as_trained(trial: Trial, name: str, ledger: Ledger, fresh: bool = False, others: Collection[str] = ()) -> Trial:
    """The trial as the sweep trains it: a copy of its own where `--fresh` asked for one, now or before, unless this sweep trains it itself;
    `others` are the keys that other sweeps have done and this one has not."""
    if not fresh and not ledger.copies:
        return trial
    variant = replace(trial, fresh=name)
    if variant.key in ledger.entries:
        return variant
    known = ledger.entries.get(trial.key)
    return variant if fresh and (known is None or known.reused or trial.key in others) else trial


def limits(ledger: Ledger, trials: Sequence[Trial]) -> dict[str, int]:
    """The largest stack size that a trial's failures still allow, by key."""
    known = ((trial.key, ledger.entries[trial.key].stack_limit()) for trial in trials if trial.key in ledger.entries)
    return {key: size for key, size in known if size}


def absent_datasets(ids: Sequence[str]) -> tuple[str, ...]:
    """Those of `ids` that are not on this machine yet; raises UserError for one that can neither be recorded nor downloaded."""
    absent = tuple(id for id in ids if not local.exists(id))
    for id in absent:
        local.folder(id)  # a malformed id ends here
        local.refuse_d4rl_name(id)
        if id.startswith(local.OURS):
            from trainables.datasets.collect.tiers import parse  # imports numpy, so only where it is needed

            parse(id)
    return absent


def check_cuts(wanted: Collection[tuple[str, int]]) -> None:
    """Raise UserError for a dataset here that its trials' `transitions` would not cut, or leave without an episode."""
    for dataset, transitions in sorted(wanted):
        from trainables.datasets.minari_store import check_cut, read_metadata  # imports numpy, so only where it is needed

        about = read_metadata(dataset)
        check_cut(dataset, transitions, about.transitions, -(-about.transitions // about.episodes))  # at least the mean has to fit


def progress_of(storage: Path, trials: Sequence[Trial]) -> dict[str, int]:
    """The update that each trial would continue from, as committed in its spool; none for one that has not begun."""
    begun = {folder.name for folder in paths.trials(storage).glob("*")}
    return {key: max(0, spool.committed_update(spool.read(paths.spool(storage, key)))) for key in (t.key for t in trials) if key in begun}


def _refuse_part(name: str, sweep: Sweep, settings: RunSettings) -> None:
    """Raise UserError for a part of what one driver alone can train."""
    if not project.part(name):
        return
    start = f"`winnow run {project.typed(project.whole(name))}` trains it"
    if sweep.search:
        raise UserError(f"{name}: an adaptive sweep has no parts, because one driver follows its studies; {start}")
    if settings.fresh:
        raise UserError(f"{name}: --fresh trains trials that belong to one sweep, so it has no parts; {start}")


def _state(here: str, elsewhere: bool, retry: bool) -> str:
    if elsewhere and here != "done":
        return "done"
    if retry and here == "failed":  # a diverged trial would diverge again, bit for bit
        return "planned"
    return here or "planned"


def _rate(ledgers: Mapping[str, Ledger], device: str, algorithm: str, pace: estimate.MachinePace) -> float:
    """Dense updates per second of a stack on an idle machine: the median of this storage's measurements, else of this machine's last
    runs, else the table's."""
    measured = [
        float(entry.detail["updates_per_second"]) * price(entry.trial, device, entry.detail.get("execution", "auto"))
        * float(entry.detail.get("crowding", 1.0))
        for ledger in ledgers.values()
        for entry in ledger.entries.values()
        if entry.state == "done" and entry.trial.algorithm == algorithm and entry.detail.get("device") == device
        and entry.detail.get("updates_per_second")
    ]  # fmt: skip
    return median(measured) if measured else pace.rates.get(algorithm, prior(device, algorithm))


def cost(trial: Trial, rates: Mapping[str, float], device: str, execution: str) -> float:
    """Seconds that an update of the trial takes, where `rates` are dense updates per second by algorithm."""
    return price(trial, device, execution) / rates[trial.algorithm]


def _expected(space: Space, left: int, size: int, rates: Mapping[str, float], device: str, execution: str) -> tuple[int, float]:
    """How many stacks of `size` train the suggestions left of a space, and the seconds that one takes: the mean over what may be suggested,
    as far as the search's rule does not stop it."""
    sweep, examples = space.sweep, space.examples()
    assert sweep.search is not None
    share = sweep.search.share_trained(examples[0].evaluation_updates(), int(min(sweep.search.suggestions, space.size)))
    trials = left * len(sweep.seeds)
    size = min(size, trials)
    return -(-trials // size), size * share * sweep.updates * fmean(cost(trial, rates, device, execution) for trial in examples)


def _seconds(stacks: Iterable[float], workers: int, alike: Iterable[tuple[int, float]] = ()) -> float:
    """The time that `workers` need for stacks of so many seconds when each takes the next one as soon as it is free; then those `alike`,
    given as how many there are and the seconds of each."""
    workers = max(1, workers)
    free = [0.0] * workers  # a heap
    everyone = 0.0
    for number, seconds in alike:  # of thousands, all but the last round keep every worker busy
        everyone += number // workers * seconds
        stacks = [*stacks, *[seconds] * (number % workers)]
    for seconds in stacks:
        heapq.heapreplace(free, free[0] + seconds)
    return everyone + max(free)
