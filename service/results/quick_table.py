"""What a sweep found, read from MLflow alone: a table, a figure of score against sparsity, and what they may be taken for."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.results import controls
from service.results.outcomes import absence, has, metric_of
from service.results.statistics import Estimate, interval, mean_of, ratio
from service.spool.scores import SCORE
from service.storage import paths, shared_files
from service.terminal.columns import aligned
from service.tracking import notes
from service.tracking.links import how_to_open
from service.tracking.runs import RunRow, Tracking
from trainables.storage.files import write
from trainables.trial import Trial, comparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PAPER_BUDGET = 1_000_000  # updates


@dataclass(frozen=True)
class Cell:
    """A pruner at a sparsity: the last score of each finished seed, by seed, and what became of the others (`failed: ...`, `missing`)."""

    scores: Mapping[int, float]
    others: tuple[str, ...]

    @property
    def planned(self) -> int:
        return len(self.scores) + len(self.others)

    @property
    def estimate(self) -> Estimate | None:
        return estimate(list(self.scores.values())) if self.scores else None

    def share(self, dense: Cell) -> Estimate | None:
        """Of the dense score, over the seeds that both have; None where it would mean nothing."""
        import numpy as np

        pairs = [(score, dense.scores[seed]) for seed, score in self.scores.items() if seed in dense.scores]
        return ratio(*np.array(pairs).T) if pairs else None


@dataclass(frozen=True)
class Study:
    """The cells that may be compared: one dataset, one algorithm, one budget, one set of hyperparameters.

    `outcomes`: by trial key the last score, or in words why there is none.
    """

    title: str
    trial: Trial
    dataset_score: float | None
    cells: Mapping[tuple[str, float], Cell]
    measure: str
    outcomes: Mapping[str, float | str]

    @property
    def dense(self) -> Cell | None:
        return self.cells.get(("dense", 0.0))

    @property
    def pruners(self) -> list[str]:
        return list(dict.fromkeys(pruner for pruner, _ in self.cells if pruner != "dense"))

    @property
    def sparsities(self) -> list[float]:
        return sorted({sparsity for pruner, sparsity in self.cells if pruner != "dense"})


def studies(trials: Sequence[Trial], rows: Mapping[str, RunRow]) -> list[Study]:
    """Group a sweep's trials, with the runs found for them by key, into studies."""
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(comparison(trial), []).append(trial)
    return [_study(group, rows) for group in groups.values()]


def estimate(scores: Sequence[float]) -> Estimate:
    """Mean over seeds with a 95 % percentile bootstrap interval; the same scores always give the same interval."""
    import numpy as np

    return interval([np.asarray(scores, np.float64)], mean_of)


def text_of(found: Sequence[Study]) -> str:
    """The tables of all studies, and once, under them, how to read them."""
    legend = (
        "score: mean of the last scores [95 % bootstrap interval over seeds], n seeds, share of the dense score over the seeds with both"
    )
    return "\n\n".join([*(table(study) for study in found), "\n".join([legend, *budget_note(found)])])


def table(study: Study) -> str:
    """Normalized score by sparsity and pruner, with the dense score and the data's own above it."""
    dense = study.dense
    rows = [["sparsity", *study.pruners]]
    for sparsity in study.sparsities:
        cells = (study.cells.get((pruner, sparsity)) for pruner in study.pruners)
        rows.append([f"{100 * sparsity:g} %", *(_text(cell, dense) if cell else "" for cell in cells)])
    data = "" if study.dataset_score is None else f" (the data's episodes have a mean of {study.dataset_score:.1f})"
    lines = [f"{study.title}: {study.measure}{data}", f"  dense: {_text(dense, None) if dense else 'not in this sweep'}"]
    if study.pruners:
        lines.append(aligned(rows, gap="   "))
    return "\n".join(lines)


def budget_note(found: Sequence[Study]) -> list[str]:
    """What the numbers may be taken for: a short budget shows how fast a pruned network learns, not where it ends."""
    short = sorted({study.trial.updates for study in found if study.trial.updates < PAPER_BUDGET})
    if not short:
        return []
    note = (
        f"budget: {' and '.join(f'{updates:,}' for updates in short)} updates. That is short: pruned networks learn more slowly, and at "
        "high sparsity they go on improving long after a dense one has stopped. Read these scores as how far each got by now, not as what "
        f"pruning costs in the end; the paper's claim (95 % removed, return kept) is about {PAPER_BUDGET:,} updates: "
        "search_spaces/mujoco_sparsity.py."
    )
    return textwrap.wrap(note, 120)


def figure(found: Sequence[Study]) -> bytes:
    """PNG: score against sparsity, an axis of equal steps in log density, bands over seeds, dense as a level."""
    from matplotlib.figure import Figure

    columns = min(3, len(found))
    lines = -(-len(found) // columns)
    drawing = Figure(figsize=(5.2 * columns, 3.8 * lines), layout="constrained")
    axes = drawing.subplots(lines, columns, squeeze=False).flat
    for axis, study in zip(axes, found, strict=False):
        _draw(axis, study)
    for axis in list(axes)[len(found) :]:
        axis.set_axis_off()
    stream = io.BytesIO()
    drawing.savefig(stream, format="png", dpi=150)
    return stream.getvalue()


def find(trials: Sequence[Trial], tracking: Tracking) -> list[Study]:
    """The studies of trials as MLflow knows them."""
    return studies(trials, tracking.trial_rows(trial.key for trial in trials))


def to_json(found: Sequence[Study], trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """The studies for programs: every cell's scores, one per finished seed, its estimate, and what became of the other seeds."""
    return [
        {
            "title": study.title,
            "measure": study.measure,
            "dataset_score": study.dataset_score,
            "cells": [
                {"pruner": p, "sparsity": s, "scores": list(cell.scores.values()), "others": cell.others, "estimate": _numbers(cell)}
                for (p, s), cell in study.cells.items()
            ],
            "controls": [
                {"cell": each.where, "control": each.control, "differences": each.differences, "absent": each.absent}
                | {"verdict": each.columns[-1]}
                for each in controls.compare([trial for trial in trials if trial.key in study.outcomes], study.outcomes)
            ],
        }
        for study in found
    ]


def tell(name: str, trials: Sequence[Trial], tracking: Tracking, storage: Path) -> tuple[list[Study], str]:
    """Print the tables, leave them and the figure in the sweep's folder, and say how to see the rest; MLflow is only read."""
    found = find(trials, tracking)
    outcomes = {key: outcome for study in found for key, outcome in study.outcomes.items()}
    text = "\n\n".join(part for part in (text_of(found), controls.text_of(controls.compare(trials, outcomes))) if part)
    write(paths.table(storage, name), text.encode() + b"\n")
    write(paths.figure(storage, name), figure(found))
    print(f"\n{text}\n\nfigure: {paths.figure(storage, name)}\n{how_to_open(tracking.uri, tracking.page)}")
    return found, text


def show(name: str, trials: Sequence[Trial], tracking: Tracking, storage: Path) -> None:
    """What the end of a run does: `tell`, and the same on the sweep's run in MLflow, with the state that the sweep has come to."""
    found, text = tell(name, trials, tracking, storage)
    for file in (paths.table(storage, name), paths.figure(storage, name)):
        if paths.remote(file)[0]:
            shared_files.put(file, file.read_bytes())
    parent = tracking.parent_run(name)
    tracking.log_artifacts(parent, [paths.table(storage, name), paths.figure(storage, name)])
    tracking.describe(parent, notes.of_sweep(name, trials, text))
    absent = sum(len(cell.others) for study in found for cell in study.cells.values())
    tracking.set_state(
        parent, "failed" if absent else "done", {"message": f"{absent} of {len(trials)} trials have no score"} if absent else {}
    )


def _study(group: Sequence[Trial], rows: Mapping[str, RunRow]) -> Study:
    members: dict[tuple[str, float], list[Trial]] = {}
    for trial in group:
        members.setdefault((trial.method, trial.sparsity), []).append(trial)
    first = group[0]
    scores = [row.tags["winnow.dataset_score"] for t in group if (row := rows.get(t.key)) and "winnow.dataset_score" in row.tags]
    hyper = "".join(f", {name} {value}" for name, value in first.hyper.items())
    metric = metric_of(row for trial in group if (row := rows.get(trial.key)))
    outcomes = {trial.key: _outcome(rows.get(trial.key), metric) for trial in group}
    return Study(
        title=f"{first.algorithm} on {first.dataset}, {first.updates:,} updates{hyper}",
        trial=first,
        dataset_score=float(scores[0]) if scores else None,
        cells={place: _cell(own, outcomes) for place, own in members.items()},
        measure="normalized score" if metric == SCORE else "return",
        outcomes=outcomes,
    )


def _outcome(row: RunRow | None, metric: str) -> float | str:
    return row.metrics[metric] if row and has(row, metric) else absence(row)


def _cell(trials: Sequence[Trial], outcomes: Mapping[str, float | str]) -> Cell:
    found = {trial.seed: outcomes[trial.key] for trial in trials}
    scores = {seed: value for seed, value in found.items() if not isinstance(value, str)}
    return Cell(scores, tuple(value for value in found.values() if isinstance(value, str)))


def _numbers(cell: Cell) -> dict[str, float] | None:
    found = cell.estimate
    return {"mean": found.value, "low": found.low, "high": found.high, "seeds": found.seeds} if found else None


def _text(cell: Cell, dense: Cell | None) -> str:
    found = cell.estimate
    others = ", ".join(dict.fromkeys(cell.others))
    if found is None:
        return others
    parts = [f"{found.value:5.1f} [{found.low:.1f}, {found.high:.1f}]" if found.seeds > 1 else f"{found.value:5.1f}"]
    parts.append(f"n={found.seeds}" if not others else f"n={found.seeds} of {cell.planned} ({others})")
    if dense and (share := cell.share(dense)):
        pairs = "" if share.seeds == cell.planned else f" ({share.seeds} of {cell.planned} pairs)"
        parts.append(f"{100 * share.value:.0f} %{pairs}")
    return "  ".join(parts)


def _draw(axis: Axes, study: Study) -> None:
    import math

    def place(sparsity: float) -> float:
        return -math.log10(1 - sparsity)

    ticks = [0.0, *study.sparsities]
    dense = study.dense.estimate if study.dense else None
    if dense:
        axis.axhline(dense.value, color="black", linestyle="--", linewidth=1, label="dense")
        axis.axhspan(dense.low, dense.high, color="black", alpha=0.08, linewidth=0)
    for pruner in study.pruners:
        points = list(_points(study, pruner))
        if points:
            x = [place(sparsity) for sparsity, _ in points]
            (drawn,) = axis.plot(x, [e.value for _, e in points], marker="o", markersize=4, label=pruner)
            axis.fill_between(x, [e.low for _, e in points], [e.high for _, e in points], color=drawn.get_color(), alpha=0.2, linewidth=0)
    if study.dataset_score is not None:
        axis.axhline(study.dataset_score, color="gray", linestyle=":", linewidth=1, label="the data's policy")
    axis.set_xticks([place(sparsity) for sparsity in ticks], [f"{100 * sparsity:g} %" for sparsity in ticks])
    axis.set_xlabel("sparsity (weights removed before training)")
    axis.set_ylabel(study.measure)
    axis.set_title(study.title, fontsize=9)
    axis.grid(alpha=0.3)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=8)


def _points(study: Study, pruner: str) -> Iterator[tuple[float, Estimate]]:
    for sparsity in study.sparsities:
        cell = study.cells.get((pruner, sparsity))
        if cell and cell.estimate:
            yield sparsity, cell.estimate
