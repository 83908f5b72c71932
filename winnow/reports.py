"""The report of sweeps as a value that a notebook shows."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Literal

from winnow import given


@dataclass(frozen=True)
class Report:
    """A report's `folder`: tables, figures and `page`, which a notebook shows inline."""

    folder: Path

    @property
    def page(self) -> Path:
        return self.folder / "page.html"

    @property
    def text(self) -> str:
        """The report as text."""
        return (self.folder / "table.txt").read_text()

    def _repr_html_(self) -> str:
        page = escape(self.page.read_text(), quote=True)
        return f'<iframe srcdoc="{page}" style="width: 100%; height: 800px; border: 0" title="report"></iframe>'


def report(
    *sweeps: str | Path, storage: str | Path | None = None, to: str | Path | None = None, style: Literal["paper", "slides"] | None = None
) -> Report:
    """Write the report of the sweeps, as `winnow report` does, into `to` or the storage's reports/; `style` adds figures as PDF and PNG.

    Raises UserError for a sweep that MLflow does not hold, and where no sweep is given."""
    from service.results.report.build import report as write
    from service.results.report.style import STYLES
    from service.storage import paths
    from trainables import project
    from trainables.errors import unknown

    if style is not None and style not in STYLES:
        raise unknown("style", style, STYLES)
    given.renew()
    where, names = given.storage(storage), given.sweeps(sweeps, "report")
    folder = project.expanded(to).absolute() if to is not None else paths.report(where, "+".join(names))
    with contextlib.redirect_stdout(io.StringIO()):  # what the command prints is in `text`
        write(names, where, folder, style)
    return Report(folder)
