"""`winnow report`: reads the sweeps from MLflow, writes tables, figures and the page, logs them on the parent runs."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from service.results.cells import Task, tasks_of
from service.results.report import costs, figures, sizes, tables
from service.results.report.gather import gather
from service.results.report.page import page
from service.results.report.style import Panel, saved, sheets
from service.storage import paths
from service.storage.shared_files import READ_ONLY
from service.tracking.connection import TrackingError, forbidden
from service.tracking.links import how_to_open
from service.tracking.runs import Tracking
from trainables.errors import UserError
from trainables.output import printable
from trainables.storage.files import write

FIGURES: dict[str, Callable[[Sequence[Task]], list[Panel]]] = {
    "sparsity": figures.by_sparsity,
    "frontier": lambda tasks: costs.frontier(tasks, "flops"),
    "frontier-time": lambda tasks: costs.frontier(tasks, "seconds"),
    "pareto": sizes.pareto,
    "grid": figures.heat_map,
    "curves-updates": lambda tasks: costs.curves(tasks, "update"),
    "curves-compute": lambda tasks: costs.curves(tasks, "flops"),
    "curves-time": lambda tasks: costs.curves(tasks, "seconds"),
    "profiles": figures.profiles,
    "layers": sizes.layers,
    "inputs": sizes.inputs,
}


def report(sweeps: Sequence[str], storage: Path, to: Path | None = None) -> int:
    """Make the report over all sweeps together in `to`, else in the storage's reports/; returns the exit code."""
    sweeps = tuple(dict.fromkeys(sweeps))
    name = "+".join(sweeps)
    folder = to or paths.report(storage, name)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--to {folder} is a file; give a folder")
    tracking = Tracking(storage)
    found = gather(sweeps, tracking, storage)
    tasks = tasks_of(found.runs)
    panels = {key: draw(tasks) for key, draw in FIGURES.items()}
    text = tables.text(tasks, found.notes)
    files = {"table.txt": text.encode() + b"\n", "table.tex": tables.latex(tasks).encode()}
    for stem, rows in (("cells", tables.cell_rows(tasks)), ("trials", tables.trial_rows(tasks)), ("curves", tables.curve_rows(tasks))):
        files |= {f"{stem}.csv": tables.to_csv(rows), f"{stem}.parquet": tables.to_parquet(rows)}
    files["page.html"] = page(name, tasks, panels, f"Sweeps: {', '.join(sweeps)}.", found.notes).encode()
    for file, content in files.items():
        write(folder / file, content)
    drawn = [(key, part, own) for key, found in panels.items() for part, own in enumerate(sheets(found), 1)]
    written = set()
    for number, (key, part, own) in enumerate(drawn, 1):
        for kind, content in saved(own).items():
            file = f"{key}.{kind}" if part == 1 else f"{key}-{part}.{kind}"
            write(folder / "figures" / file, content)
            written.add(file)
        if sys.stderr.isatty():
            print(f"\rdrawing {number} of {len(drawn)}", end="" if number < len(drawn) else "\n", file=sys.stderr)
    remove_others(folder / "figures", written)
    print(f"{printable(text)}\n\npage: {folder / 'page.html'}\ntables and figures: {folder}", flush=True)
    try:
        for parent in found.parents.values():
            tracking.log_artifacts(parent, [folder / file for file in files], "report")
    except TrackingError as error:
        if getattr(error.__cause__, "errno", None) not in READ_ONLY and not forbidden(error):
            raise
        print(f"not logged in MLflow, which may only be read here ({error.why})")
        return 0
    print(f"{how_to_open(tracking.uri)} (artifact report/page.html)")
    return 0


def remove_others(folder: Path, kept: Collection[str]) -> None:
    """What an older, larger report has left among the figures; files of other names are not ours."""
    ours = re.compile(rf"({'|'.join(FIGURES)})(-[0-9]+)?\.(png|svg|pdf)")
    for file in folder.glob("*"):
        if ours.fullmatch(file.name) and file.name not in kept:
            file.unlink()
