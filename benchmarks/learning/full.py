"""The study at the paper's budget, docs/full-study.md: what a million updates of pruned networks reach beside dense ones.

winnow adopt benchmarks/study_full.zip     # then `winnow run` of SWEEPS, as often as needed
python -m benchmarks.learning.full [--storage FOLDER]     # renews full.json beside this file and the tables of the page
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean, median

from benchmarks.learning.pages import diverges, draw, fill_all, measured, pictures, runs_of, scores_of, shown, storage_of, write
from benchmarks.tables import markdown
from search_spaces.studies.study_full import SWEEP as PRUNED
from search_spaces.studies.study_full_dense import SWEEP as DENSE
from search_spaces.studies.study_full_others import SWEEP as OTHERS
from search_spaces.studies.study_full_shuffled import SWEEP as SHUFFLED
from search_spaces.studies.study_full_small import SWEEP as SMALL
from search_spaces.sweep import expand
from service.results.cells import DENSE as DENSE_PLACE
from service.results.cells import Cell, Task, suites_of, tasks_of
from service.results.outcomes import MISSING
from service.results.report import costs
from service.results.report.over_tasks import Count, aggregates, beside, choice, count
from service.results.report.style import Panel
from service.results.runs import Point, Run
from service.terminal.labels import algorithm_name, dataset_name, method_name
from trainables.trial import Trial

SWEEPS = {
    "study_full": PRUNED,
    "study_full_others": OTHERS,
    "study_full_small": SMALL,
    "study_full_shuffled": SHUFFLED,
    "study_full_dense": DENSE,
}
MADE = Path(__file__).with_suffix(".json")
PAGE = Path(__file__).parents[2] / "docs" / "full-study.md"
FOLDER = PAGE.with_suffix("")  # of its pictures
BUDGETS = (50_000, 250_000, PRUNED.updates)
(SPARSITY,) = PRUNED.sparsities
PRUNERS = (*PRUNED.pruners, *OTHERS.pruners)
CONTROLS = SHUFFLED_SNIP, SMALL_DENSE = "snip+shuffle", "small_dense"
OF_THE_ACTOR = {
    "signal": "mask/signal/actor", "loss": "train/actor_loss",
    "dormant units": "train/dormant_units/actor", "feature rank": "train/feature_rank/actor",
}  # fmt: skip
AT_THE_END = {"loss": 3, "dormant units": 2, "feature rank": 0}  # with the digits that are shown
FELL = 0.7  # of the best evaluation so far; dense networks that are below it are no measure of what was kept


@dataclass(frozen=True)
class Trained:
    """A trial that has ended. `pruner`: as Trial.method has it. `scores`: of each evaluation, by its update, the last one of the final
    episodes. `seconds`: of all its updates. `actor`: OF_THE_ACTOR, before training and after the last update. `outcome`: of one that has
    diverged, and has no scores."""

    dataset: str
    algorithm: str
    pruner: str
    seed: int
    scores: dict[int, float]
    seconds: float
    actor: dict[str, float]
    outcome: str = ""

    def is_of(self, trial: Trial) -> bool:
        return (self.dataset, self.algorithm, self.pruner, self.seed) == (trial.dataset, trial.algorithm, trial.method, trial.seed)

    def points(self, pace: float) -> Iterator[Point]:
        """The evaluations, as if each update had taken `pace` seconds."""
        for update, score in sorted(self.scores.items()):
            yield Point(update, score, math.nan, pace * update)


def trained(run: Run, metrics: Mapping[str, float]) -> Trained:
    trial = run.trial
    if not run.done:
        return Trained(trial.dataset, trial.algorithm, trial.method, trial.seed, {}, 0.0, {}, run.state)
    actor = {name: float(f"{metrics[metric]:.4g}") for name, metric in OF_THE_ACTOR.items() if metric in metrics}
    return Trained(trial.dataset, trial.algorithm, trial.method, trial.seed, scores_of(run), round(run.points[-1].seconds, 1), actor)


def read() -> list[Trained]:
    return [Trained(**row | {"scores": {int(n): score for n, score in row["scores"].items()}}) for row in json.loads(MADE.read_text())]


def tasks(budgets: Sequence[int] = BUDGETS, pruners: Sequence[str] = PRUNERS) -> list[Task]:
    """The study as the report knows it, once for each budget. Dense networks take part with what they had then, or at their end, and at
    equal time with all that they have. Each kind of network has the learning rates that docs/settings.md takes for it."""
    runs, known = [], read()
    pace = paces(known)
    for trial in (trial for sweep in SWEEPS.values() for trial in expand(sweep) if trial.method in ("dense", *pruners)):
        found = next((one for one in known if one.is_of(trial)), None)
        for budget in budgets:
            until = trial.updates if trial.pruner == "dense" else budget
            each = found.points(pace[trial.algorithm, trial.method]) if found and found.scores else ()
            points = tuple(point for point in each if point.update <= until)
            score = MISSING if not found else found.outcome or found.scores[min(budget, trial.updates)]
            runs.append(Run(replace(trial, updates=budget, hyper={}), score, points))
    return tasks_of(runs)


def paces(known: Sequence[Trained]) -> dict[tuple[str, str], float]:
    """Seconds of an update by algorithm and pruner, the median of the trials: what else the machine did varies more than they do."""
    kinds = {(one.algorithm, one.pruner) for one in known if one.scores}
    return {
        kind: median(one.seconds / max(one.scores) for one in known if one.scores and (one.algorithm, one.pruner) == kind) for kind in kinds
    }


def verdict() -> Iterator[list[str]]:
    """A row per algorithm and pruner: how many datasets keep 97 % of dense at each budget, and at the last one's time on a core. A share of
    dense networks that fell is counted, and said to be one; a cell whose dense mean may be 0 has none. Controls follow once they count."""
    yield ["algorithm", "network", *(f"{budget:,} updates" for budget in BUDGETS), f"{BUDGETS[-1]:,} updates, dense for as long"]
    found = tasks(BUDGETS, (*PRUNERS, *CONTROLS))
    for algorithm, pruner in ((algorithm, pruner) for algorithm in PRUNED.algorithms for pruner in (*PRUNERS, *CONTROLS)):
        own = [task for task in found if task.trial.algorithm == algorithm]
        at = {budget: [task.cells[pruner, SPARSITY] for task in own if task.trial.updates == budget] for budget in BUDGETS}
        columns = [*((at[budget], False) for budget in BUDGETS), (at[BUDGETS[-1]], True)]
        counts = [in_short(count(*column), beside_fallen(*column), without_share(*column)) for column in columns]
        if pruner in PRUNERS or any(column != "-" for column in counts):
            yield [algorithm_name(algorithm), method_name(pruner, SPARSITY), *counts]


def in_short(found: Count, fallen: int = 0, without: int = 0) -> str:
    parts = []
    if found.judged:
        diverged = f", {found.diverged} diverged" if found.diverged else ""
        parts.append(f"{found.kept} of {found.judged} ({found.sure} yes, {found.lost} no, {found.undecided} open{diverged})")
    parts += [f"{fallen} of the {found.kept} beside dense networks that fell"] * bool(fallen)
    parts += [f"{without} without a share"] * bool(without)
    parts += [f"{found.rest - without} to come"] * bool(parts and found.rest > without)
    return ", ".join(parts) or "-"


def without_share(cells: Sequence[Cell], in_time: bool = False) -> int:
    """How many cells have all their seeds, and a dense mean of which no share can be told, or `in_time` one that is not known."""
    return sum(cell.whole and not (cell.retained_in_time if in_time else cell.retained) for cell in cells if cell.done)


def beside_fallen(cells: Sequence[Cell], in_time: bool = False) -> int:
    """Of how many cells that keep 97 % the dense networks had been much better before they were compared."""
    return sum(fell(cell, in_time) for cell in cells if count([cell], in_time).kept)


def fell(cell: Cell, in_time: bool) -> bool:
    """Whether the dense mean that a cell is compared with is below FELL of the mean of the seeds' best evaluations until then."""
    budget, seconds = cell.runs[0].trial.updates, cell.done[0].points[-1].seconds
    seen = []
    for run in cell.dense:
        before = sum(point.seconds < seconds if in_time else point.update < budget for point in run.points)
        seen.append([point.score for point in run.points[: before + 1]])
    return mean(scores[-1] for scores in seen) < FELL * mean(map(max, seen))


def over_tasks() -> Iterator[list[str]]:
    """A row per algorithm, budget and network: means over the tasks that all of them have finished. Other masks take part once they have
    all of these. Algorithms are not averaged: they end at different times."""
    yield ["algorithm", "updates", "network", "tasks", "mean", "IQM", "better than dense"]
    for algorithm in whole_algorithms():
        for row in aggregates(of_one(algorithm, BUDGETS, whole_pruners(algorithm))):
            if row.tasks:
                numbers = [shown(found, found.seeds if found else 0) for found in (row.mean, row.iqm)]
                better = shown(row.improvement, row.improvement.seeds, 100.0, 0, " %") if row.improvement else "-"
                about = [algorithm_name(algorithm), row.suite.removesuffix(" updates"), method_name(row.method, row.sparsity)]
                yield [*about, str(len(row.tasks)), *numbers, better]


def chosen() -> str:
    """Whether it matters which weights are kept, as the report says it."""
    lines = [
        f"{algorithm_name(algorithm)}, {line}"
        for algorithm in whole_algorithms()
        for line in choice(of_one(algorithm, BUDGETS, whole_pruners(algorithm)))
    ]
    return "\n".join(["```", *lines, "```"])


def whole_algorithms() -> list[str]:
    """Those whose dense trials, and those with SNIP's and random masks, are all done: means over some datasets would mislead."""
    places = [DENSE_PLACE, *((pruner, SPARSITY) for pruner in PRUNED.pruners)]
    return [name for name in PRUNED.algorithms if all(not task.cells[place].absent for task in of_one(name) for place in places)]


def beside_controls() -> str:
    """SNIP's masks beside themselves shuffled, and every pruned network beside small dense ones, where both have all their seeds."""
    lines = []
    for algorithm in PRUNED.algorithms:
        whole = whole_pruners(algorithm)
        pairs = [(PRUNED.pruners[0], SHUFFLED_SNIP), *((pruner, SMALL_DENSE) for pruner in PRUNERS)]
        for suite, own in suites_of(of_one(algorithm, BUDGETS, (*PRUNERS, *CONTROLS))):
            for pair in pairs:
                if {*pair} <= {*whole}:
                    lines.append(f"{algorithm_name(algorithm)}, {beside(suite, own, *((each, SPARSITY) for each in pair))}")
    return "\n".join(["```", *lines, "```"]) if lines else "None is done yet."


def whole_pruners(algorithm: str) -> list[str]:
    """Those that have all their seeds on every dataset, the controls among them."""
    known = (*PRUNERS, *CONTROLS)
    own = of_one(algorithm, pruners=known)
    return [pruner for pruner in known if not any(task.cells[pruner, SPARSITY].absent for task in own)]


def of_one(algorithm: str, budgets: Sequence[int] = BUDGETS[-1:], pruners: Sequence[str] = PRUNERS) -> list[Task]:
    return [task for task in tasks(budgets, pruners) if task.trial.algorithm == algorithm]


def cells() -> Iterator[list[str]]:
    """A row per dataset and algorithm: the dense score, last and best, and the share of it that each pruner keeps at each budget."""
    columns = [(pruner, budget) for pruner in PRUNED.pruners for budget in BUDGETS]
    yield [
        "data", "algorithm", f"dense, {DENSE.updates:,} updates", "its best evaluation",
        *(f"{method_name(pruner)}, {budget:,}" for pruner, budget in columns),
    ]  # fmt: skip
    at = {(task.trial.dataset, task.trial.algorithm, task.trial.updates): task for task in tasks()}
    planned = len(PRUNED.seeds)
    for dataset, algorithm in ((dataset, algorithm) for dataset in PRUNED.datasets for algorithm in PRUNED.algorithms):
        dense = at[dataset, algorithm, PRUNED.updates].dense
        own = [one for one in read() if (one.dataset, one.algorithm, one.pruner) == (dataset, algorithm, "dense")]
        best = [max(one.scores.values()) for one in own if one.scores]
        shares = [at[dataset, algorithm, budget].cells[pruner, SPARSITY].retained for pruner, budget in columns]
        row = [dataset_name(dataset), algorithm_name(algorithm), shown(dense.mean if dense else None, planned)]
        yield [*row, f"{mean(best):.1f}" if best else "-", *(shown(share, planned, 100.0, 0, " %") for share in shares)]


def others() -> Iterator[list[str]]:
    """A row per dataset and algorithm of which other masks or controls are trained: what each keeps of the dense score at the end."""
    found = tasks(BUDGETS[-1:], (*PRUNERS, *CONTROLS))
    begun = [name for name in CONTROLS if any(task.cells[name, SPARSITY].done for task in found)]
    columns, planned = (*PRUNERS, *begun), len(PRUNED.seeds)
    yield ["data", "algorithm", f"dense, {DENSE.updates:,} updates", *map(method_name, columns)]
    for task in found:
        if any(task.cells[pruner, SPARSITY].done for pruner in (*OTHERS.pruners, *begun)):
            shares = [shown(task.cells[pruner, SPARSITY].retained, planned, 100.0, 0, " %") for pruner in columns]
            dense = shown(task.dense.mean if task.dense else None, planned)
            yield [dataset_name(task.trial.dataset), algorithm_name(task.trial.algorithm), dense, *shares]


def inside() -> Iterator[list[str]]:
    """A row per dataset, algorithm and pruner, least kept first: the share of the dense score, and pruned actors beside dense ones."""
    yield ["data", "algorithm", "network", "kept", "signal at first", *(f"{name}, dense and pruned" for name in AT_THE_END)]
    found = []
    for task in tasks(BUDGETS[-1:]):
        for pruner in PRUNED.pruners:
            cell, place = task.cells[pruner, SPARSITY], (task.trial.dataset, task.trial.algorithm)
            if cell.retained and cell.whole:
                pruned, dense = (actors(*place, which) for which in (pruner, "dense"))
                names = [dataset_name(place[0]), algorithm_name(place[1]), method_name(pruner), f"{100 * cell.retained.value:.0f} %"]
                ends = (f"{dense[name]:.{digits}f}, {pruned[name]:.{digits}f}" for name, digits in AT_THE_END.items())
                found.append((cell.retained.value, [*names, f"{pruned['signal']:.2f}", *ends]))
    yield from (row for _, row in sorted(found))


def actors(dataset: str, algorithm: str, pruner: str) -> dict[str, float]:
    """Means over seeds."""
    own = [one.actor for one in read() if (one.dataset, one.algorithm, one.pruner) == (dataset, algorithm, pruner)]
    return {name: mean(actor[name] for actor in own if name in actor) for name in OF_THE_ACTOR if any(name in actor for actor in own)}


def curves() -> list[Panel]:
    """Learning curves of the datasets whose seeds are all done."""
    whole = [task for task in tasks(BUDGETS[-1:], PRUNED.pruners) if not any(cell.absent for cell in task.cells.values())]
    return costs.curves(whole, "seconds")


def progress() -> str:
    done = [one for one in read() if one.scores]
    dense, pruned = ([one for one in done if (one.pruner == "dense") is kind] for kind in (True, False))
    planned = {name: len(list(expand(sweep))) for name, sweep in SWEEPS.items()}
    more = sum(one.pruner in OTHERS.pruners for one in pruned)
    small, controls = ([one for one in pruned if one.pruner in kind] for kind in ((SMALL_DENSE,), CONTROLS))
    pruned = [one for one in pruned if one.pruner in PRUNED.pruners]
    text = (
        f"{len(pruned)} of {planned['study_full']} trials with SNIP's and random masks, {more} of {planned['study_full_others']} with "
        f"other masks, {len(controls)} of {planned['study_full_small'] + planned['study_full_shuffled']} with controls and {len(dense)} of "
        f"{planned['study_full_dense']} dense ones are done."
    )
    for algorithm in PRUNED.algorithms:
        spent = [[one.seconds for one in kind if one.algorithm == algorithm] for kind in (pruned, dense, small)]
        if all(spent[:2]):
            text += (
                f" {algorithm_name(algorithm)}: {PRUNED.updates:,} pruned updates took {median(spent[0]):,.0f} s on a core, "
                f"{DENSE.updates:,} dense ones {median(spent[1]):,.0f} s (medians)."
            )
        if spent[2]:
            text += f" {PRUNED.updates:,} of small dense networks took {median(spent[2]):,.0f} s."
    return text


def texts() -> dict[str, str]:
    """What stands between the marks of docs/full-study.md."""
    return {
        "progress": progress(), "verdict": markdown(verdict()), "over tasks": markdown(over_tasks()), "choice": chosen(),
        "controls": beside_controls(), "cells": markdown(cells()), "others": markdown(others()), "inside": markdown(inside()),
        "pictures": pictures(FOLDER, "scores against seconds of training"),
    }  # fmt: skip


def main() -> None:
    storage = storage_of(__doc__)
    ended = [run for run in runs_of(SWEEPS, storage) if run.done or diverges(run)]
    metrics = measured(ended, storage)
    write(MADE, (asdict(trained(run, metrics[run.trial.key])) for run in ended))
    draw(curves(), FOLDER)
    fill_all(PAGE, texts())


if __name__ == "__main__":
    main()
