"""What a run would do: trials, those done, stacks, datasets, time. Imports no torch, ray or mlflow, so that planning is instant."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from search_spaces.sweep import Sweep, expand, load_sweep, override
from search_spaces.sweep.ranges import Range
from search_spaces.sweep.space import spaces
from service.ledger import manifest
from service.ledger.ledger import TERMINAL, Ledger
from service.planning import devices
from service.planning.packing import pack
from service.planning.update_cost import price
from service.spool import lines as spool
from service.storage import paths, trial_objects
from trainables.datasets import local
from trainables.trial import Stack, Trial

# Dense updates per second of one stack, evaluations included, until this storage has measured its own: (device, algorithm).
UPDATES_PER_SECOND = {("cpu", "bc"): 450.0, ("cpu", "td3_bc"): 130.0, ("cpu", "iql"): 95.0}
OTHERWISE = {"cpu": 30.0, "cuda": 25_000.0}
STACK_SIZE = {"cpu": 4, "cuda": 32}  # why: docs/decisions/012-stacks-on-a-cpu.md
ROUNDS = 2  # on CPUs each place gets so many stacks at least, so that none is left waiting for long at the end


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A sweep against what its storage holds: `state` and, where another sweep did the trial, `elsewhere`, by trial key.

    Of an adaptive sweep the trials are those suggested so far, with `left` suggestions to come. `others` is all that other
    sweeps have done.
    """

    name: str
    sweep: Sweep
    trials: tuple[Trial, ...]
    state: Mapping[str, str]
    elsewhere: Mapping[str, str]
    absent: tuple[str, ...]
    device: str
    size: int
    slots: int
    stacks: tuple[Stack, ...]
    rates: Mapping[str, float]
    seconds: float
    left: int = 0
    others: Mapping[str, str] = field(default_factory=dict)
    execution: str = "auto"

    @property
    def todo(self) -> list[Trial]:
        return [trial for trial in self.trials if self.state[trial.key] not in TERMINAL]

    @property
    def needs(self) -> tuple[str, ...]:
        """The datasets that a run would train on."""
        return self.sweep.datasets if self.left else tuple(dict.fromkeys(trial.dataset for trial in self.todo))


def make_plan(
    name: str,
    settings: Sequence[str] = (),
    *,
    storage: Path,
    device: str = "auto",
    size: int | None = None,
    retry: bool = False,
    fresh: bool = False,
    slots: int | None = None,
    execution: str = "auto",
) -> Plan:
    """Expand the sweep, look up what is done, pack the rest. Writes nothing; raises UserError for any bad input.

    `retry`: trials that failed are to do again. `fresh`: what other sweeps have done is trained again, apart.
    `slots`: how many stacks train at a time, where that is known.
    """
    sweep = override(load_sweep(name), settings)
    absent = absent_datasets(sweep.datasets)
    trial_objects.pull(storage)
    ledgers = manifest.read_all(storage, required=name)
    own, elsewhere = ledgers.get(name, Ledger()), _done_elsewhere(ledgers, name)
    trials = tuple(as_trained(trial, name, own, fresh) for trial in expand(sweep))
    left = 0
    if sweep.search:
        trials, left = suggested(sweep, name, own)
    state = {t.key: _state(own.state(t.key), t.key in elsewhere, retry) for t in trials}
    todo = [t for t in trials if state[t.key] not in TERMINAL]
    device = devices.local(device)
    slots = slots or (len(os.sched_getaffinity(0)) if device == "cpu" else 1)
    size = size or stack_size(device, 0 if sweep.search else len(todo), slots)
    stacks = pack(todo, size, progress_of(storage, todo), limits(own, todo), (device, execution))
    rates = {algorithm: _rate(ledgers, device, algorithm) for algorithm in sweep.algorithms}
    unknown = left * len(sweep.seeds) * sweep.updates / (slots * min(rates.values()))
    return Plan(
        name=name, sweep=sweep, trials=trials, state=state, elsewhere={k: s for k, s in elsewhere.items() if k in state},
        absent=absent, device=device, size=size, slots=slots, stacks=stacks, rates=rates,
        seconds=_seconds(stacks, lambda t: cost(t, rates, device, execution), slots) + unknown,
        left=left, others=elsewhere, execution=execution,
    )  # fmt: skip


def stack_size(device: str, trials: int, slots: int) -> int:
    """The most trials that train as one model, where nobody has asked for a size, and a GPU's memory is not known."""
    most = STACK_SIZE[device]
    return most if device == "cuda" else max(1, min(most, trials // (ROUNDS * slots)))


def suggested(sweep: Sweep, name: str, own: Ledger) -> tuple[tuple[Trial, ...], int]:
    """The trials that an adaptive sweep has been suggested, and how many suggestions are left; from the manifest, without optuna."""
    assert sweep.search is not None
    studies: dict[str, set[str]] = {space.study(name): set() for space in spaces(sweep)}
    keys: dict[str, None] = {}
    for entry in own.entries.values():
        detail = entry.events[0].detail
        if detail.get("study") in studies:
            studies[detail["study"]].add(" ".join(detail["keys"]))
            keys |= dict.fromkeys(detail["keys"])
    left = sum(max(0, sweep.search.suggestions - len(made)) for made in studies.values())
    return tuple(own.entries[key].trial for key in keys), left


def as_trained(trial: Trial, name: str, own: Ledger, fresh: bool = False) -> Trial:
    """The trial as the sweep trains it: one of its own where it was once asked for afresh, or is now and is not this sweep's work yet."""
    variant = replace(trial, fresh=name)
    if variant.key in own.entries:
        return variant
    known = own.entries.get(trial.key)
    return variant if fresh and (known is None or known.reused) else trial


def limits(ledger: Ledger, trials: Sequence[Trial]) -> dict[str, int]:
    """The largest stack that failures have left to a trial, by key."""
    known = ((trial.key, ledger.entries[trial.key].stack_limit()) for trial in trials if trial.key in ledger.entries)
    return {key: size for key, size in known if size}


def absent_datasets(ids: Sequence[str]) -> tuple[str, ...]:
    """Those of `ids` that are not on this machine yet; raises UserError for one that can neither be recorded nor downloaded."""
    absent = tuple(id for id in ids if not local.exists(id))
    for id in absent:
        local.folder(id)  # a malformed id ends here
        if id.startswith(local.OURS):
            from trainables.datasets.collect.tiers import parse  # imports numpy, so only where it is needed

            parse(id)
    return absent


def progress_of(storage: Path, trials: Sequence[Trial]) -> dict[str, int]:
    """The update that each trial would go on from, as its spool tells; none for one that has not begun."""
    begun = {folder.name for folder in paths.trials(storage).glob("*")}
    return {key: max(0, spool.committed_update(spool.read(paths.spool(storage, key)))) for key in (t.key for t in trials) if key in begun}


def describe(plan: Plan) -> str:
    """The plan as people read it."""
    name, sweep, counts = plan.name, plan.sweep, Counter(plan.state.values())
    done_here = sum(plan.state[k] == "done" and k not in plan.elsewhere for k in plan.state)
    todo = len(plan.todo)
    lines = [
        f"{name}: {len(plan.trials)} trials of {sweep.updates:,} updates, {sweep.evaluations} evaluations of {sweep.episodes} episodes"
        + (f", {sweep.final_episodes} final episodes" if sweep.final_episodes else ""),
        *(f"  {axis:<12}{_listed(getattr(sweep, axis))}" for axis in ("datasets", "algorithms", "pruners", "sparsities", "seeds")),
        *(f"  hyper.{name}  {value}" for name, value in sweep.hyper.items()),
        *([f"  {'search':<12}{sweep.search}, of which {plan.left} are to come"] if sweep.search else []),
        f"  {'done':<12}{done_here} here, {len(plan.elsewhere)} by another sweep of this storage; "
        f"failed {counts['failed']}, diverged {counts['diverged']}" + (f", stopped {counts['stopped']}" if counts["stopped"] else ""),
        *(f"  {'reused':<12}{count} of sweep {other}" for other, count in Counter(plan.elsewhere.values()).items()),
        f"  {'to run':<12}{todo} in {len(plan.stacks)} stacks of at most {plan.size}, {plan.slots} at a time on {plan.device}",
    ]
    for id in plan.absent:
        lines.append(f"  {'first':<12}{id} is not here yet: it will be {'recorded' if id.startswith(local.OURS) else 'downloaded'}")
    if todo or plan.left:
        rates = ", ".join(f"{algorithm} {rate:,.0f}" for algorithm, rate in plan.rates.items())
        lines.append(f"  {'time':<12}about {duration(plan.seconds)} at {rates} dense updates/s of a stack")
    return "\n".join(lines)


def to_json(plan: Plan) -> dict[str, Any]:
    """The plan for programs: every trial with its state, and the stacks by trial keys."""
    trials = [{"key": t.key, "name": t.name, "state": plan.state[t.key], "done_by": plan.elsewhere.get(t.key)} for t in plan.trials]
    return {
        "sweep": plan.name, "device": plan.device, "stack_size": plan.size, "slots": plan.slots, "seconds": plan.seconds,
        "absent_datasets": list(plan.absent), "suggestions_left": plan.left, "updates_per_second": dict(plan.rates), "trials": trials,
        "stacks": [[trial.key for trial in stack.trials] for stack in plan.stacks],
    }  # fmt: skip


def duration(seconds: float) -> str:
    """`45 s`, `7 min`, `3.5 h`, `12 d`."""
    for unit, length, until in (("s", 1, 90), ("min", 60, 90), ("h", 3600, 48)):
        if seconds / length < until:
            value = seconds / length
            return f"{value:.1f} {unit}" if unit == "h" and value < 10 else f"{value:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"


def _state(own: str, elsewhere: bool, retry: bool) -> str:
    if elsewhere and own != "done":
        return "done"
    if retry and own == "failed":  # what has diverged would do so again, bit for bit
        return "planned"
    return own or "planned"


def _done_elsewhere(ledgers: Mapping[str, Ledger], name: str) -> dict[str, str]:
    """Trial keys that are not done in this sweep but in another one, with that one's name."""
    own = set(ledgers[name].keys_in("done")) if name in ledgers else set()
    others = (
        (key, ledger.entries[key].detail.get("sweep", other))
        for other, ledger in ledgers.items()
        if other != name
        for key in ledger.keys_in("done")
    )
    return {key: other for key, other in others if key not in own}


def _rate(ledgers: Mapping[str, Ledger], device: str, algorithm: str) -> float:
    """Dense updates per second of a stack: the median of what this storage measured, else the table's."""
    measured = [
        float(entry.detail["updates_per_second"]) * price(entry.trial, device, entry.detail.get("execution", "auto"))
        for ledger in ledgers.values()
        for entry in ledger.entries.values()
        if entry.state == "done" and entry.trial.algorithm == algorithm and entry.detail.get("device") == device
        and entry.detail.get("updates_per_second")
    ]  # fmt: skip
    return median(measured) if measured else UPDATES_PER_SECOND.get((device, algorithm), OTHERWISE[device])


def cost(trial: Trial, rates: Mapping[str, float], device: str, execution: str) -> float:
    """Seconds that an update of the trial takes, where `rates` are dense updates per second by algorithm."""
    return price(trial, device, execution) / rates[trial.algorithm]


def _seconds(stacks: Sequence[Stack], costs: Callable[[Trial], float], slots: int) -> float:
    """The time that `slots` workers need when each takes the next stack as it gets free."""
    free = [0.0] * max(1, slots)
    for stack in stacks:
        free.sort()
        free[0] += sum(map(costs, stack.trials)) * stack.lead.updates
    return max(free)


def _listed(values: Sequence[object] | Range, most: int = 6) -> str:
    if isinstance(values, Range):
        return str(values)
    more = f", ... ({len(values)} in all)" if len(values) > most else ""
    return ", ".join(str(value) for value in values[:most]) + more
