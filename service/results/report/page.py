"""The report as one HTML file that loads nothing (its policy forbids that), light or dark as the reader's system, also on phones.

Its one script sorts and filters tables; without it everything is there.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

from service.results import controls
from service.results.cells import DENSE, Cell, Task, places_of
from service.results.report import tables
from service.results.report.drawing import Drawn
from service.results.report.figures import interval
from service.results.report.over_tasks import choice, claim
from service.results.report.palette import COLOURS
from service.results.report.svg import place, swatch
from service.terminal.labels import method_name

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
LIVE = "; connect-src 'self'"  # of a page that asks its server whether it has been renewed
OVER = (
    "Normalized scores, seeds drawn within tasks. Rows of one sparsity cover the same tasks: those where each of their methods has every "
    "seed. Tasks of different budgets are not averaged."
)
OPEN = 6  # panels of a figure that are shown at once; the others open on a click
# figure -> (heading, what it shows)
ABOUT = {
    "sparsity": (
        "Score against sparsity",
        "Means over seeds; the axis has equal steps in log density. Dotted: the mean of the data's episodes. x: a seed has no score, "
        "and is not in the mean.",
    ),
    "frontier": (
        "Score at equal compute",
        "Every cell ends at a mark, whose shape is its sparsity; the thin line is how it got there. Along the foot: where the best "
        "mean that any pruned cell had reached is above the best that dense had, at no more cost. Such a best of many noisy means "
        "is too high, most where there are many cells. FLOPs: 2 per kept weight and minibatch row, forward and twice backward, "
        "without target networks and delayed updates. Sweeps that differ only in the number of updates share a panel.",
    ),
    "frontier-time": (
        "Score at equal time",
        "The same by seconds spent in updates on the hosts that trained. K trials that train as one model are charged 1 / K of the time "
        "each: what a trial cost, not how long it took. Compare only where hosts are alike.",
    ),
    "pareto": (
        "Score against size",
        "The actor's parameters on a path from input to output. Hollow: one seed, or some seeds have no score.",
    ),
    "curves": ("Learning curves", "Means over the finished seeds, by update. Dotted: some seeds did not finish."),
    "profiles": (
        "Performance profiles",
        "Share of runs above each score. All lines of a panel cover the same tasks, those with every seed.",
    ),
    "layers": ("What each layer keeps", "Share of weights kept in each layer, mean over seeds."),
    "inputs": ("Live inputs", "Observation dimensions that some actor no longer sees; the fuller the colour, the more seeds see them."),
}  # fmt: skip


def page(name: str, tasks: Sequence[Task], figures: Mapping[str, Drawn], source: str, about: Sequence[str] = ()) -> str:
    """The whole page; `source` says where the numbers come from, `about` what is left out of them."""
    runs = [run for task in tasks for cell in task.cells.values() for run in cell.runs]
    done = sum(len(cell.done) for task in tasks for cell in task.cells.values())
    drawn = {key: figure for key, figure in figures.items() if key in ABOUT}
    controlled = tables.compared(tasks)
    anchors = {
        "grid": "The grid",
        **({"over": "Over tasks"} if len(tasks) > 1 else {}),
        **({"controls": "Controls"} if controlled else {}),
        **{key: ABOUT[key][0] for key in drawn},
        "cells": "Cells",
    }
    scope = f"{len(tasks)} task{'s' if len(tasks) > 1 else ''}, {done} of {len(runs)} trials with a last score."
    lead, *others = claim(tasks)
    lead = lead[:1].upper() + lead[1:]  # capitalize() would make small letters of all others, of a value too: `gaussian True`
    more = "".join(f"<p class=note>{escape(line.strip())}</p>" for line in [*others, *choice(tasks)])
    cautions = "".join(f"<p class='caution'>{escape(line)}</p>" for line in [*tables.warnings(tasks), *about])
    parts = [
        f"<h1>{escape(name)}</h1>",
        f"<div class='claim'><p>{escape(lead)}</p>{more}{cautions}</div>",
        f"<p class='note'>{escape(scope)} {escape(source)}</p>",
        f"<nav>{''.join(f'<a href=#{key}>{escape(text)}</a>' for key, text in anchors.items())}</nav>",
        "<h2 id=grid>The grid</h2>",
        "<p class='note'>Share of the dense score in percent, seeds paired, interval below. *: a seed has no pair. "
        "No bounds: dense seeds differ so much that shares may be arbitrarily high or low. Hatched: no share can be computed, and why.</p>",
        grid(tasks),
    ]
    if len(tasks) > 1:
        head, *rows = tables.aggregate_rows(tasks)
        parts += ["<h2 id=over>Over tasks</h2>", f"<p class='note'>{OVER}</p>", table(head, rows)]
    if controlled:
        lead_in = f"<p class='note'>{escape(controls.HEAD.capitalize())}; {escape(controls.FOOT)}.</p>"
        parts += ["<h2 id=controls>Controls</h2>", lead_in]
        parts.append(table(tables.CONTROLS, tables.control_rows(controlled), last="verdict", sortable=True))
    parts += [section(key, figure) for key, figure in drawn.items()]
    parts.append("<h2 id=cells>Cells</h2>")
    every = [(task, cell) for task in tasks for cell in task.cells.values()]
    parts.append(table(("task", *tables.HEAD), [(task.name, *tables.cells_of(cell)) for task, cell in every], sortable=True))
    rest = [(task.name, *row) for task in tasks for row in tables.against_rows(task)[1:]]
    parts += ["<h3>Against dense</h3>", table(("task", *tables.AGAINST), rest, sortable=True)] if rest else []
    reading = [*(f"{task.name}: {task.measure}; {task.detail}" for task in tasks), *tables.notes(tasks)]
    parts.append("<h2>How to read this</h2><ul class='note'>" + "".join(f"<li>{escape(line)}</li>" for line in reading) + "</ul>")
    script = Path(__file__).with_name("page.js").read_text()
    parts.append(f"<script>{script}</script>")
    policy = f"{POLICY}; script-src 'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
    head_html = (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'><meta name='viewport' content='width=device-width, initial-scale=1'>"
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><title>{escape(name)}</title><style>{style()}</style></head>'
    )
    return f"{head_html}<body>\n{chr(10).join(parts)}\n</body></html>\n"


def live(whole: str, version: str) -> str:
    """A page as it is served while its sweep runs: it reloads itself when its server has another version."""
    return whole.replace(POLICY, POLICY + LIVE, 1).replace("<body>", f"<body data-live='{version}'>", 1)


def style() -> str:
    """The style sheet with the palette as variables, for light and for dark."""
    light, dark = (" ".join(f"--{name}: {pair[i]};" for name, pair in COLOURS.items()) for i in (0, 1))
    return Path(__file__).with_name("page.css").read_text().replace("LIGHT", light).replace("DARK", dark)


def grid(tasks: Sequence[Task]) -> str:
    """The heat map as a table: a row per task, a column per method and sparsity."""
    places = [place for place in places_of(tasks) if place != DENSE]
    head = "".join(f"<th>{escape(method_name(method))}<br>{100 * sparsity:g} %</th>" for method, sparsity in places)
    lines = [f"<tr><th>task</th><th>dense</th>{head}</tr>"]
    for task in tasks:
        dense = f"{task.dense.mean.value:.1f}" if task.dense and task.dense.mean else "none"
        note = f"<br><small>{escape(task.dense.absence)}</small>" if task.dense and task.dense.absent else ""
        squares = "".join(_square(task.cells.get(place)) for place in places)
        lines.append(f"<tr><td>{escape(task.name)}</td><td style='--share:0'>{dense}{note}</td>{squares}</tr>")
    return f"<div class='scroll'><table class='grid'>{''.join(lines)}</table></div>"


def _square(cell: Cell | None) -> str:
    if cell is None:
        return "<td class='none'></td>"
    if cell.retained is None:
        unpaired = f"dense: {cell.unpaired}" if not cell.pairs else "no dense score above 0"
        return f"<td class='none'>{escape(cell.absence or unpaired)}</td>"
    share = 100 * cell.retained.value
    why = ", ".join([*([cell.absence] if cell.absent else []), *([f"dense: {cell.unpaired}"] if cell.unpaired else [])])
    star, note = ("", "") if cell.whole else ("*", f"<small class='why'>{len(cell.pairs)}/{len(cell.runs)} pairs; {escape(why)}</small>")
    return f"<td style='--share:{min(100, max(0, share)):.0f}'>{share:.0f}{star}<br><small>{interval(cell.retained)}</small>{note}</td>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], last: str = "absent", *, sortable: bool = False) -> str:
    """A table that scrolls by itself where it is wider than the page, without the columns that are empty in every row.

    Words of the last column of `head` have the class `last`. `sortable`: page.js sorts it by a click on a heading, and filters its rows.
    """
    rows = list(rows)
    kept = [number for number in range(len(head)) if any(row[number] for row in rows)]
    if len(head) - 1 not in kept:
        last = ""
    head, rows = [head[number] for number in kept], [[row[number] for number in kept] for row in rows]
    lines = ["<tr>" + "".join(f"<th>{escape(text)}</th>" for text in head) + "</tr>"]
    for *cells, words in rows:
        lines.append("<tr>" + "".join(f"<td>{escape(text)}</td>" for text in cells) + f"<td class='{last}'>{escape(words)}</td></tr>")
    return f"<div class='scroll'><table{' class=sortable' if sortable else ''}>{''.join(lines)}</table></div>"


def section(key: str, figure: Drawn) -> str:
    """A figure: its legend, and its panels side by side as far as the page is wide."""
    heading, caption = ABOUT[key]
    drawn = [f"<div style='{place(panel)}'>{panel}</div>" for panel in figure.panels]
    kind = "panels wide" if figure.wide else "panels"
    first, rest = "".join(drawn[:OPEN]), "".join(drawn[OPEN:])
    more = f"<details><summary>{len(drawn) - OPEN} more</summary><div class='{kind}'>{rest}</div></details>" if rest else ""
    keys = "".join(f"<li>{swatch(each, f'{key}-key{number}')}{escape(each.label)}</li>" for number, each in enumerate(figure.keys))
    legend = f"<ul class='legend'>{keys}</ul>" if keys else ""
    return f"<h2 id='{key}'>{heading}</h2><p class='note'>{escape(caption)}</p>{legend}<div class='{kind}'>{first}</div>{more}"
