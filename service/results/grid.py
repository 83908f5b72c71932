"""The grid of a sweep as short params of its MLflow run: `grid.seed` is `0-4`, `grid.sparsity` is `0, 0.5, 0.95`.

MLflow's params cannot change, and a grid can grow. So the params are what the sweep's first run planned, and the tags of the same names
(`winnow.grid.seed`) what all runs have. An adaptive sweep has no grid; its tags are what it has suggested so far.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from itertools import accumulate
from typing import Any

from service.ledger.ledger import Ledger
from trainables.trial import MAPPINGS, Trial

AXES = ("dataset", "algorithm", "pruner", "sparsity", "seed", "updates")  # shown also where all trials share the value
NOT_SHOWN = ("fresh", "data")  # which copy of a trial it is
SUGGESTIONS = "winnow.grid.suggestions"
MOST = 90  # axes: MLflow takes a hundred params and a hundred tags in one call
LENGTH = 250  # characters of a value: a line of MLflow's page


def params_of(ledger: Ledger) -> dict[str, str]:
    """The grid that the sweep's first run planned; empty for an adaptive sweep."""
    return {} if ledger.adaptive or not ledger.entries else grid_of(ledger.first.values())


def tags_of(ledger: Ledger) -> dict[str, str]:
    """All that the sweep has planned so far, and how many suggestions that is of a search."""
    suggested = len({(study, *each["keys"]) for study, made in ledger.suggestions.items() for each in made if each["keys"]})
    tags = {f"winnow.{name}": value for name, value in grid_of(entry.trial for entry in list(ledger.entries.values())).items()}
    return tags | ({SUGGESTIONS: f"{suggested}"} if suggested else {})


def grid_of(trials: Iterable[Trial]) -> dict[str, str]:
    """The values of each axis in the order of planning: AXES, and every setting that some trial does not leave at its default."""
    told = [_settings(trial) for trial in trials]
    names = list(dict.fromkeys([*AXES, *(name for each in told for name in each)]))[:MOST]
    return {f"grid.{name}": shown(list(dict.fromkeys(each.get(name, "default") for each in told))) for name in names if told}


def shown(values: Sequence[Any]) -> str:
    """`0-4, 7`; values that make more than LENGTH characters end with how many there are."""
    numbers = sorted(value for value in values if isinstance(value, int) and not isinstance(value, bool))
    words = (
        _ranges(numbers) if len(numbers) == len(values) else [f"{value:g}" if isinstance(value, float) else str(value) for value in values]
    )
    text = ", ".join(words)
    if len(text) <= LENGTH:
        return text
    end = f", ... ({len(values):,} values)"
    room = LENGTH - len(end)
    whole = sum(stop <= room for stop in accumulate(len(word) + 2 for word in words))  # a value may have commas of its own: (64, 64)
    return (", ".join(words[:whole]) or text[:room]) + end


def _settings(trial: Trial) -> dict[str, Any]:
    """AXES, and what is not at its default."""
    found: dict[str, Any] = {name: getattr(trial, name) for name in AXES}
    for field in fields(Trial):
        value = getattr(trial, field.name)
        if field.name in MAPPINGS:
            found |= {f"{field.name}.{name}": str(each) if isinstance(each, tuple) else each for name, each in value.items()}
        elif field.name not in (*AXES, *NOT_SHOWN) and value != field.default:
            found[field.name] = value
    return found


def _ranges(numbers: Sequence[int]) -> list[str]:
    """`0-4`, `7` of sorted numbers; two in a row stay two."""
    rows: list[list[int]] = []
    for number in numbers:
        if rows and number == rows[-1][-1] + 1:
            rows[-1].append(number)
        else:
            rows.append([number])
    return [text for row in rows for text in ([f"{row[0]}-{row[-1]}"] if len(row) > 2 else map(str, row))]
