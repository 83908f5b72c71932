"""The report as tables: for the terminal, for LaTeX, and as rows for CSV and Parquet."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from service.results import controls
from service.results.cells import EVALUATION, Cell, Task, by_identifier, settings
from service.results.report.over_tasks import MARGIN, Aggregate, aggregates, budget_note, choice, claim
from service.results.runs import TAIL, Run
from service.results.statistics import Estimate
from service.terminal.columns import aligned
from service.terminal.labels import DENSE

HEAD = (
    *("cell", "n", "mean", "95 % interval", "IQM", "95 % interval", "best", "tail", "final"),
    *("return", "95 % interval", "success", "95 % interval", "without a score"),
)
AGAINST = ("cell", "pairs", "retained", "95 % interval", "P(> dense)", "95 % interval", "dense without a score")
OVER = ("cell", "tasks", "mean", "95 % interval", "IQM", "95 % interval", "P(> dense)", "95 % interval", "left out")
CONTROLS = ("cell", "against", "difference", "95 % interval", "seeds", "verdict")
FEW = 5  # seeds
LATEX = {character: f"\\{character}" for character in "%_&#${}"} | {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip
Row = Mapping[str, Any]


def text(tasks: Sequence[Task], about: Sequence[str] = ()) -> str:
    """The paper's claim, whether the choice of weights matters, all cells task by task, the means over tasks, the controls' verdict, and
    how to read them; `about` comes last."""
    parts = ["\n".join([*claim(tasks), *choice(tasks)])]
    for task in tasks:
        tables = [cell_table(task), against_rows(task)]
        parts.append("\n".join([f"{task.name}: {task.measure} ({task.detail})", *(aligned(rows) for rows in tables if len(rows) > 1)]))
    if len(tasks) > 1:
        parts.append(f"over tasks\n{aligned(aggregate_rows(tasks))}")
    return "\n\n".join([*parts, *filter(None, [controls.text_of(compared(tasks))]), "\n".join([*notes(tasks), *warnings(tasks), *about])])


def warnings(tasks: Sequence[Task]) -> list[str]:
    """What the verdict has to be taken with: a line each on few seeds, absent ones, and budgets that are too short for the claim."""
    cells = [cell for task in tasks for cell in task.cells.values()]
    counts, found = sorted({len(cell.done) for cell in cells if cell.done}), []
    if counts and counts[0] < FEW:
        found.append(
            f"n = {_listed(counts)} seeds are few: one seed has no interval, and that of two is too wide to say much. The IQM of fewer "
            "than 4 numbers is their mean."
        )
    if any(cell.absent for cell in cells):
        found.append("a cell with missing seeds shows the mean of the others, which may flatter it, and is left out of means over tasks.")
    return [*found, *budget_note(tasks)]


def notes(tasks: Sequence[Task]) -> list[str]:
    """How to read the numbers: a line each, without what does not concern these tasks."""
    episodes = sorted({task.trial.episodes for task in tasks})
    final = sorted({task.trial.final_episodes for task in tasks} - {0})
    found = [
        f"mean, IQM, retained: of the last evaluation ({_listed(episodes)} episodes). "
        "best: the highest of all evaluations, biased upwards. "
        f"tail: mean of all evaluations after {100 * TAIL:.0f} % of the updates."
        + (f" final: {_listed(final)} other episodes of the last policy." if final else ""),
        "intervals: 95 %, Student's t over seeds; for the IQM a bootstrap that is widened for few seeds, for P(> dense) a plain one, too "
        "narrow for few seeds. All assume normally distributed scores; where only some seeds collapse, the intervals are too narrow. "
        "retained: over dense, paired by seed (Fieller's interval); *: a seed has no pair, so the cell is not judged. Instead of an "
        "interval without width: one seed; seeds equal; all above, all tied or all below, where every seed compares alike with every "
        "dense one. Instead of one without ends: no bounds, where dense seeds differ so much that shares may be arbitrarily high or low.",
    ]
    if choice(tasks):
        found.append(
            f"against masks made by chance: the mean difference over tasks. Equal within {MARGIN:g} points where the 90 % interval stays "
            "within them on both sides of 0 (two one-sided tests at 5 %), different where the 95 % interval excludes 0."
        )
    if len(tasks) > 1:
        found.append(
            "over tasks: rows of one sparsity cover the same tasks, those where each of their methods has every seed. "
            "Trials of different budgets are different tasks, and are not averaged."
        )
    if any(not math.isnan(run.speed) for task in tasks for run in task.runs):
        found.append(
            "speeds: trials.csv has a trial's own updates per second (`speed/updates_per_second` in MLflow) and its stack's, which is that "
            "times the trials that train as one model. seconds: a trial's share of its stack's time."
        )
    return found


def cell_table(task: Task) -> list[tuple[str, ...]]:
    """The task's cells, a header first; without success rates where its environment reports no successes."""
    rows = [HEAD, *map(cells_of, task.cells.values())]
    if any(cell.success for cell in task.cells.values()):
        return rows
    at = HEAD.index("success")
    return [row[:at] + row[at + 2 :] for row in rows]


def cells_of(cell: Cell) -> tuple[str, ...]:
    """A line of a task's table."""
    count = f"{len(cell.done)}/{len(cell.runs)}" if cell.absent else str(len(cell.done))
    if not cell.done:
        return (cell.name, count, *[""] * (len(HEAD) - 3), cell.absence)
    others = [cell.scores(measure).mean() for measure in (lambda run: run.best, lambda run: run.tail, lambda run: run.final)]
    apart = ["" if math.isnan(value) else f"{value:.1f}" for value in others]
    numbers = (*_estimate(cell.mean), *_estimate(cell.iqm), *apart, *_estimate(cell.returns, places=0), *_success(cell))
    return (cell.name, count, *numbers, cell.absence)


def _success(cell: Cell) -> tuple[str, str]:
    return (f"{100 * cell.success.value:.0f} %", _range(cell.success, 100)) if cell.success else ("", "")


def against_rows(task: Task) -> list[tuple[str, ...]]:
    """The task's cells against dense, a header first; the last column says why seeds have no dense score beside them."""
    cells = [cell for cell in task.cells.values() if cell.method != DENSE]
    return [AGAINST, *map(_against, cells)]


def _against(cell: Cell) -> tuple[str, ...]:
    count = str(len(cell.pairs)) if cell.whole else f"{len(cell.pairs)}/{len(cell.runs)}"
    return (cell.name, count, retained(cell), _range(cell.retained, 100), *_estimate(cell.improvement, places=2), cell.unpaired)


def retained(cell: Cell) -> str:
    """`89 %`, with a star where a seed has no pair."""
    return f"{100 * cell.retained.value:.0f} %{'' if cell.whole else '*'}" if cell.retained else ""


def aggregate_rows(tasks: Sequence[Task]) -> list[tuple[str, ...]]:
    """Means over tasks, a header first."""
    return [OVER, *map(_aggregate, aggregates(tasks))]


def _aggregate(row: Aggregate) -> tuple[str, ...]:
    numbers = (*_estimate(row.mean), *_estimate(row.iqm), *_estimate(row.improvement, places=2))
    return (row.name, str(len(row.tasks)), *numbers, left_out(row.left_out))


def left_out(tasks: Sequence[tuple[str, str]], most: int = 3) -> str:
    """The tasks by name, each with what became of its seeds; of many, how many by that: the grid and the cells have them one by one."""
    if len(tasks) <= most:
        return ", ".join(f"{task} ({why})" if why else task for task, why in tasks)
    reasons = Counter(why for _, why in tasks)
    return ", ".join(f"{count} task{'s' * (count > 1)} ({why or 'where others are absent'})" for why, count in reasons.items())


def compared(tasks: Sequence[Task]) -> list[controls.Comparison]:
    """Pruned cells against their controls, where the sweeps have some."""
    return _compared(tuple(tasks))


@lru_cache(maxsize=1)  # a report shows them as text and on its page
def _compared(tasks: tuple[Task, ...]) -> list[controls.Comparison]:
    return controls.compare([run for task in tasks for run in task.runs])


def control_rows(found: Sequence[controls.Comparison]) -> list[tuple[str, ...]]:
    """A row per cell and control; of what is not in the cells' names only what distinguishes two cells of one name."""
    every: dict[str, list[set[str]]] = {}
    for each in found:
        every.setdefault(each.name, []).append(set(each.facts))
    common = {name: set.intersection(*facts) for name, facts in every.items()}
    apart = [", ".join(fact for fact in each.facts if fact not in common[each.name]) for each in found]
    return [(f"{each.name} ({facts})" if facts else each.name, *each.columns) for each, facts in zip(found, apart, strict=True)]


def latex(tasks: Sequence[Task]) -> str:
    """A booktabs table: a row per cell, tasks in blocks."""
    lines = [r"% needs \usepackage{booktabs}; *: some seed has no dense score beside it", r"\begin{tabular}{llrrlrl}", r"\toprule"]
    lines += [r"Task & Cell & $n$ & Mean & 95\,\% interval & IQM & Retained \\"]
    for task in tasks:
        lines.append(r"\midrule")
        for number, cell in enumerate(task.cells.values()):
            name, count, mean, span, middle, *_, absent = cells_of(cell)
            kept = f"{retained(cell)} {_range(cell.retained, 100)}" if cell.retained else ""
            parts = [task.name if number == 0 else "", name, count, mean or absent, span, middle, kept]
            lines.append(" & ".join(_escaped(part) for part in parts) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def cell_rows(tasks: Sequence[Task]) -> list[Row]:
    """A row per cell, for programs; nan where there is no number."""
    return [_place(task, cell) | _numbers(cell) for task in tasks for cell in by_identifier(task)]


def trial_rows(tasks: Sequence[Task]) -> list[Row]:
    """A row per trial: nothing is averaged but the episodes of an evaluation."""
    return [_place(task, cell) | _trial(run) for task in tasks for cell in by_identifier(task) for run in cell.runs]


def curve_rows(tasks: Sequence[Task]) -> list[Row]:
    """A row per evaluation of each trial."""
    return [
        {"key": run.trial.key, "update": point.update, "score": point.score, "flops": point.flops, "seconds": point.seconds}
        for task in tasks
        for cell in by_identifier(task)
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
        **{name: getattr(trial, name) for name in EVALUATION},
        "hyper": ", ".join(f"{name}={value}" for name, value in settings(trial).items()), "measure": task.measure,
    }  # fmt: skip


def _numbers(cell: Cell) -> dict[str, Any]:
    found: dict[str, Any] = {"planned": len(cell.runs), "n": len(cell.done), "absent": cell.absence}
    found |= {"pairs": len(cell.pairs), "unpaired": cell.unpaired}
    estimates = {
        "mean": cell.mean,
        "iqm": cell.iqm,
        "return": cell.returns,
        "success": cell.success,
        "retained": cell.retained,
        "improvement": cell.improvement,
    }
    for name, estimate in estimates.items():
        values = (estimate.value, estimate.low, estimate.high) if estimate else [math.nan] * 3
        found |= dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))
    measures: dict[str, Callable[[Run], float]] = {"best": lambda r: r.best, "tail": lambda r: r.tail, "final": lambda r: r.final}
    return found | {name: float(cell.scores(measure).mean()) if cell.done else math.nan for name, measure in measures.items()}


def _trial(run: Run) -> dict[str, Any]:
    last, best, tail, final = (run.last, run.best, run.tail, run.final) if run.done else [math.nan] * 4
    actor = (run.masks or {}).get("actor", {})
    return {
        "seed": run.trial.seed, "key": run.trial.key, "outcome": run.state, "update": run.points[-1].update if run.points else 0,
        "last": last, "best": best, "tail": tail, "final": final, "return": run.returns, "success": run.successes,
        "flops": run.points[-1].flops if run.points else math.nan, "seconds": run.points[-1].seconds if run.points else math.nan,
        "trial_updates_per_second": run.speed, "stack_size": run.stack, "stack_updates_per_second": run.speed * run.stack,
        "actor_parameters": actor.get("parameters", {}).get("effective"), "actor_live_inputs": actor.get("live_inputs"),
    }  # fmt: skip


def _listed(values: Sequence[int]) -> str:
    return " and ".join(f"{value:,}" for value in values)


def _estimate(estimate: Estimate | None, places: int = 1) -> tuple[str, str]:
    """Value and interval."""
    return (f"{estimate.value:,.{places}f}", _range(estimate, places=places)) if estimate else ("", "")


def _range(estimate: Estimate | None, scale: float = 1, places: int | None = None) -> str:
    places = places if places is not None else 0 if scale == 100 else 1
    if estimate is None:
        return ""
    return estimate.note or f"[{scale * estimate.low:,.{places}f}, {scale * estimate.high:,.{places}f}]"


def _escaped(text: str) -> str:
    """As LaTeX reads it."""
    return "".join(LATEX.get(character, character) for character in text)
