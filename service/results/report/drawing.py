"""The figures of a report, drawn: panels for the page, and files beside it. A sheet is drawn once for both."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from service.results.cells import Task
from service.results.report import costs, figures, sizes
from service.results.report.style import STYLES, TWO_COLUMNS, Key, Look, Panel, Sheet, drawn, keys_of, pages, saved, sheets
from service.results.report.svg import cut
from trainables.storage.files import write

FIGURES: dict[str, Callable[[Sequence[Task]], list[Panel]]] = {
    "sparsity": figures.by_sparsity,
    "frontier": lambda tasks: costs.frontier(tasks, "flops"),
    "frontier-time": lambda tasks: costs.frontier(tasks, "seconds"),
    "pareto": sizes.pareto,
    "grid": figures.heat_map,
    "curves": lambda tasks: costs.curves(tasks, "update"),
    "profiles": figures.profiles,
    "layers": sizes.layers,
    "inputs": sizes.inputs,
}
OURS = rf"({'|'.join(FIGURES)}|curves-(updates|compute|time))(-[0-9]+|-column|-slides(-[0-9]+)?)?\.(png|svg|pdf)"  # older reports' too


@dataclass(frozen=True)
class Drawn:
    """A figure for the page: its panels as SVG elements, its legend, and whether its panels go below one another."""

    panels: list[str]
    keys: list[Key]
    wide: bool


def draw(tasks: Sequence[Task], folder: Path, style: str | None, tell: Callable[[str], None] = lambda text: None) -> dict[str, Drawn]:
    """Draw all figures: for the page and into `folder` as svg; with `style`, a key of STYLES, also as pdf and png of its sizes."""
    found, written = {}, set[str]()
    looks = STYLES[style] if style else {}
    for number, (name, make) in enumerate(FIGURES.items(), 1):
        tell(f"drawing {number} of {len(FIGURES)}: {name}")
        panels = make(tasks)
        if not panels:
            continue
        keys = keys_of(panels)
        made = _sheets(panels, TWO_COLUMNS, keys)
        files = {_numbered(name, part, "svg"): saved(sheet, "svg") for part, sheet in enumerate(made, 1)}
        cuts = [cut(svg, sheet, f"{name}-{part}") for part, (svg, sheet) in enumerate(zip(files.values(), made, strict=True), 1)]
        found[name] = Drawn([each for own in cuts for each in own], keys, bool(panels[0].size))
        for suffix, look in looks.items():
            files |= _files(name + suffix, made if look is TWO_COLUMNS else _sheets(panels, look, keys), look)
        for file, content in files.items():
            write(folder / file, content)
        written |= files.keys()
    remove_others(folder, written)
    return found


def _sheets(panels: Sequence[Panel], look: Look, keys: Sequence[Key]) -> list[Sheet]:
    return [drawn(own, look, keys if look.sheet > 1 else None) for own in sheets(panels, look)]


def _files(name: str, made: Sequence[Sheet], look: Look) -> Mapping[str, bytes]:
    """One pdf with a page per sheet, and a png of each; of single panels the pdf alone."""
    pictures = {_numbered(name, part, "png"): saved(sheet, "png", look) for part, sheet in enumerate(made, 1) if look.sheet > 1}
    return {f"{name}.pdf": pages(made, look), **pictures}


def _numbered(name: str, part: int, kind: str) -> str:
    return f"{name}.{kind}" if part == 1 else f"{name}-{part}.{kind}"


def remove_others(folder: Path, kept: Collection[str]) -> None:
    """What an older, larger report has left among the figures; files of other names are not ours."""
    for file in folder.glob("*"):
        if re.fullmatch(OURS, file.name) and file.name not in kept:
            file.unlink()
