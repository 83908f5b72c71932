"""Little data, docs/small-data.md: do networks with 5 % of their weights reach more than dense ones where transitions are few?

winnow adopt benchmarks/study_small_data.zip     # then `winnow run study_small_data`, as often as needed
python -m benchmarks.learning.small_data [--storage FOLDER]     # renews small_data.json beside this file and the tables of the page
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean

from benchmarks.learning.pages import draw, fill_all, finished, pictures, runs_of, scores_of, shown, storage_of, write
from benchmarks.tables import markdown
from search_spaces.studies.study_small_data import SWEEP
from search_spaces.sweep import expand
from service.results.cells import DENSE, Cell, Task, suites_of, tasks_of
from service.results.outcomes import MISSING
from service.results.report import costs
from service.results.report.over_tasks import beside
from service.results.report.style import Panel
from service.results.runs import Point, Run
from service.results.statistics import difference
from service.terminal.labels import algorithm_name, dataset_name, method_name
from trainables.trial import Trial

NAME = "study_small_data"
MADE = Path(__file__).with_suffix(".json")
PAGE = Path(__file__).parents[2] / "docs" / "small-data.md"
FOLDER = PAGE.with_suffix("")  # of its pictures
SIGNIFICANT = 0.05  # of all comparisons of the study together, by Holm's correction


@dataclass(frozen=True)
class Trained:
    """A finished trial. `scores`: of each evaluation, by its update, the last one of the final episodes."""

    dataset: str
    algorithm: str
    transitions: int
    pruner: str
    seed: int
    scores: dict[int, float]

    def is_of(self, trial: Trial) -> bool:
        return all(getattr(self, name) == getattr(trial, name) for name in ("dataset", "algorithm", "transitions", "pruner", "seed"))


def trained(run: Run) -> Trained:
    trial = run.trial
    return Trained(trial.dataset, trial.algorithm, trial.transitions, trial.pruner, trial.seed, scores_of(run))


def read() -> list[Trained]:
    return [Trained(**row | {"scores": {int(n): score for n, score in row["scores"].items()}}) for row in json.loads(MADE.read_text())]


def tasks() -> list[Task]:
    """The study as the report knows it."""
    known, runs = read(), []
    for trial in expand(SWEEP):
        found = next((one.scores for one in known if one.is_of(trial)), {})
        points = tuple(Point(update, score, math.nan, math.nan) for update, score in sorted(found.items()))
        runs.append(Run(trial, found.get(trial.updates, MISSING), points))
    return tasks_of(runs)


def of_pruners(task: Task) -> dict[str, Cell]:
    """By the pruner's name: a method also names the authors' scoring, which TD3+BC alone has."""
    return {cell.runs[0].trial.pruner: cell for cell in task.cells.values()}


def scores() -> Iterator[list[str]]:
    """A row per task of which anything is trained: final scores, and of dense networks the best evaluations, too."""
    yield ["data", "transitions", "algorithm", "dense", "its best evaluation", *map(method_name, SWEEP.pruners[1:])]
    for task in tasks():
        cells, trial = of_pruners(task), task.trial
        if any(cell.done for cell in cells.values()):
            dense, *others = (shown(cells[pruner].mean, len(SWEEP.seeds)) for pruner in SWEEP.pruners)
            best = [max(point.score for point in run.points) for run in cells["dense"].done]
            about = [dataset_name(trial.dataset), f"{trial.transitions:,}", algorithm_name(trial.algorithm)]
            yield [*about, dense, f"{mean(best):.1f}" if best else "-", *others]


@dataclass(frozen=True, eq=False)
class Comparison:
    """A cell of a task beside dense networks, both with all their seeds."""

    task: Task
    cell: Cell

    @property
    def text(self) -> str:
        return beside(self.task.name, [self.task], (self.cell.method, self.cell.sparsity), DENSE)

    def holds(self, alpha: float) -> bool:
        """Whether the interval of level 1 - `alpha` excludes 0."""
        dense = of_pruners(self.task)["dense"]
        found = difference([self.cell.scores()], [dense.scores()], 1 - alpha)
        return found.low > 0 or found.high < 0


def comparisons() -> list[Comparison]:
    found = []
    for task in tasks():
        cells = of_pruners(task)
        others = [cells[pruner] for pruner in SWEEP.pruners[1:]]
        found += [Comparison(task, cell) for cell in others if not cell.absent and not cells["dense"].absent]
    return found


def corrected(found: Sequence[Comparison], planned: int) -> list[Comparison]:
    """Those that hold after Holm's correction for `planned` comparisons, of which the others count as not different."""
    kept: list[Comparison] = []
    while more := [each for each in found if each not in kept and each.holds(SIGNIFICANT / (planned - len(kept)))]:
        kept += more
    return kept


def differences() -> str:
    """A line for each comparison with dense networks, a line on Holm's correction, and the means over tasks where there are several."""
    found = comparisons()
    planned = len(tasks()) * (len(SWEEP.pruners) - 1)
    kept = corrected(found, planned)
    lines = [f"{each.text}{', also after correction' if each in kept else ''}" for each in found]
    lines.append(f"{len(found)} of {planned} comparisons are done; {len(kept)} of them differ after Holm's correction for {planned}")
    for algorithm in SWEEP.algorithms:
        for suite, own in suites_of([task for task in tasks() if task.trial.algorithm == algorithm]):
            done = Counter((each.cell.method, each.cell.sparsity) for each in found if each.task.name in {task.name for task in own})
            lines += [beside(f"{algorithm_name(algorithm)}, {suite}", own, place, DENSE) for place, count in done.items() if count > 1]
    return "\n".join(["```", *lines, "```"])


def curves() -> list[Panel]:
    """Learning curves of the tasks whose seeds are all done."""
    return costs.curves([task for task in tasks() if not any(cell.absent for cell in task.cells.values())], "update")


def progress() -> str:
    return f"{len(read())} of {len(list(expand(SWEEP)))} trials are done."


def texts() -> dict[str, str]:
    """What stands between the marks of docs/small-data.md."""
    return {
        "progress": progress(), "scores": markdown(scores()), "differences": differences(),
        "pictures": pictures(FOLDER, "scores against updates"),
    }  # fmt: skip


def main() -> None:
    write(MADE, (asdict(trained(run)) for run in finished(runs_of([NAME], storage_of(__doc__)))))
    draw(curves(), FOLDER)
    fill_all(PAGE, texts())


if __name__ == "__main__":
    main()
