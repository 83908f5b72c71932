"""What a sweep found, read from MLflow alone: a table, a figure of score against sparsity, and what they may be taken for."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from service import controls, notes, shared
from service.columns import aligned
from service.scores import RETURN, SCORE
from service.tracking import RunRow, Tracking
from trainables import paths
from trainables.files import write
from trainables.trial import Trial, comparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PAPER_BUDGET = 1_000_000  # updates
RESAMPLES = 10_000


@dataclass(frozen=True)
class Estimate:
    """Mean of the seeds' final normalized scores and its 95 % bootstrap interval; one seed has no interval."""

    mean: float
    low: float
    high: float
    seeds: int


@dataclass(frozen=True)
class Cell:
    """A pruner at a sparsity: the final score of each finished seed, and what became of the others (`failed: ...`, `missing`)."""

    scores: tuple[float, ...]
    others: tuple[str, ...]

    @property
    def estimate(self) -> Estimate | None:
        return estimate(self.scores) if self.scores else None


@dataclass(frozen=True)
class Study:
    """The cells that may be compared: one dataset, one algorithm, one budget, one set of hyperparameters."""

    title: str
    trial: Trial
    dataset_score: float | None
    cells: Mapping[tuple[str, float], Cell]
    measure: str = "normalized score"

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

    values = np.asarray(scores, np.float64)
    means = np.random.default_rng(0).choice(values, (RESAMPLES, len(values))).mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Estimate(float(values.mean()), float(low), float(high), len(values))


def text_of(found: Sequence[Study]) -> str:
    """The tables of all studies, and once, under them, how to read them."""
    legend = "score: mean of the final normalized scores [95 % bootstrap interval over seeds], n seeds, share of the dense score"
    return "\n\n".join([*(table(study) for study in found), "\n".join([legend, *budget_note(found)])])


def table(study: Study) -> str:
    """Normalized score by sparsity and pruner, with the dense score and the data's own above it."""
    dense = study.dense.estimate if study.dense else None
    rows = [["sparsity", *study.pruners]]
    for sparsity in study.sparsities:
        cells = (study.cells.get((pruner, sparsity)) for pruner in study.pruners)
        rows.append([f"{100 * sparsity:g} %", *(_text(cell, dense) if cell else "" for cell in cells)])
    data = "" if study.dataset_score is None else f" (the data's episodes have a mean of {study.dataset_score:.1f})"
    lines = [f"{study.title}: {study.measure}{data}", f"  dense: {_text(study.dense, None) if study.dense else 'not in this sweep'}"]
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


def to_json(found: Sequence[Study]) -> list[dict[str, Any]]:
    """The studies for programs: every cell's scores, one per finished seed, its estimate, and what became of the other seeds."""
    return [
        {
            "title": study.title,
            "dataset_score": study.dataset_score,
            "cells": [
                {"pruner": p, "sparsity": s, "scores": cell.scores, "others": cell.others, "estimate": e and asdict(e)}
                for (p, s), cell in study.cells.items()
                for e in [cell.estimate]
            ],
        }
        for study in found
    ]


def show(name: str, trials: Sequence[Trial], tracking: Tracking, storage: Path) -> None:
    """Print the tables, keep them and the figure in the sweep's folder and on its parent run, and say how to see the rest."""
    rows = tracking.trial_rows(trial.key for trial in trials)
    found = studies(trials, rows)
    scores = {trial.key: row.metrics[SCORE] for trial in trials if (row := rows.get(trial.key)) and has(row, SCORE)}
    text = "\n\n".join(part for part in (text_of(found), controls.text_of(trials, scores)) if part)
    for file, content in ((paths.table(storage, name), text.encode() + b"\n"), (paths.figure(storage, name), figure(found))):
        write(file, content)
        if paths.remote(file)[0]:
            shared.put(file, content)
    parent = tracking.parent_run(name)
    tracking.log_artifacts(parent, [paths.table(storage, name), paths.figure(storage, name)])
    tracking.describe(parent, notes.of_sweep(name, trials, text))
    absent = sum(len(cell.others) for study in found for cell in study.cells.values())
    tracking.set_state(
        parent, "failed" if absent else "done", {"message": f"{absent} of {len(trials)} trials have no score"} if absent else {}
    )
    print(f"\n{text}\n\nfigure: {paths.figure(storage, name)}\n{look(tracking.uri, tracking.page)}")


def look(uri: str, page: str = "") -> str:
    """How to open MLflow, at one page of it; a password in the address is not shown."""
    if uri.startswith("sqlite:"):
        return f"all curves: mlflow ui --backend-store-uri {uri}" + (f"\n  and then: http://127.0.0.1:5000/{page}" if page else "")
    parts = urlsplit(uri)
    place = f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"
    return f"all curves: {place.rstrip('/')}/{page}" if page else f"all curves: {place}"


def _study(group: Sequence[Trial], rows: Mapping[str, RunRow]) -> Study:
    members: dict[tuple[str, float], list[Trial]] = {}
    for trial in group:
        members.setdefault((trial.method, trial.sparsity), []).append(trial)
    first = group[0]
    scores = [row.tags["winnow.dataset_score"] for t in group if (row := rows.get(t.key)) and "winnow.dataset_score" in row.tags]
    hyper = "".join(f", {name} {value}" for name, value in first.hyper.items())
    seen = [row.metrics for trial in group if (row := rows.get(trial.key))]
    metric = RETURN if any(RETURN in m for m in seen) and not any(SCORE in m for m in seen) else SCORE
    return Study(
        title=f"{first.algorithm} on {first.dataset}, {first.updates:,} updates{hyper}",
        trial=first,
        dataset_score=float(scores[0]) if scores else None,
        cells={place: _cell([rows.get(trial.key) for trial in own], metric) for place, own in members.items()},
        measure="normalized score" if metric == SCORE else "return",
    )


def _cell(rows: Sequence[RunRow | None], metric: str) -> Cell:
    scores = tuple(row.metrics[metric] for row in rows if row and has(row, metric))
    return Cell(scores, tuple(_absence(row) for row in rows if not (row and has(row, metric))))


def has(row: RunRow, metric: str) -> bool:
    """Whether a run ended well, with this metric."""
    return row.status == "FINISHED" and row.tags.get("winnow.state") != "stopped" and metric in row.metrics


def _absence(row: RunRow | None) -> str:
    """Why a seed has no final score."""
    if row is None:
        return "missing"
    if row.tags.get("winnow.state") == "stopped":
        return f"stopped at {int(row.tags['winnow.stopped_at']):,}"
    if row.status == "FAILED":
        return f"failed: {row.tags.get('winnow.reason') or 'unknown reason'}"
    return {"RUNNING": "running", "KILLED": "interrupted"}.get(row.status, "missing")


def _text(cell: Cell, dense: Estimate | None) -> str:
    found, total = cell.estimate, len(cell.scores) + len(cell.others)
    others = ", ".join(dict.fromkeys(cell.others))
    if found is None:
        return others
    parts = [f"{found.mean:5.1f} [{found.low:.1f}, {found.high:.1f}]" if found.seeds > 1 else f"{found.mean:5.1f}"]
    parts.append(f"n={found.seeds}" if not others else f"n={found.seeds} of {total} ({others})")
    if dense and dense.mean > 0:
        parts.append(f"{100 * found.mean / dense.mean:.0f} %")
    return "  ".join(parts)


def _draw(axis: Axes, study: Study) -> None:
    import math

    def place(sparsity: float) -> float:
        return -math.log10(1 - sparsity)

    ticks = [0.0, *study.sparsities]
    dense = study.dense.estimate if study.dense else None
    if dense:
        axis.axhline(dense.mean, color="black", linestyle="--", linewidth=1, label="dense")
        axis.axhspan(dense.low, dense.high, color="black", alpha=0.08, linewidth=0)
    for pruner in study.pruners:
        points = list(_points(study, pruner))
        if points:
            x = [place(sparsity) for sparsity, _ in points]
            (drawn,) = axis.plot(x, [e.mean for _, e in points], marker="o", markersize=4, label=pruner)
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
