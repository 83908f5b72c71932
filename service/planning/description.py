"""A plan as people and programs read it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any

from search_spaces.sweep.ranges import Range
from search_spaces.sweep.sweep import VARIED, Sweep
from service.planning.options import HOURS, TrainingOptions
from service.planning.plan import Plan
from service.terminal import clock
from service.terminal.words import duration
from trainables.datasets import local
from trainables.trial import PLURALS, hyper_ranges
from trainables.trial.pruner_traits import traits_of
from trainables.trial.published import reward_shift

CROWDED = 1.1  # processes for each CPU from which it is worth a word


def describe(plan: Plan) -> str:
    """The plan as people read it."""
    sweep, counts = plan.sweep, Counter(plan.state.values())
    done_here = sum(plan.state[k] == "done" and k not in plan.elsewhere for k in plan.state)
    todo = len(plan.todo)
    lines = [
        *(_of_all_runs(plan) if plan.settings.resumed else _of_the_file(plan)),
        *([f"  {'search':<12}{sweep.search}, of which {plan.left} are to come"] if sweep.search else []),
        f"  {'done':<12}{done_here} here, {len(plan.elsewhere)} by another sweep of this storage; "
        f"failed {counts['failed']}, diverged {counts['diverged']}" + (f", stopped {counts['stopped']}" if counts["stopped"] else ""),
        *(f"  {'reused':<12}{count} of sweep {other}" for other, count in Counter(plan.elsewhere.values()).items()),
        *([f"  {'to run':<12}{todo} {_where(plan, f'{len(plan.stacks)} stacks')}"] if todo or not plan.left else []),
        *([f"  {'to suggest':<12}{_suggestions(plan)}"] if plan.left else []),
    ]
    lines += [f"  {'other data':<12}{phrase}" for phrase in plan.other_data]
    for id in plan.absent:
        lines.append(f"  {'first':<12}{id} is not here yet: it will be {'recorded' if id.startswith(local.OURS) else 'downloaded'}")
    if todo or plan.left:
        rates = ", ".join(f"{algorithm} {rate:,.0f}" for algorithm, rate in plan.rates.items())
        busy = f", {plan.crowding:.1f} times slower on a machine as busy as now" if plan.crowding >= CROWDED else ""
        start = f"{duration(plan.start)} to start, then {rates} dense updates/s of a stack"
        if plan.left and sweep.search and sweep.search.stop != "none":
            busy += f"; if {sweep.search.stop} stops as many suggestions as it usually does"
        lines.append(f"  {'time':<12}about {duration(plan.seconds)}: {start}{busy}")
    if (todo or plan.left) and (said := limits(plan.settings.options)):
        lines.append(f"  {'limits':<12}{said}")
    return "\n".join(lines)


def _where(plan: Plan, parts: str) -> str:
    """In what stacks, and on what device; `parts` says into what the trials are put."""
    if plan.device == "all":
        return "on GPUs and cores at once, each trial on one kind of device to its end; --device cpu or cuda takes one alone"
    return f"in {parts} of at most {plan.stack_size}, {plan.max_concurrent} at a time on {plan.device}"


def _suggestions(plan: Plan) -> str:
    """What a search has still to suggest: as many suggestions in a round as fill the stacks, each trained with every seed."""
    seeds = len(plan.sweep.seeds)
    return f"{plan.left * seeds} trials ({plan.left} suggestions x {seeds} seeds) {_where(plan, 'rounds, stacks')}"


def limits(options: TrainingOptions) -> str:
    """The limits of a run: `until 07:00 tomorrow, in 9 h 12 min; 40 core-hours`; empty without one."""
    given = {name: value for name in HOURS if (value := getattr(options, name)) is not None}
    hours = [f"{value:g} {name.removeprefix('max_').replace('_', '-')}" for name, value in given.items()]
    return "; ".join(([f"until {clock.meant(options.until)}"] if options.until else []) + hours)


def _of_the_file(plan: Plan) -> list[str]:
    """The grid that the sweep's file declares, with what was put in place of its values."""
    sweep = plan.sweep
    return [
        f"{plan.name}: {len(plan.trials)} trials of {sweep.updates:,} updates, {sweep.evaluations} evaluations of {sweep.episodes} episodes"
        + (f", {sweep.final_episodes} final episodes" if sweep.final_episodes else ""),
        *(f"  {axis:<12}{_listed(getattr(sweep, axis))}" for axis in PLURALS.values()),
        *(f"  {name}  {_listed(value) if isinstance(value, tuple) else value}" for name, value in _changed(sweep).items()),
        *(f"  {'rewards':<12}{phrase}" for phrase in _shifted(sweep)),
        *(f"  {'masks':<12}{phrase}" for phrase in _still(plan)),
        *(f"  hyper.{name}  {value}" for name, value in sweep.hyper.items()),
        *(f"  pruning.{name}  {value}" for name, value in sweep.pruning.items()),
    ]


def _shifted(sweep: Sweep) -> Iterator[str]:
    """What the algorithms' authors add to rewards, which nobody has asked for."""
    for algorithm in sweep.algorithms if sweep.reward_shift is None else ():
        shifts = {dataset: reward_shift(algorithm, dataset) for dataset in sweep.datasets}
        for shift in sorted({shift for shift in shifts.values() if shift}):
            datasets = _listed([dataset for dataset, own in shifts.items() if own == shift])
            yield f"{shift:+g} for {algorithm} on {datasets}, as its authors do; --set reward_shift=0 leaves them as they are"


def _still(plan: Plan) -> Iterator[str]:
    """Which masks are meant to change in training, and will not: the default of a setting does not fit so few updates."""
    for pruner in plan.sweep.pruners:
        trial = next((trial for trial in plan.trials if trial.pruner == pruner), None)
        traits = traits_of(pruner)
        if trial is not None and (traits.grows or traits.rescores):  # others change theirs also where a default does not fit
            for said in hyper_ranges.outside("pruners", pruner, trial.pruning_values() | {"updates": trial.updates}):
                yield f"{said}: its masks will not change"


def _of_all_runs(plan: Plan) -> list[str]:
    """What the trials of several runs, each with its own settings, have in common."""
    updates = _listed([f"{number:,}" for number in sorted({trial.updates for trial in plan.trials})])
    return [
        f"{plan.name}: {len(plan.trials)} trials of {updates} updates, all that its runs have planned",
        *(f"  {axis:<12}{_listed(list(dict.fromkeys(getattr(t, field) for t in plan.trials)))}" for field, axis in PLURALS.items()),
    ]


def _changed(sweep: Sweep) -> dict[str, Any]:
    """The options of pruning and training that the sweep has not at their defaults."""
    defaults = {field.name: field.default for field in fields(Sweep)}
    return {name: getattr(sweep, name) for name in ("protocol", "published", *VARIED) if getattr(sweep, name) != defaults[name]}


def to_json(plan: Plan) -> dict[str, Any]:
    """The plan for programs: every trial with its state, and the stacks by trial keys."""
    state = {key: "planned" if state == "leased" else state for key, state in plan.state.items()}  # a run would continue it
    trials = [{"key": t.key, "name": t.name, "state": state[t.key], "done_by": plan.elsewhere.get(t.key)} for t in plan.trials]
    return {
        "sweep": plan.name, "device": plan.device, "stack_size": plan.stack_size, "max_concurrent": plan.max_concurrent,
        "seconds": plan.seconds, "start_seconds": plan.start, "crowding": plan.crowding,
        "absent_datasets": list(plan.absent), "suggestions_left": plan.left,
        "other_data": list(plan.other_data), "notes": [] if plan.settings.resumed else [*_shifted(plan.sweep), *_still(plan)],
        "updates_per_second": dict(plan.rates), "trials": trials,
        "stacks": [[trial.key for trial in stack.trials] for stack in plan.stacks],
    }  # fmt: skip


def _listed(values: Sequence[object] | Range, limit: int = 6) -> str:
    if isinstance(values, Range):
        return str(values)
    more = f", ... ({len(values)} in all)" if len(values) > limit else ""
    return ", ".join(str(value) for value in values[:limit]) + more
