"""`winnow report`: reads the sweeps from MLflow, writes tables, figures and the page, logs them on the parent runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from service.results.cells import tasks_of
from service.results.report import tables
from service.results.report.drawing import draw
from service.results.report.gather import gather
from service.results.report.over_tasks import claim
from service.results.report.page import page
from service.storage import paths
from service.storage.shared_files import READ_ONLY
from service.terminal.links import how_to_open
from service.tracking.connection import TrackingError, forbidden
from service.tracking.runs import Tracking
from trainables.errors import UserError
from trainables.output import printable, to_json
from trainables.storage.files import write


def report(sweeps: Sequence[str], storage: Path, to: Path | None = None, style: str | None = None, *, json: bool = False) -> int:
    """Make the report over all sweeps together in `to`, else in the storage's reports/; returns the exit code.

    `style`, a key of STYLES, adds files of the figures for papers or slides. `json`: print the verdict and the cells as JSON.
    """
    sweeps = tuple(dict.fromkeys(sweeps))
    name = "+".join(sweeps)
    folder = to or paths.report(storage, name)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--to {folder} is a file; give a folder")
    tracking = Tracking(storage)
    found = gather(sweeps, tracking, storage)
    tasks = tasks_of(found.runs)
    figures = draw(tasks, folder / "figures", style, _progress)
    text = tables.text(tasks, found.notes)
    files = {"table.txt": text.encode() + b"\n", "table.tex": tables.latex(tasks).encode()}
    for stem, rows in (("cells", tables.cell_rows(tasks)), ("trials", tables.trial_rows(tasks)), ("curves", tables.curve_rows(tasks))):
        files |= {f"{stem}.csv": tables.to_csv(rows), f"{stem}.parquet": tables.to_parquet(rows)}
    files["page.html"] = page(name, tasks, figures, f"Sweeps: {', '.join(sweeps)}.", found.notes).encode()
    for file, content in files.items():
        write(folder / file, content)
    if not json:
        print(f"{printable(text)}\n\npage: {folder / 'page.html'}\ntables and figures: {folder}", flush=True)
    untold = ""
    try:
        for parent in found.parents.values():
            tracking.log_artifacts(parent, [folder / file for file in files], "report")
    except TrackingError as error:
        if getattr(error.__cause__, "errno", None) not in READ_ONLY and not forbidden(error):
            raise
        untold = f"not logged in MLflow, which may only be read here ({error.why})"
    if json:
        about = {"sweeps": sweeps, "page": folder / "page.html", "folder": folder, "logged_in_mlflow": not untold}
        verdict = {"verdict": claim(tasks), "warnings": [*tables.warnings(tasks), *found.notes]}
        print(to_json(about | verdict | {"cells": tables.cell_rows(tasks)}))
    else:
        newest = list(found.parents.values())[-1]
        print(untold or how_to_open(tracking.uri, tracking.file_page(newest, "report/page.html")))
    return 0


def _progress(text: str) -> None:
    """Show what is being drawn, on a terminal."""
    if sys.stderr.isatty():
        print(f"\r{text:<40}", end="", file=sys.stderr)
