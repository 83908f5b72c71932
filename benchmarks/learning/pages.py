"""What the programs share that turn trained sweeps into a JSON file beside them and the tables of a page."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.tables import fill
from service.results.report.gather import gather
from service.results.report.style import Panel, png, sheets
from service.results.runs import Run
from service.results.statistics import BOUNDLESS, Estimate
from service.storage import paths
from service.tracking.runs import Tracking
from trainables.trial import Trial


def storage_of(description: str | None) -> Path:
    """Where the sweeps ran, from the command line."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storage", help="where the sweeps ran (default as for the service)")
    return paths.root(parser.parse_args().storage)


def runs_of(sweeps: Iterable[str], storage: Path) -> list[Run]:
    """Of those sweeps that there are."""
    tracking = Tracking(storage)
    wanted, known = list(sweeps), tracking.sweeps()
    if not (there := [sweep for sweep in wanted if sweep in known]):
        raise SystemExit(
            f"MLflow has none of {', '.join(wanted)} ({storage}): `winnow adopt` and `winnow sync`, or `winnow run` them first"
        )
    return list(gather(there, tracking, storage).runs)


def finished(runs: Iterable[Run]) -> list[Run]:
    """Those that are done. Exits where one has diverged: left out, it would make the mean of the other seeds too good."""
    runs = list(runs)
    if diverged := [run.trial.name for run in runs if diverges(run)]:
        raise SystemExit(f"{len(diverged)} trials have diverged, which this page cannot show: {', '.join(diverged)}")
    return [run for run in runs if run.done]


def diverges(run: Run) -> bool:
    return "divergence" in run.state


def measured(runs: Iterable[Run], storage: Path) -> dict[str, Mapping[str, float]]:
    """The last value of each metric, by trial key."""
    return {key: row.metrics for key, row in Tracking(storage).trial_rows(run.trial.key for run in runs).items()}


def scores_of(run: Run) -> dict[int, float]:
    """Of each evaluation of a finished trial, by its update; the last one is that of the final episodes."""
    return {point.update: round(point.score, 4) for point in run.points} | {run.trial.updates: round(run.final, 4)}


def rate_of(trial: Trial) -> float:
    """The learning rate of a trial of a sweep that sets all networks to one."""
    (rate,) = {value for name, value in trial.hyper_values().items() if name.endswith("learning_rate")}
    return float(rate)


def write(file: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """One row per line, sorted, so that a new trial is a new line. Exits where rows would be lost, of a sweep that this storage lacks."""
    lines = sorted(map(json.dumps, rows))
    before = len(json.loads(file.read_text())) if file.exists() else 0
    if len(lines) < before:
        raise SystemExit(
            f"{file.name} has {before} rows and would keep {len(lines)}: `winnow adopt` and `winnow sync` the sweeps it is made of"
        )
    file.write_text("[\n" + ",\n".join(lines) + "\n]\n")


def fill_all(page: Path, texts: Mapping[str, str]) -> None:
    for name, text in texts.items():
        fill(page, name, text)


def draw(panels: Sequence[Panel], folder: Path) -> None:
    """curves-1.png and so on, and nothing else, in `folder`."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for number, sheet in enumerate(sheets(panels), 1):
        (folder / f"curves-{number}.png").write_bytes(png(sheet))


def pictures(folder: Path, what: str) -> str:
    """The lines of a page beside `folder` that show what `draw` has made."""
    return "\n\n".join(f"![{what}]({folder.name}/{file.name})" for file in sorted(folder.glob("curves-*.png")))


def shown(found: Estimate | None, planned: int, times: float = 1.0, digits: int = 1, unit: str = "") -> str:
    """With its interval; `1/3` where one of three planned seeds is there."""
    if found is None:
        return "-"
    span = f" [{times * found.low:.{digits}f}, {times * found.high:.{digits}f}]"
    if found.note:
        span = f" [{BOUNDLESS}]" if found.note == BOUNDLESS else ""
    missing = "" if found.seeds == planned else f" {found.seeds}/{planned}"
    return f"{times * found.value:.{digits}f}{unit}{span}{missing}"
