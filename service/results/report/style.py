"""How figures look: one drawing of each, for paper (png, svg, pdf) and for light and dark pages.

A sheet is drawn once, at the width of a paper's two columns; svg.py cuts the page's panels from its SVG. Everything has a fixed place, as
finding one takes matplotlib longer than drawing.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from service.results.report.palette import colour

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS: dict[str, dict[str, Any]] = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}  # metadata: none that differs
POINTS = 72  # per inch


@dataclass(frozen=True)
class Look:
    """Sizes in inches and points: of a panel, how many go side by side and on a sheet, and of its text."""

    width: float
    height: float
    columns: int
    rows: int
    font: float

    @property
    def scale(self) -> float:
        """Of margins and lines, as the text grows."""
        return self.font / 7

    @property
    def sheet(self) -> int:
        return self.columns * self.rows


TWO_COLUMNS = Look(2.3, 1.9, 3, 4, 7)  # 6.9 in: a paper's text width
ONE_COLUMN = Look(3.35, 2.5, 1, 1, 8)  # 85 mm
SLIDE = Look(6.2, 4.9, 2, 1, 15)  # 12.4 in across, for a projector
STYLES = {"paper": {"": TWO_COLUMNS, "-column": ONE_COLUMN}, "slides": {"-slides": SLIDE}}  # of files: what follows their name
LEFT, RIGHT, BOTTOM, ABOVE, LINE = 0.44, 0.07, 0.38, 0.05, 0.13  # inches at 7 points: margins of a panel, and a line of text
LINE_WIDTH = 1.1  # points
CHARACTER = 0.058  # inches, mean width of a character at 7 points


@dataclass(frozen=True)
class Key:
    """A line of a legend: what it is called and how it is drawn. Without `dash` no line, without `marker` no mark; with `patch` an area."""

    label: str
    tone: str
    dash: Any = None
    marker: str = ""
    fill: Any = "full"
    width: float = 1.2
    size: float = 3.8  # of the mark, points
    patch: float = 0  # opacity
    hatch: str = ""
    order: tuple[Any, ...] = (9,)  # among the keys of a figure

    def artists(self, scale: float = 1) -> tuple[Artist, ...]:
        """What shows it, the lowest first: an area, a line or mark, or a mark on an area."""
        from matplotlib.lines import Line2D
        from matplotlib.patches import Patch

        edge = colour("rule") if self.hatch else "none"
        area = Patch(facecolor=self.tone, alpha=self.patch, linewidth=0, hatch=self.hatch, edgecolor=edge)
        line = Line2D(
            [], [], color=self.tone, linestyle="none" if self.dash is None else self.dash, linewidth=scale * self.width,
            marker=self.marker or "none", fillstyle=self.fill, markersize=scale * self.size, markerfacecoloralt="none",
        )  # fmt: skip
        return (*([area] if self.patch else []), *([line] if self.marker or not self.patch else []))


@dataclass(frozen=True)
class Panel:
    """One plot: a title, its axes' labels, what draws it, and the keys of its legend, which the panels of a figure share.

    size   inches of a panel that is as large as what it shows, with its left and bottom margin; such panels go below one another
    """

    title: str
    x: str
    y: str
    draw: Callable[[Axes], None]
    keys: tuple[Key, ...] = ()
    size: tuple[float, float, float, float] | None = None


@dataclass(frozen=True)
class Sheet:
    """A drawn sheet, and where its panels are on it: left, top, width and height in points."""

    figure: Figure
    places: list[tuple[float, float, float, float]]


def sheets(panels: Sequence[Panel], look: Look = TWO_COLUMNS) -> list[Sequence[Panel]]:
    """Panels as they are spread over sheets, none of which is much larger than a page."""
    most = max(1, look.sheet // 3) if panels and panels[0].size else look.sheet
    return [panels[start : start + most] for start in range(0, len(panels), most)]


def keys_of(panels: Sequence[Panel]) -> list[Key]:
    """The legend of a figure: every key once, in one order whichever panels have them."""
    return sorted(dict.fromkeys(key for panel in panels for key in panel.keys), key=lambda key: key.order)


@contextmanager
def settings(look: Look) -> Iterator[None]:
    """Matplotlib's settings for a look; text stays text in svg, and TrueType in pdf."""
    import matplotlib

    rule, muted, ink, scale = colour("rule"), colour("muted"), colour("ink"), look.scale
    chosen: dict[Any, Any] = {
        "svg.fonttype": "none", "svg.hashsalt": "winnow", "pdf.fonttype": 42, "font.size": look.font, "font.family": "sans-serif",
        "axes.titlesize": look.font + 0.5, "axes.titlelocation": "left", "axes.titlepad": 3 * scale,
        "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": rule, "axes.labelcolor": muted, "axes.labelpad": 2 * scale,
        "axes.labelsize": look.font, "axes.linewidth": 0.6 * scale, "axes.axisbelow": True, "axes.titlecolor": ink, "text.color": ink,
        "xtick.color": muted, "ytick.color": muted, "xtick.labelsize": look.font - 0.5, "ytick.labelsize": look.font - 0.5,
        "xtick.major.pad": 2 * scale, "ytick.major.pad": 2 * scale, "lines.linewidth": LINE_WIDTH * scale, "lines.markersize": 3.4 * scale,
        "lines.markeredgewidth": 0.8 * scale, "legend.frameon": False, "legend.fontsize": look.font, "grid.color": rule,
        "grid.linewidth": 0.5 * scale, "figure.facecolor": "none", "axes.facecolor": "none", "xtick.minor.visible": False,
        "ytick.minor.visible": False, "hatch.linewidth": 0.5 * scale,
    }  # fmt: skip
    with matplotlib.rc_context(chosen):
        yield


def drawn(panels: Sequence[Panel], look: Look = TWO_COLUMNS, keys: Sequence[Key] | None = None) -> Sheet:
    """All panels on one sheet, below their legend: `keys`, else all that theirs have."""
    from matplotlib.figure import Figure

    keys = keys_of(panels) if keys is None else keys
    columns = 1 if panels[0].size else min(look.columns, len(panels))
    titles = [_lines_of(panel, look) for panel in panels]
    extra = LINE * look.scale * (max(map(len, titles)) - 1)
    sizes = [_size(panel, look, extra) for panel in panels]
    rows = [sizes[start : start + columns] for start in range(0, len(sizes), columns)]
    width = max(sum(size[0] for size in row) for row in rows)
    per_row, lines = _legend_rows(keys, width, look)
    top = (lines + 0.4) * LINE * look.scale if lines else 0.0
    height = top + sum(max(size[1] for size in row) for row in rows)
    places, y = [], top
    for row in rows:
        x = 0.0
        for size in row:
            places.append((POINTS * x, POINTS * y, POINTS * size[0], POINTS * size[1]))
            x += size[0]
        y += max(size[1] for size in row)
    with settings(look):
        figure = Figure(figsize=(width, height))
        for number, (panel, title, (w, h, left, bottom), place) in enumerate(zip(panels, titles, sizes, places, strict=True)):
            above = (ABOVE + LINE * max(1, len(title))) * look.scale
            x, y = place[0] / POINTS, height - place[1] / POINTS - h
            box = (x + left, y + bottom, w - left - RIGHT * look.scale, h - bottom - above)
            axis = figure.add_axes((box[0] / width, box[1] / height, box[2] / width, box[3] / height))
            axis.set_gid(f"panel{number}")
            axis.set_xlabel(panel.x)
            axis.set_ylabel(panel.y)
            panel.draw(axis)
            shift = (0.06 * look.scale - left) / box[2]  # the title begins at the panel's edge
            axis.set_title(literal("\n".join(title)), x=shift, y=1.0)
            axis.xaxis.set_label_coords(0.5, (0.19 * look.scale - bottom) / box[3])
            axis.yaxis.set_label_coords((0.13 * look.scale - left) / box[2], 0.5)
        if keys:
            shown = _by_row(keys, per_row)
            figure.legend(
                handles=[key.artists(look.scale) for key in shown], labels=[literal(key.label) for key in shown], loc="upper left",
                bbox_to_anchor=(0.0, 1.0), ncols=per_row, handlelength=1.8, columnspacing=1.2, borderpad=0.2, borderaxespad=0.1,
                labelspacing=0.2,
            )  # fmt: skip
    return Sheet(figure, places)


def _size(panel: Panel, look: Look, extra: float) -> tuple[float, float, float, float]:
    """Width, height, left and bottom margin in inches; `extra`, for titles of several lines."""
    if panel.size:
        w, h, left, bottom = (look.scale * each for each in panel.size)
        return w, h + extra, left, bottom
    return look.width, look.height + extra, look.scale * LEFT, look.scale * BOTTOM


def _lines_of(panel: Panel, look: Look) -> list[str]:
    """A panel's title in lines that fit above it; a number and its unit stay together."""
    width = 200 if panel.size else int((look.width - 0.2) / (1.15 * CHARACTER * look.scale))
    return textwrap.wrap(panel.title.replace(" %", "\N{NO-BREAK SPACE}%"), width)


def _legend_rows(keys: Sequence[Key], width: float, look: Look) -> tuple[int, int]:
    """How many keys go side by side where the longest has room, and in how many rows."""
    if not keys:
        return 1, 0
    wide = [look.scale * (0.38 + 0.056 * len(key.label)) for key in keys]
    fits = (count for count in range(len(keys), 1, -1) if sum(max(wide[column::count]) for column in range(count)) <= width)
    per_row = next(fits, 1)
    return per_row, math.ceil(len(keys) / per_row)


def _by_row(keys: Sequence[Key], per_row: int) -> list[Key]:
    """Keys in the order in which matplotlib, which fills column by column, shows them row by row."""
    lines = math.ceil(len(keys) / per_row)
    full = len(keys) - (lines - 1) * per_row  # columns that reach the last row
    return [keys[row * per_row + column] for column in range(per_row) for row in range(lines if column < full else lines - 1)]


def literal(text: str) -> str:
    """A name that somebody chose, for matplotlib, which would read what is between two `$` as mathematics."""
    return text.replace("$", r"\$")


def png(panels: Sequence[Panel]) -> bytes:
    """All panels on one sheet, on white."""
    return saved(drawn(panels), "png")


def saved(sheet: Sheet, kind: str, look: Look = TWO_COLUMNS) -> bytes:
    """A sheet as `png`, `svg` or `pdf`, on white; the same panels give the same bytes."""
    stream = io.BytesIO()
    with settings(look):
        sheet.figure.savefig(stream, format=kind, dpi=150, facecolor="white", metadata=KINDS[kind])
    return stream.getvalue()


def pages(drawn_sheets: Sequence[Sheet], look: Look = TWO_COLUMNS) -> bytes:
    """Sheets as the pages of one pdf, which holds each font once."""
    from matplotlib.backends.backend_pdf import PdfPages

    stream = io.BytesIO()
    with settings(look), PdfPages(stream, metadata=KINDS["pdf"]) as file:
        for sheet in drawn_sheets:
            file.savefig(sheet.figure, facecolor="white")
    return stream.getvalue()
