"""How long a plan takes on places of several kinds, and what it costs: the scheduler, simulated on what there is or what is asked for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from service.planning import devices
from service.planning.gpu_stacks import UNKNOWN, GpuStacks, groups
from service.planning.plan import STACK_SIZE, Plan
from service.planning.update_cost import Kind, costs, families, prior
from service.scheduling.costs import Job
from service.scheduling.scheduler import Scheduler
from service.scheduling.simulator import bound, simulate
from service.scheduling.sizes import MOST_STACKS
from service.terminal.words import duration
from trainables.errors import UserError, unknown
from trainables.trial import Trial, shape_of, stack_mates

COUNTED = ("cpu", "gpu")  # what --places counts, besides MIG slices by their profiles
PROFILE = re.compile(r"(\dc\.)?\dg\.\d+gb")
UNITS = {"cpu": "core-hours", "gpu": "GPU-hours"}


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What the scheduler makes of a plan. `places`: cores and GPUs; `hours` of them in use, `trials` and `stacks`, by kind. `seconds`: the
    makespan, and `at_least` what no schedule can beat. `price`: of the hours, None where nobody has said what they cost."""

    places: Mapping[str, int]
    seconds: float
    at_least: float
    hours: Mapping[str, float]
    trials: Mapping[str, int]
    stacks: Mapping[str, int]
    price: float | None = None

    def lines(self) -> list[str]:
        """For people, as `describe` has them."""
        on = ", ".join(f"{self.trials.get(kind, 0)} trials on {count} {kind}" for kind, count in self.places.items())
        spent = ", ".join(f"{hours:,.2f} {UNITS.get(kind, f'hours of {kind}')}" for kind, hours in self.hours.items())
        return [
            f"  {'places':<12}{on}",
            f"  {'makespan':<12}about {duration(self.seconds)} once started, on idle places; "
            f"no schedule takes less than {duration(self.at_least)}",
            f"  {'cost':<12}{spent}" + (f": {self.price:,.2f}" if self.price is not None else ""),
        ]

    def to_json(self) -> dict[str, Any]:
        return {name: dict(value) if isinstance(value, Mapping) else value for name, value in vars(self).items()}


def amounts(text: str, flag: str, whole: bool) -> dict[str, float]:
    """`cpu=64,gpu=8,1g.5gb=7` as numbers by kind; raises UserError that shows what is wrong with it."""
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = (piece.strip() for piece in part.partition("="))
        if name not in COUNTED and not PROFILE.fullmatch(name):
            raise unknown(f"kind of place in {flag}", name, (*COUNTED, "MIG slices such as 1g.5gb"))
        if name in found:
            raise UserError(f"{flag} {text!r} names {name} twice")
        try:
            found[name] = int(number) if whole else float(number)
        except ValueError:
            raise UserError(f"{flag} {part.strip()!r} is not a {'whole number' if whole else 'number'}, as in {name}=8") from None
        if not 0 <= found[name] < float("inf"):
            raise UserError(f"{flag} {part.strip()!r} is below 0 or infinite")
    if whole and not any(found.values()):
        raise UserError(f"{flag} {text!r} names no places")
    return found


def forecast(plan: Plan, places: Mapping[str, int] | None, prices: Mapping[str, float], progress: Mapping[str, int]) -> Forecast | None:
    """Simulate what is left of a plan on `places`, by default those of this machine that the plan would use; None where nothing is left.

    `prices`: of an hour of a core or a GPU, of which a slice costs its part. Raises UserError for a search, which learns what to train
    only on the way."""
    if plan.sweep.search:
        if places:
            raise UserError(f"sweep {plan.name!r} is a search: what it trains depends on scores, so --places cannot be simulated")
        return None
    if not plan.todo:
        return None
    options = plan.settings.options
    stacks = GpuStacks(options)
    here = {"all": devices.gpus_here(), "cuda": max(1, round(plan.max_concurrent * (options.gpu_fraction or 1)))}
    gpus = {kind: count for kind, count in places.items() if kind != "cpu"} if places else {"gpu": here.get(plan.device, 0)}
    cores = places.get("cpu", 0) + MOST_STACKS * sum(gpus.values()) if places else plan.max_concurrent
    for kind in gpus:
        stacks.divide(_kind(kind, UNKNOWN), groups(plan.todo, progress), {"cpu": cores, **gpus}, untried=True)
    if places is None:
        on_gpus = sum(count * stacks.stacks(kind) for kind, count in gpus.items())
        places = {"cpu": 0 if plan.device == "cuda" else max(0, plan.max_concurrent - on_gpus), **gpus}
    places = {kind: count for kind, count in places.items() if count}
    slots = {kind: count if kind == "cpu" else count * stacks.stacks(kind) for kind, count in places.items()}
    kinds = {
        kind: replace(
            _kind(kind, options.stack_size or STACK_SIZE["cpu" if kind == "cpu" else "cuda"]),
            share=1.0 if kind == "cpu" else stacks.share(kind),
        )
        for kind in slots
    }
    on_cores = plan.rates if plan.device != "cuda" else {}
    rates = {trial.algorithm: on_cores.get(trial.algorithm) or prior("cpu", trial.algorithm) for trial in plan.todo}
    work = jobs(plan.todo, progress, kinds, rates, options.execution)
    course = simulate(Scheduler([*gpus]), work, slots)
    hours = {kind: course.busy[kind] * kinds[kind].share / 3600 for kind in kinds}
    each = {kind: prices.get("cpu" if kind == "cpu" else "gpu", 0.0) * known.part for kind, known in kinds.items()}
    each |= {kind: price for kind, price in prices.items() if kind in each}
    price = sum(hours[kind] * each[kind] for kind in kinds) if prices else None
    return Forecast(
        places={kind: int(places[kind]) for kind in kinds}, seconds=course.makespan, at_least=bound(work, slots), hours=hours,
        trials=dict(course.trials), stacks=dict(course.stacks), price=price,
    )  # fmt: skip


def _kind(name: str, most: int) -> Kind:
    """A kind of place as --places names it, by the name that Ray would have for it."""
    return Kind(name=f"MIG {name}" if PROFILE.fullmatch(name) else name, device="cpu" if name == "cpu" else "cuda", most=most)


def jobs(
    trials: Sequence[Trial], progress: Mapping[str, int], kinds: Mapping[str, Kind], rates: Mapping[str, float], execution: str
) -> dict[Job, int]:
    """The trials as classes of equal ones, with how many of each there are."""
    counts = Counter[tuple[Any, ...]]()
    examples: dict[tuple[Any, ...], tuple[Trial, int]] = {}
    for trial in trials:
        done = progress.get(trial.key, 0)
        alike = (shape_of(trial), done, stack_mates(trial) if execution == "auto" else "", trial.sparsity)
        counts[alike] += 1
        examples.setdefault(alike, (trial, trial.updates - done))
    return {
        Job(alike, costs(trial, updates, kinds, rates, execution), families(trial), alike[:2]): counts[alike]
        for alike, (trial, updates) in examples.items()
    }
