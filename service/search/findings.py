"""The results of an adaptive sweep as tables: the best suggestions, or the front of score against effective density."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from service.storage import paths, shared_files
from service.terminal.columns import aligned
from service.terminal.labels import algorithm_name, method_name
from service.terminal.links import how_to_open
from service.tracking import notes
from service.tracking.runs import Tracking
from trainables.output import printable

SHOWN = 10  # best suggestions of a single objective
INFEASIBLE_SHOWN = 3  # that are named
NAMES: dict[str, Callable[[str], str]] = {"algorithm": algorithm_name, "pruner": method_name}  # parameters whose values have names


@dataclass(frozen=True)
class Try:
    """A suggestion and how it ended. `values` are its objectives, first the mean score of its seeds; empty without a score.

    `why` it is infeasible, where it is: no trial can be made of it, or none trained."""

    number: int
    state: str
    values: tuple[float, ...]
    params: Mapping[str, Any]
    name: str
    keys: tuple[str, ...]
    on_front: bool
    why: str = ""


@dataclass(frozen=True)
class Finding:
    """The suggestions of one study."""

    study: str
    objective: str
    tries: tuple[Try, ...]

    def best(self) -> list[Try]:
        """The best first; with two objectives those that no other beats in both, the densest first."""
        done = [each for each in self.tries if each.values]
        if self.objective == "pareto":
            return sorted((each for each in done if each.on_front), key=lambda each: -each.values[1])
        return sorted(done, key=lambda each: -each.values[0])[:SHOWN]


def table(found: Finding) -> str:
    """The best suggestions, one per line, and after them those that are infeasible."""
    best, states = found.best(), Counter(each.state for each in found.tries)
    what = "front of score against the actor's effective density" if found.objective == "pareto" else "best scores"
    lines = [f"{found.study}: {what}; {', '.join(f'{count} {state}' for state, count in states.items()) or 'nothing suggested yet'}"]
    names = list(dict.fromkeys(name for each in best for name in each.params))
    rows = [["score", *(["eff. density"] if found.objective == "pareto" else []), *names, "trial", "keys"]]
    for each in best:
        numbers = [f"{each.values[0]:.1f}", *(f"{100 * density:.2f} %" for density in each.values[1:])]
        rows.append([*numbers, *(_text(name, each.params.get(name, "")) for name in names), each.name, " ".join(each.keys)])
    if best:
        lines.append(aligned(rows))
    infeasible = [each for each in found.tries if each.why]
    for each in infeasible[:INFEASIBLE_SHOWN]:
        chosen = ", ".join(f"{name} {_text(name, value)}" for name, value in each.params.items())
        lines.append(f"infeasible: {chosen}: {each.why}")
    if len(infeasible) > INFEASIBLE_SHOWN:
        lines.append(f"and {len(infeasible) - INFEASIBLE_SHOWN} more infeasible ones (--json)")
    return "\n".join(lines)


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
    failed = sum(each.state == "failed" for finding in found for each in finding.tries)
    tracking.set_state(parent, "done", {"message": f"{failed} suggestions have no score"} if failed else {})


def _text(name: str, value: Any) -> str:
    if value and name in NAMES:
        return NAMES[name](value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
