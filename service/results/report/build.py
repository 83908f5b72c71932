"""`winnow report`: reads the sweeps from MLflow, writes tables, figures and the page, logs them on the parent runs."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from service.results.cells import Task, tasks_of
from service.results.report import tables
from service.results.report.drawing import draw
from service.results.report.gather import Gathered, gather
from service.results.report.over_tasks import claim
from service.results.report.page import page
from service.storage import paths
from service.storage.shared_files import READ_ONLY
from service.terminal.links import how_to_open
from service.tracking.connection import TrackingError, forbidden
from service.tracking.runs import Tracking
from trainables.errors import UserError
from trainables.output import printable, to_json
from trainables.storage.files import make as make_folder
from trainables.storage.files import write

PAGE = "page.html"
YOUNG = 100_000  # objects between two collections while a report is made; Python's own number is 700


@dataclass(frozen=True)
class Made:
    """A report that has been written: where, its table as text, the names of its files, its page, the runs that were read, their tasks."""

    folder: Path
    text: str
    files: list[str]
    page: str
    found: Gathered
    tasks: list[Task]


def report(sweeps: Sequence[str], storage: Path, to: Path | None = None, style: str | None = None, *, json: bool = False) -> int:
    """Make the report over all sweeps together in `to`, else in the storage's reports/; returns the exit code.

    `style`, a key of STYLES, adds files of the figures for papers or slides. `json`: print the verdict and the cells as JSON.
    """
    tracking = Tracking(storage)
    made = make(sweeps, tracking, storage, to, style)
    if not json:
        print(f"{printable(made.text)}\n\npage: {made.folder / PAGE}\ntables and figures: {made.folder}", flush=True)
    untold = ""
    try:
        for parent in made.found.parents.values():
            tracking.log_artifacts(parent, [made.folder / file for file in made.files], "report")
    except TrackingError as error:
        if getattr(error.__cause__, "errno", None) not in READ_ONLY and not forbidden(error):
            raise
        untold = f"not logged in MLflow, which may only be read here ({error.why})"
    if json:
        about = {"sweeps": tuple(dict.fromkeys(sweeps)), "page": made.folder / PAGE, "folder": made.folder, "logged_in_mlflow": not untold}
        verdict = {"verdict": claim(made.tasks), "warnings": [*tables.warnings(made.tasks), *made.found.notes]}
        print(to_json(about | verdict | {"cells": tables.cell_rows(made.tasks)}))
    else:
        newest = list(made.found.parents.values())[-1]
        print(untold or how_to_open(tracking.uri, tracking.file_page(newest, "report/page.html")))
    return 0


def make(sweeps: Sequence[str], tracking: Tracking, storage: Path, to: Path | None = None, style: str | None = None) -> Made:
    """Read the sweeps from MLflow and write their report. Raises UserError where there is nothing to report, and writes nothing then."""
    sweeps = tuple(dict.fromkeys(sweeps))
    name = "+".join(sweeps)
    folder = to or paths.report(storage, name)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--to {folder} is a file; give a folder")
    with _collecting_rarely():
        found = gather(sweeps, tracking, storage)
    tasks = tasks_of(found.runs)
    make_folder(folder)  # where nothing can be written, that is known before the drawing
    with _collecting_rarely():
        try:
            figures = draw(tasks, folder / "figures", style, _progress)
        finally:
            _progress("")
    text = tables.text(tasks, found.notes)
    files = {"table.txt": text.encode() + b"\n", "table.tex": tables.latex(tasks).encode()}
    for stem, rows in (("cells", tables.cell_rows(tasks)), ("trials", tables.trial_rows(tasks)), ("curves", tables.curve_rows(tasks))):
        files |= {f"{stem}.csv": tables.to_csv(rows), f"{stem}.parquet": tables.to_parquet(rows)}
    shown = page(name, tasks, figures, f"Sweeps: {', '.join(sweeps)}.", found.notes)
    files[PAGE] = shown.encode()
    for file, content in files.items():
        write(folder / file, content)
    return Made(folder, text, list(files), shown, found, tasks)


@contextmanager
def _collecting_rarely() -> Iterator[None]:
    """Reading MLflow and drawing make so many objects that the garbage collector would take a third of the time: let it look at new ones
    only, and less often."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(YOUNG, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def _progress(text: str) -> None:
    """Show what is being drawn, on a terminal; an empty text clears the line."""
    if sys.stderr.isatty():
        print(f"\r{text:<40}", end="" if text else "\r", file=sys.stderr, flush=True)
