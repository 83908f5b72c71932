"""The results of a sweep by MLflow's last values alone: tables for the terminal, a figure, and what the end of a run shows and logs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from service.results import controls
from service.results.cells import EVALUATION, Cell, Task, details, tasks_of
from service.results.report.figures import by_sparsity
from service.results.report.over_tasks import budget_note
from service.results.report.style import Panel, png
from service.results.runs import runs_of, version_notes
from service.storage import paths, shared_files
from service.terminal.columns import aligned
from service.terminal.labels import method_name
from service.terminal.links import how_to_open
from service.tracking import notes
from service.tracking.runs import Tracking
from trainables.output import printable
from trainables.trial import Trial

LEGEND = "score: mean of the last scores [95 % t interval over seeds], n seeds, share of the dense score over the seeds with both"


def find(trials: Sequence[Trial], tracking: Tracking) -> list[Task]:
    """The tasks of trials as MLflow knows them."""
    return tasks_of(runs_of(trials, tracking.trial_rows(trial.key for trial in trials)))


def text_of(tasks: Sequence[Task]) -> str:
    """The tables of all tasks, how to read them, and the comparisons with controls where there are some."""
    runs = [run for task in tasks for run in task.runs]
    reading = "\n".join([LEGEND, *budget_note(tasks), *version_notes(runs)])
    compared = controls.compare(runs)
    return "\n\n".join([*map(table, tasks), reading, *filter(None, [controls.text_of(compared)])])


def table(task: Task) -> str:
    """Score by sparsity and method, with the dense score and the data's own above it."""
    rows = [["sparsity", *map(method_name, task.methods)]]
    for sparsity in task.sparsities:
        cells = (task.cells.get((method, sparsity)) for method in task.methods)
        rows.append([f"{100 * sparsity:g} %", *(_text(cell) if cell else "" for cell in cells)])
    data = "" if task.dataset_score is None else f"; the data's episodes have a mean of {task.dataset_score:.1f}"
    lines = [f"{task.name}: {task.measure} ({task.detail}{data})", f"  dense: {_text(task.dense) if task.dense else 'not in this sweep'}"]
    if task.methods:
        lines.append(aligned(rows, gap="   "))
    return "\n".join(lines)


def figure(tasks: Sequence[Task]) -> bytes:
    """PNG: score against sparsity, a panel per task; the report's figure of that name."""
    return png(by_sparsity(tasks) or [Panel("no trial has a score yet", "", "", lambda axis: axis.set_axis_off())])


def to_json(tasks: Sequence[Task]) -> list[dict[str, Any]]:
    """The tasks for programs, in identifiers: every cell's scores, one per finished seed, its mean, and why other seeds have none."""
    trials = [task.trial for task in tasks]
    return [
        {
            "title": _title(task.trial, trials),
            "measure": task.measure,
            "dataset_score": task.dataset_score,
            "cells": [
                {"pruner": cell.method, "sparsity": cell.sparsity, "scores": cell.scores().tolist(), "others": cell.absent}
                | {"estimate": _numbers(cell)}
                for cell in task.cells.values()
            ],
            "controls": [
                {"cell": each.cell, "control": each.control, "differences": each.differences, "absent": each.absent}
                | {"verdict": each.columns[-1]}
                for each in controls.compare(task.runs)
            ],
        }
        for task in tasks
    ]


def tell(name: str, trials: Sequence[Trial], tracking: Tracking, storage: Path, *, keep: bool = True) -> tuple[list[Task], str]:
    """Print the tables, and say how to see the rest; MLflow is only read. What is to be kept is written to the sweep's folder, if allowed:
    the tables and the figure."""
    tasks = find(trials, tracking)
    text = text_of(tasks)
    if tracking.borrowed:
        text += (
            f"\n\n{len(tracking.borrowed)} of {len(trials)} trials were trained into another storage; their scores are read from its runs"
        )
    if others := tracking.others_note(name, tracking.sweeps().get(name, "")):
        text += f"\n\n{others}"
    print(f"\n{printable(text)}\n", flush=True)  # before anything is written: also on a full disk
    kept = f"figure: {paths.figure(storage, name)}\n" if keep else ""
    written = ((paths.table(storage, name), text.encode() + b"\n"), (paths.figure(storage, name), figure(tasks))) if keep else ()
    for file, content in written:
        if refused := shared_files.write_if_allowed(file, content):
            kept = f"{refused}\n"
    print(f"{kept}{how_to_open(tracking.uri, tracking.page(name))}")
    return tasks, text


def show(name: str, trials: Sequence[Trial], tracking: Tracking, storage: Path) -> None:
    """The end of a run: `tell`, and the same on the sweep's run in MLflow, with the state that the sweep has come to."""
    tasks, text = tell(name, trials, tracking, storage)
    for file in (paths.table(storage, name), paths.figure(storage, name)):
        if paths.remote(file)[0]:
            shared_files.put(file, file.read_bytes())
    parent = tracking.parent_run(name)
    tracking.log_artifacts(parent, [paths.table(storage, name), paths.figure(storage, name)])
    tracking.describe(parent, notes.of_sweep(name, trials, text))
    absent = sum(not run.done for task in tasks for run in task.runs)
    message = {"message": f"{absent} of {len(trials)} trials have no score"} if absent else {}
    tracking.set_state(parent, "failed" if absent else "done", message)


def _title(trial: Trial, others: Sequence[Trial]) -> str:
    """Algorithm, dataset, budget and settings; how often and how long it was evaluated, where others differ from it in nothing else."""
    alike = [other for other in others if other.algorithm == trial.algorithm and details(other) == details(trial)]
    apart = [name for name in EVALUATION if len({getattr(other, name) for other in alike}) > 1]
    return f"{trial.algorithm} on {', '.join([*details(trial), *(f'{name} {getattr(trial, name)}' for name in apart)])}"


def _numbers(cell: Cell) -> dict[str, float | None] | None:
    """The mean and its interval, whose ends are null for one seed."""
    if cell.mean is None:
        return None
    low, high = (None if math.isnan(end) else end for end in (cell.mean.low, cell.mean.high))
    return {"mean": cell.mean.value, "low": low, "high": high, "seeds": cell.mean.seeds}


def _text(cell: Cell) -> str:
    """`67.5 [60.0, 75.0]  n=2 of 3 (1 missing)  75 % (1 of 3 pairs)`."""
    if cell.mean is None:
        return cell.absence
    parts = [
        f"{cell.mean.value:5.1f}" + (f" [{cell.mean.note or f'{cell.mean.low:.1f}, {cell.mean.high:.1f}'}]" if len(cell.done) > 1 else "")
    ]
    parts.append(f"n={len(cell.done)} of {len(cell.runs)} ({cell.absence})" if cell.absent else f"n={len(cell.done)}")
    if cell.retained:
        pairs = "" if cell.whole else f" ({len(cell.pairs)} of {len(cell.runs)} pairs)"
        parts.append(f"{100 * cell.retained.value:.0f} %{pairs}")
    return "  ".join(parts)
