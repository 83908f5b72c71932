"""The study at the paper's budget, docs/full-study.md: what a million updates of pruned networks reach beside dense ones.

winnow adopt benchmarks/study_full.zip     # then `winnow run study_full`, `winnow run study_full_dense`, as often as needed
python -m benchmarks.learning.full [--storage FOLDER]     # renews full.json beside this file and the tables of the page
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.tables import fill, markdown
from search_spaces.studies.study_full import SWEEP as PRUNED
from search_spaces.studies.study_full_dense import SWEEP as DENSE
from search_spaces.sweep import expand
from service.results import statistics
from service.results.report.gather import gather
from service.results.report.over_tasks import CLAIM
from service.results.runs import Run
from service.results.statistics import Estimate
from service.storage import paths
from service.terminal.labels import algorithm_name, dataset_name, method_name
from service.tracking.runs import Tracking

SWEEPS = {"study_full": PRUNED, "study_full_dense": DENSE}
MADE = Path(__file__).with_suffix(".json")
PAGE = Path(__file__).parents[2] / "docs" / "full-study.md"
BUDGETS = (50_000, 250_000, PRUNED.updates)
Place = tuple[str, str, str]  # dataset, algorithm, pruner


@dataclass(frozen=True)
class Trained:
    """A finished trial. `scores`: of each evaluation, by its update, the last one of the final episodes. `seconds`: of all its updates."""

    dataset: str
    algorithm: str
    pruner: str
    seed: int
    scores: dict[int, float]
    seconds: float


def trained(run: Run) -> Trained:
    scores = {point.update: round(point.score, 2) for point in run.points} | {run.trial.updates: round(run.final, 2)}
    return Trained(run.trial.dataset, run.trial.algorithm, run.trial.pruner, run.trial.seed, scores, round(run.points[-1].seconds, 1))


@cache
def read() -> list[Trained]:
    rows = json.loads(MADE.read_text()) if MADE.exists() else []
    return [Trained(**row | {"scores": {int(update): score for update, score in row["scores"].items()}}) for row in rows]


def cell(place: Place) -> dict[int, Trained]:
    """By seed."""
    return {trial.seed: trial for trial in read() if (trial.dataset, trial.algorithm, trial.pruner) == place}


def places() -> list[Place]:
    return [(dataset, algorithm, pruner) for dataset in PRUNED.datasets for algorithm in PRUNED.algorithms for pruner in PRUNED.pruners]


def at(trials: Mapping[int, Trained], seeds: Sequence[int], budget: int) -> np.ndarray:
    """Scores after so many updates, or after the last one of a trial that made fewer."""
    return np.array([trials[seed].scores[min(budget, max(trials[seed].scores))] for seed in seeds])


def share(place: Place, budget: int) -> Estimate | None:
    """Of the dense score after as many updates, or after all that dense networks make; None without a seed that both have."""
    own, dense = cell(place), cell((*place[:2], "dense"))
    seeds = sorted(own.keys() & dense.keys())
    return statistics.ratio(at(own, seeds, budget), at(dense, seeds, budget)) if seeds else None


def claim() -> str:
    """How many cells retain CLAIM of the dense score, budget by budget; then whether it matters which weights are kept."""
    lines = []
    for budget in BUDGETS:
        shares = {place: one for place in places() if (one := share(place, budget))}
        lines.append(f"{budget:,} updates: {counted(shares.values())}")
        lines += [f"  {method_name(p)}: {counted(one for place, one in shares.items() if place[2] == p)}" for p in PRUNED.pruners]
    return "\n".join(["```", *lines, beside_chance(), "```"])


def counted(shares: Iterable[Estimate]) -> str:
    own = list(shares)
    several = [one for one in own if one.seeds > 1]
    sure, lost = sum(one.low >= CLAIM for one in several), sum(one.high < CLAIM for one in several)
    notes = [f"by their whole interval {sure} do, {lost} do not, {len(several) - sure - lost} are undecided"] if several else []
    notes += [f"{alone} with one seed have no interval"] if (alone := len(own) - len(several)) else []
    kept = sum(one.value >= CLAIM for one in own)
    return f"{kept} of {len(own)} cells retain >= {100 * CLAIM:g} % of dense" + (f" ({'; '.join(notes)})" if notes else "")


def beside_chance() -> str:
    """SNIP beside random masks after the last update, over the tasks where both have the same seeds."""
    tasks = [[cell((*place, pruner)) for pruner in ("snip", "random_erk")] for place in dict.fromkeys(place[:2] for place in places())]
    common = [(own, sorted(own[0].keys() & own[1].keys())) for own in tasks if own[0].keys() & own[1].keys()]
    if not common:
        return "SNIP beside Random (ERK): no task has both"
    found = statistics.difference(*([at(own[side], seeds, PRUNED.updates) for own, seeds in common] for side in (0, 1)))
    interval = found.note or f"90 % interval {found.low:+.1f} to {found.high:+.1f}"
    return f"SNIP beside Random (ERK), over {len(common)} tasks: {found.value:+.1f} points of normalized score ({interval})"


def cells() -> Iterator[list[str]]:
    """A row per dataset and algorithm: the dense score, last and best, and the share of it that each pruner keeps at each budget."""
    methods = [(pruner, budget) for pruner in PRUNED.pruners for budget in BUDGETS]
    yield [
        "data", "algorithm", f"dense, {DENSE.updates:,} updates", "its best evaluation",
        *(f"{method_name(pruner)}, {budget:,}" for pruner, budget in methods),
    ]  # fmt: skip
    for dataset, algorithm in dict.fromkeys(place[:2] for place in places()):
        dense = cell((dataset, algorithm, "dense"))
        last = statistics.mean_interval(at(dense, sorted(dense), DENSE.updates)) if dense else None
        best = np.mean([max(trial.scores.values()) for trial in dense.values()]) if dense else None
        row = [dataset_name(dataset), algorithm_name(algorithm), shown(last, 1.0, 1), "-" if best is None else f"{best:.1f}"]
        yield row + [shown(share((dataset, algorithm, pruner), budget), 100.0, 0, " %") for pruner, budget in methods]


def shown(found: Estimate | None, times: float, digits: int, unit: str = "") -> str:
    """With its interval; how many seeds, where some of the planned ones are missing."""
    if found is None:
        return "-"
    span = "" if found.note else f" [{times * found.low:.{digits}f}, {times * found.high:.{digits}f}]"
    missing = "" if found.seeds == len(PRUNED.seeds) else f" {found.seeds}/{len(PRUNED.seeds)}"
    return f"{times * found.value:.{digits}f}{unit}{span}{missing}"


def progress() -> str:
    planned = {name: len(list(expand(sweep))) for name, sweep in SWEEPS.items()}
    kinds = [[trial for trial in read() if (trial.pruner == "dense") is dense] for dense in (False, True)]
    pruned, dense = (f"{len(kind)} of {planned[name]}" for kind, name in zip(kinds, SWEEPS, strict=True))
    text = f"{pruned} pruned trials and {dense} dense ones are done."
    for algorithm in PRUNED.algorithms if all(kinds) else ():
        spent = [[trial.seconds for trial in kind if trial.algorithm == algorithm] for kind in kinds]
        if all(spent):
            text += (
                f" {algorithm_name(algorithm)}: {PRUNED.updates:,} pruned updates took {median(spent[0]):,.0f} s on a core, "
                f"{DENSE.updates:,} dense ones {median(spent[1]):,.0f} s (medians)."
            )
    return text


def texts() -> dict[str, str]:
    """What stands between the marks of docs/full-study.md."""
    return {"progress": progress(), "claim": claim(), "cells": markdown(cells())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storage", help="where the sweeps ran (default as for the service)")
    storage = paths.root(parser.parse_args().storage)
    tracking = Tracking(storage)
    there = [sweep for sweep in SWEEPS if sweep in tracking.sweeps()]
    found = sorted(json.dumps(asdict(trained(run))) for run in gather(there, tracking, storage).runs if run.done)
    MADE.write_text("[\n" + ",\n".join(found) + "\n]\n")
    read.cache_clear()
    for name, text in texts().items():
        fill(PAGE, name, text)


if __name__ == "__main__":
    main()
