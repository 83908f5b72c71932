"""Ten ways to a small network beside each other, docs/side-by-side.md: their scores at two learning rates, and what they cost.

winnow adopt benchmarks/study_methods.zip     # then `winnow run study_methods`, ..._half and ..._until, as often as needed
python -m benchmarks.learning.side_by_side [--storage FOLDER]     # renews side_by_side.json beside this file and the tables of the page
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, median

from benchmarks.learning.pages import fill_all, finished, rate_of, runs_of, shown, storage_of, write
from benchmarks.tables import markdown
from search_spaces.studies.study_methods import SWEEP
from search_spaces.studies.study_methods_half import SWEEP as HALF
from search_spaces.studies.study_methods_until import SWEEP as UNTIL
from search_spaces.sweep import expand
from search_spaces.sweep.ranges import values_of
from service.results.runs import Run
from service.results.statistics import mean_interval
from service.terminal.labels import algorithm_name, dataset_name, method_name
from trainables.trial import Trial

SWEEPS = {"study_methods": SWEEP, "study_methods_until": UNTIL, "study_methods_half": HALF}
MADE = Path(__file__).with_suffix(".json")
PAGE = Path(__file__).parents[2] / "docs" / "side-by-side.md"
RATES = values_of(SWEEP.hyper["learning_rates"], 0.0)
DENSE = "dense"


@dataclass(frozen=True)
class Trained:
    """A finished trial. `score`: mean over the final episodes. `seconds` in updates and `flops` of the kept weights are of all training."""

    dataset: str
    algorithm: str
    method: str
    rate: float
    seed: int
    score: float
    seconds: float
    flops: float


def name_of(trial: Trial) -> str:
    return method_name(trial.method, trial.sparsity)


def trained(run: Run) -> Trained:
    trial, last = run.trial, run.points[-1]
    return Trained(
        trial.dataset, trial.algorithm, name_of(trial), rate_of(trial), trial.seed,
        round(run.final, 2), round(last.seconds, 1), float(f"{last.flops:.4g}"),
    )  # fmt: skip


def read() -> list[Trained]:
    return [Trained(**row) for row in json.loads(MADE.read_text())]


def methods() -> list[str]:
    """In the sweeps' order, dense first."""
    return list(dict.fromkeys(name_of(trial) for sweep in SWEEPS.values() for trial in expand(sweep)))


class Cells:
    """Some finished trials, to be asked for those of a dataset, algorithm, method or learning rate."""

    def __init__(self, trials: Sequence[Trained]) -> None:
        self._trials = trials

    def of(self, **wanted: str | float) -> list[Trained]:
        return [one for one in self._trials if all(getattr(one, name) == value for name, value in wanted.items())]

    def score(self, **wanted: str | float) -> str:
        """The mean over seeds, with its interval and with how many seeds there are where some are missing."""
        scores = [one.score for one in self.of(**wanted)]
        return shown(mean_interval(scores) if scores else None, len(SWEEP.seeds))

    def whole(self, **wanted: str | float) -> float | None:
        """The mean score, once all seeds are there."""
        scores = [one.score for one in self.of(**wanted)]
        return mean(scores) if len(scores) == len(SWEEP.seeds) else None


def scores(algorithm: str) -> Iterator[list[str]]:
    """A row per method: its scores on each dataset at each learning rate, its seconds and its FLOPs."""
    columns = [(dataset, rate) for dataset in SWEEP.datasets for rate in RATES]
    heads = (f"{dataset_name(dataset)}, {rate:g}" for dataset, rate in columns)
    yield [algorithm_name(algorithm), *heads, "training, s", "kept FLOPs"]
    found = Cells(read())
    for method in methods():
        own = found.of(algorithm=algorithm, method=method)
        costs = [one.flops / dense.flops for one in own for dense in found.of(algorithm=algorithm, method=DENSE, dataset=one.dataset)]
        yield [
            method,
            *(found.score(algorithm=algorithm, method=method, dataset=dataset, rate=rate) for dataset, rate in columns),
            f"{median(one.seconds for one in own):.0f}" if own else "-",
            f"{100 * median(costs):.0f} %" if costs else "-",
        ]


def rates() -> Iterator[list[str]]:
    """A row per method: its share of the better dense score at each learning rate, over the tasks that are done at all of them, and at
    how many of these each learning rate is the better one."""
    heads = (f"share of dense, {rate:g}" for rate in RATES)
    yield ["method", "tasks", *heads, "at the better of both", *(f"{rate:g} is better" for rate in RATES)]
    found = Cells(read())
    for method in methods():
        shares = []
        for dataset, algorithm in ((dataset, algorithm) for algorithm in SWEEP.algorithms for dataset in SWEEP.datasets):
            dense, own = (
                [found.whole(dataset=dataset, algorithm=algorithm, method=which, rate=rate) for rate in RATES] for which in (DENSE, method)
            )
            if None not in (*dense, *own):
                shares.append([value / max(filter(None, dense)) for value in own if value is not None])
        if not shares:
            yield [method, "0", *("-" for _ in range(1 + 2 * len(RATES)))]
            continue
        at = [f"{100 * mean(column):.0f} %" for column in zip(*shares, strict=True)]
        wins = [sum(task.index(max(task)) == place for task in shares) for place in range(len(RATES))]
        yield [method, str(len(shares)), *at, f"{100 * mean(map(max, shares)):.0f} %", *map(str, wins)]


def progress() -> str:
    planned = sum(len(list(expand(sweep))) for sweep in SWEEPS.values())
    return f"{len(read())} of {planned} trials are done."


def texts() -> dict[str, str]:
    """What stands between the marks of docs/side-by-side.md."""
    tables = {algorithm: markdown(scores(algorithm)) for algorithm in SWEEP.algorithms}
    return {"progress": progress(), "rates": markdown(rates()), **tables}


def main() -> None:
    write(MADE, (asdict(trained(run)) for run in finished(runs_of(SWEEPS, storage_of(__doc__)))))
    fill_all(PAGE, texts())


if __name__ == "__main__":
    main()
