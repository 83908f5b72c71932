"""The results of an adaptive sweep as tables: the best suggestions, or the front of score against effective density."""

from __future__ import annotations

import contextlib
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from search_spaces.sweep import Sweep, expand, load_sweep, override
from search_spaces.sweep.settings import setting_name
from search_spaces.sweep.space import Space, spaces
from service.ledger.ledger import Ledger
from service.results.statistics import mean_interval
from service.search.outcomes import DONE, FAILED, INFEASIBLE, known, outcome
from service.storage import paths, shared_files
from service.storage.commands import command
from service.terminal.columns import aligned
from service.terminal.labels import algorithm_name, method_name
from service.terminal.links import how_to_open
from service.tracking import notes
from service.tracking.runs import Tracking
from trainables import plugins
from trainables.errors import UserError
from trainables.output import printable

SHOWN = 10  # best suggestions of a single objective
REASONS_SHOWN = 3  # suggestions without a score, of each kind, that are named
NEW_SEEDS = 5
NAMES: dict[str, Callable[[str], str]] = {"algorithm": algorithm_name, "pruner": method_name}  # parameters whose values have names


@dataclass(frozen=True)
class Try:
    """A suggestion and how it ended. `values` are its objectives, first the mean of `scores`, one per seed; both are empty without a score.

    `why` it failed or is infeasible: no trial can be made of it, or none trained."""

    number: int
    state: str
    values: tuple[float, ...]
    params: Mapping[str, Any]
    name: str
    keys: tuple[str, ...]
    on_front: bool
    why: str = ""
    scores: tuple[float, ...] = ()


@dataclass(frozen=True)
class Finding:
    """The suggestions of one study; `budget` is what each was given, and `again` the command that trains the best one with new seeds."""

    study: str
    objective: str
    tries: tuple[Try, ...]
    budget: str = ""
    again: str = ""

    def best(self) -> list[Try]:
        """The best first; with two objectives those that no other beats in both, the densest first."""
        done = [each for each in self.tries if each.values]
        if self.objective == "pareto":
            return sorted((each for each in done if each.on_front), key=lambda each: -each.values[1])
        return sorted(done, key=lambda each: -each.values[0])[:SHOWN]


def find(name: str, sweep: Sweep, ledger: Ledger, storage: Path, overrides: Sequence[str] = ()) -> list[Finding]:
    """The results of an adaptive sweep's studies, by its manifest and its trials' spools; `overrides`, with which the sweep was changed,
    are for the command."""
    assert sweep.search is not None
    budget = (
        f"each with {len(sweep.seeds)} seed{'s' if len(sweep.seeds) > 1 else ''} for {sweep.updates:,} updates; "
        f"scores are of the last evaluation, {sweep.episodes} episodes a seed"
    )
    found = []
    for space in spaces(sweep):
        study = space.study(name)
        few = f"; the space has only {space.size:g} different suggestions" if space.size < sweep.search.suggestions else ""
        made = [each for each in ledger.suggestions.get(study, ()) if space.fits(each["params"])]
        tries = _tries(made, ledger, storage, sweep.search.objective)
        finding = Finding(study, sweep.search.objective, tries, budget + few)
        if best := sorted(finding.best(), key=lambda each: -each.values[0]):
            settings = _as_grid(space, best[0].params, overrides)
            with contextlib.suppress(UserError):  # of a sweep that makes no grid without something that cannot be set here
                expand(override(load_sweep(name), settings))
                finding = replace(finding, again=command("run", name, *(f"--set={each}" for each in settings), storage=storage))
        found.append(finding)
    return found


def _tries(suggestions: Sequence[Mapping[str, Any]], ledger: Ledger, storage: Path, objective: str) -> tuple[Try, ...]:
    """Each suggestion once, though it was made again."""
    tries: dict[str, Try] = {}
    for number, each in enumerate(suggestions):
        keys = tuple(each["keys"])
        if " ".join(keys) in tries or not known(keys, ledger):
            continue
        if not keys:
            tries[f"infeasible {number}"] = Try(number, INFEASIBLE, (), each["params"], "", (), False, str(each.get("why", "")))
            continue
        end = outcome(keys, ledger, storage, objective)
        first = ledger.entries[keys[0]].trial.name
        tries[" ".join(keys)] = Try(number, end.state, end.values, each["params"], first, keys, False, end.why, end.scores)
    if objective == "pareto":
        points = [each.values for each in tries.values() if each.values]
        tries = {key: replace(each, on_front=bool(each.values) and not _beaten(each.values, points)) for key, each in tries.items()}
    return tuple(tries.values())


def _beaten(point: tuple[float, ...], points: Iterable[tuple[float, ...]]) -> bool:
    """Whether another has a score as high and a density as low, and one of them better."""
    return any(score >= point[0] and density <= point[1] and (score, density) != point for score, density in points)


def _as_grid(space: Space, params: Mapping[str, Any], overrides: Sequence[str]) -> list[str]:
    """The settings that train a suggestion with five new seeds."""
    first = max(space.sweep.seeds) + 1
    given = space.as_grid(params, f"{first}-{first + NEW_SEEDS - 1}")
    names = {setting.partition("=")[0] for setting in given}
    hyper, settings = plugins.hyper_defaults(space.algorithm), plugins.pruner_settings(str(params.get("pruner", space.sweep.pruners[0])))

    def kept(name: str) -> bool:
        mapping, _, inner = name.partition(".")
        own = {"hyper": hyper, "pruning": settings}.get(mapping)
        return name not in names and mapping != "search" and (own is None or inner in own)

    return [*(each for each in overrides if kept(setting_name(each))), *given]


def table(found: Finding) -> str:
    """The best suggestions, one per line, and after them why others have no score."""
    best, states = found.best(), Counter(each.state for each in found.tries)
    what = "front of score against the actor's effective density" if found.objective == "pareto" else "best scores"
    lines = [f"{found.study}: {what}; {', '.join(f'{count} {state}' for state, count in states.items()) or 'nothing suggested yet'}"]
    names = list(dict.fromkeys(name for each in best for name in each.params))
    several = any(len(each.scores) > 1 for each in best)
    interval, density = ["95 % interval"] * several, ["eff. density"] * (found.objective == "pareto")
    rows = [["score", *interval, *density, *names, "trial", "keys"]]
    for each in best:
        numbers = [f"{each.values[0]:.1f}", *([_interval(each.scores)] if several else [])]
        numbers += [f"{100 * value:.2f} %" for value in each.values[1:]]
        rows.append([*numbers, *(_text(name, each.params.get(name, "")) for name in names), each.name, " ".join(each.keys)])
    if best:
        lines += [found.budget, aligned(rows)] if found.budget else [aligned(rows)]
    for state in (INFEASIBLE, FAILED):
        lines += _reasons(state, [each for each in found.tries if each.state == state])
    if states[DONE] > 1 and found.again:
        lines.append(
            f"Chosen from {states[DONE]} by these scores, the best are too high on average; what the one with the highest score "
            f"has with new seeds: `{found.again}`"
        )
    return "\n".join(lines)


def _interval(scores: Sequence[float]) -> str:
    if len(scores) < 2:
        return "-"
    found = mean_interval(scores)
    return f"{found.low:.1f} to {found.high:.1f}"


def _reasons(state: str, tries: Sequence[Try]) -> list[str]:
    """Why suggestions have no score, the first of them."""
    lines = []
    for each in tries[:REASONS_SHOWN]:
        chosen = ", ".join(f"{name} {_text(name, value)}" for name, value in each.params.items())
        lines.append(f"{state}: {chosen}: {each.why}")
    if len(tries) > REASONS_SHOWN:
        lines.append(f"and {len(tries) - REASONS_SHOWN} more {state} ones (--json)")
    return lines


def to_json(found: Sequence[Finding]) -> list[dict[str, Any]]:
    """Every suggestion of every study."""
    return [asdict(each) for each in found]


def tell(name: str, found: Sequence[Finding], tracking: Tracking, storage: Path) -> str:
    """Print the tables, write them to the sweep's folder if allowed, and say how to see the rest; MLflow is only read."""
    text = "\n\n".join(table(each) for each in found)
    print(f"\n{printable(text)}\n", flush=True)  # before anything is written: also on a full disk
    kept = shared_files.write_if_allowed(paths.table(storage, name), text.encode() + b"\n")
    print("\n".join([*filter(None, [kept]), how_to_open(tracking.uri, tracking.page(name))]))
    if paths.study(storage, name).exists():
        print(f"the search: {shlex.join(['optuna-dashboard', str(paths.study(storage, name))])}")
    return text


def show(name: str, found: Sequence[Finding], tracking: Tracking, storage: Path) -> None:
    """The end of a run: `tell`, and the same on the sweep's run in MLflow, which is then done."""
    text = tell(name, found, tracking, storage)
    parent = tracking.parent_run(name)
    tracking.log_artifacts(parent, [paths.table(storage, name)])
    tracking.describe(parent, notes.of_search(name, text))
    failed = sum(each.state == FAILED for finding in found for each in finding.tries)
    tracking.set_state(parent, "done", {"message": f"{failed} suggestions have no score"} if failed else {})


def _text(name: str, value: Any) -> str:
    if value and name in NAMES:
        return NAMES[name](value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
