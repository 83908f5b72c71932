"""The report as tables: for the terminal, for LaTeX, and as rows for CSV and Parquet."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from service.columns import aligned
from service.report.cells import Cell, Task, aggregates, claim
from service.report.runs import DONE, TAIL, Run
from service.report.statistics import Estimate
from service.results import PAPER_BUDGET

HEAD = ("cell", "n", "mean", "95 % interval", "IQM", "retained", "95 % interval", "P(> dense)", "best", "tail", "without a score")
FEW = 5  # seeds
Row = Mapping[str, Any]


def text(tasks: Sequence[Task]) -> str:
    """The paper's claim, all cells task by task, the means over tasks, and how to read them."""
    parts = ["\n".join(claim(tasks))]
    parts += [f"{task.name}: {task.measure} ({task.detail})\n{aligned([HEAD, *map(cells_of, task.cells.values())])}" for task in tasks]
    if len(tasks) > 1:
        parts.append(f"over tasks\n{aligned(aggregate_rows(tasks))}")
    return "\n\n".join([*parts, "\n".join(notes(tasks))])


def notes(tasks: Sequence[Task]) -> list[str]:
    """How to read the numbers, a line each; what does not concern these tasks is left out."""
    cells = [cell for task in tasks for cell in task.cells.values()]
    counts = sorted({len(cell.done) for cell in cells if cell.done})
    episodes = sorted({task.trial.episodes for task in tasks})
    budgets = sorted({task.trial.updates for task in tasks})
    found = [
        f"mean, IQM, retained: of the last evaluation ({_listed(episodes)} episodes). best: the highest of all, too high by its luck. "
        f"tail: mean of all evaluations after {100 * TAIL:.0f} % of the updates.",
        "intervals: 95 % percentile bootstrap over seeds, within tasks. retained: over dense, paired by seed.",
    ]
    if counts and counts[0] < FEW:
        found.append(
            f"n = {_listed(counts)} seeds are few: the interval of 2 is their range, of 1 a point, and of 3 or 4 too narrow; "
            "the IQM of fewer than 4 numbers is their mean."
        )
    if any(cell.absent for cell in cells):
        found.append("a cell with an absent seed shows the mean of the others, which may flatter it, and is left out of means over tasks.")
    if budgets and budgets[0] < PAPER_BUDGET:
        found.append(
            f"budget: {_listed(budgets)} updates; the paper's claim is about {PAPER_BUDGET:,}. "
            "Pruned networks learn more slowly: read scores of short budgets as how far each got, not as what pruning costs."
        )
    return found


def cells_of(cell: Cell) -> tuple[str, ...]:
    """One line of a task's table."""
    count = f"{len(cell.done)}/{len(cell.runs)}" if cell.absent else str(len(cell.done))
    if not cell.done or not cell.mean or not cell.iqm:
        return (cell.name, count, *[""] * (len(HEAD) - 3), cell.absence)
    shares = (_percent(cell.retained), _range(cell.retained, 100)) if cell.retained else ("", "")
    better = f"{cell.improvement.value:.2f}" if cell.improvement else ""
    best, tail = (f"{cell.scores(measure).mean():.1f}" for measure in (lambda run: run.best, lambda run: run.tail))
    return (
        cell.name,
        count,
        f"{cell.mean.value:.1f}",
        _range(cell.mean),
        f"{cell.iqm.value:.1f}",
        *shares,
        better,
        best,
        tail,
        cell.absence,
    )


def aggregate_rows(tasks: Sequence[Task]) -> list[tuple[str, ...]]:
    """Means over tasks, a header first."""
    rows: list[tuple[str, ...]] = [
        ("cell", "tasks", "mean", "95 % interval", "IQM", "95 % interval", "P(> dense)", "95 % interval", "left out")
    ]
    for each in aggregates(tasks):
        name = each.method if each.method == "dense" else f"{each.method} {100 * each.sparsity:g} %"
        better = (f"{each.improvement.value:.2f}", _range(each.improvement, places=2)) if each.improvement else ("", "")
        middle = (f"{each.iqm.value:.1f}", _range(each.iqm))
        rows.append((name, str(len(each.tasks)), f"{each.mean.value:.1f}", _range(each.mean), *middle, *better, ", ".join(each.left_out)))
    return rows


def latex(tasks: Sequence[Task]) -> str:
    """A booktabs table: a row per cell, tasks in blocks."""
    lines = [r"% needs \usepackage{booktabs}", r"\begin{tabular}{llrrlrl}", r"\toprule"]
    lines += [r"Task & Cell & $n$ & Mean & 95\,\% interval & IQM & Retained \\"]
    for task in tasks:
        lines.append(r"\midrule")
        for number, cell in enumerate(task.cells.values()):
            name, count, mean, span, middle, share, share_span, *_, absent = cells_of(cell)
            kept = f"{share} {share_span}" if share else ""
            parts = [task.name if number == 0 else "", name, count, mean or absent, span, middle, kept]
            lines.append(" & ".join(_escaped(part) for part in parts) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def cell_rows(tasks: Sequence[Task]) -> list[Row]:
    """A row per cell, for programs; nan where there is no number."""
    return [_place(task, cell) | _numbers(cell) for task in tasks for cell in task.cells.values()]


def trial_rows(tasks: Sequence[Task]) -> list[Row]:
    """A row per trial: nothing is averaged but the episodes of an evaluation."""
    return [_place(task, cell) | _trial(run) for task in tasks for cell in task.cells.values() for run in cell.runs]


def curve_rows(tasks: Sequence[Task]) -> list[Row]:
    """A row per evaluation of each trial."""
    return [
        {"key": run.trial.key, "update": point.update, "score": point.score, "flops": point.flops, "seconds": point.seconds}
        for task in tasks
        for cell in task.cells.values()
        for run in cell.runs
        for point in run.points
    ]


def to_csv(rows: Sequence[Row]) -> bytes:
    stream = io.StringIO()
    if rows:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: "" if isinstance(v, float) and math.isnan(v) else v for name, v in row.items()} for row in rows)
    return stream.getvalue().encode()


def to_parquet(rows: Sequence[Row]) -> bytes:
    import pyarrow
    from pyarrow import parquet

    sink = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.Table.from_pylist([dict(row) for row in rows]), sink)
    return bytes(sink.getvalue().to_pybytes())


def _place(task: Task, cell: Cell) -> dict[str, Any]:
    trial = task.trial
    return {
        "environment": task.environment, "tier": task.tier, "dataset": trial.dataset, "algorithm": trial.algorithm,
        "method": cell.method, "pruner": cell.runs[0].trial.pruner, "sparsity": cell.sparsity, "updates": trial.updates,
        "hyper": ", ".join(f"{name}={value}" for name, value in trial.hyper.items()), "measure": task.measure,
    }  # fmt: skip


def _numbers(cell: Cell) -> dict[str, Any]:
    found: dict[str, Any] = {"planned": len(cell.runs), "n": len(cell.done), "absent": cell.absence}
    for name, estimate in (("mean", cell.mean), ("iqm", cell.iqm), ("retained", cell.retained), ("improvement", cell.improvement)):
        values = (estimate.value, estimate.low, estimate.high) if estimate else [math.nan] * 3
        found |= dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))
    measures: dict[str, Callable[[Run], float]] = {"best": lambda r: r.best, "tail": lambda r: r.tail, "return": lambda r: r.returns}
    return found | {name: float(cell.scores(measure).mean()) if cell.done else math.nan for name, measure in measures.items()}


def _trial(run: Run) -> dict[str, Any]:
    last, best, tail = (run.last, run.best, run.tail) if run.outcome == DONE else [math.nan] * 3
    actor = (run.masks or {}).get("actor", {})
    return {
        "seed": run.trial.seed, "key": run.trial.key, "outcome": run.outcome, "update": run.points[-1].update if run.points else 0,
        "last": last, "best": best, "tail": tail, "return": run.returns, "episodes": run.trial.episodes,
        "flops": run.points[-1].flops if run.points else math.nan, "seconds": run.points[-1].seconds if run.points else math.nan,
        "actor_parameters": actor.get("parameters", {}).get("effective"), "actor_live_inputs": actor.get("live_inputs"),
    }  # fmt: skip


def _listed(values: Sequence[int]) -> str:
    return " and ".join(f"{value:,}" for value in values)


def _percent(estimate: Estimate | None) -> str:
    return f"{100 * estimate.value:.0f} %" if estimate else ""


def _range(estimate: Estimate | None, scale: float = 1, places: int | None = None) -> str:
    places = places if places is not None else 0 if scale == 100 else 1
    return f"[{scale * estimate.low:.{places}f}, {scale * estimate.high:.{places}f}]" if estimate else ""


def _escaped(text: str) -> str:
    return "".join(f"\\{c}" if c in "%_&#$" else c for c in text)
