"""The colours of figures and of the page, and how each method is drawn: by its name alone, whoever else is in the figure.

A pruner has a colour and a marker; a variant of it (`+shuffle`) has the pruner's colour with a dash, a marker and a hatch that say so.
Where cells of several sparsities meet, the marker is the sparsity's (marks.py). Colours are told apart by colour-blind readers (Okabe & Ito
2008, Tol 2021) for the methods that most often meet, and for all together with the markers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from service.terminal.labels import DENSE, pruner_of, variant_of

T = TypeVar("T")
Pair = tuple[str, str]  # on paper and light pages, on dark pages
# pruner -> its colour, and its marker
PRUNERS: dict[str, tuple[Pair, str]] = {
    "snip": (("#0072b2", "#4ea3e0"), "o"),
    "iterative_snip": (("#4b3fa7", "#a193f2"), "P"),
    "force": (("#2f9bd6", "#9bd4f5"), "X"),
    "grasp": (("#009e73", "#22c498"), "^"),
    "synflow": (("#b0578d", "#e08cbc"), "D"),
    "prospr": (("#8a1c4a", "#d4628f"), "<"),
    "ntk_sap": (("#3d5a80", "#8fb0d9"), "$\\clubsuit$"),
    "phew": (("#2d6a4f", "#74c69d"), "$\\spadesuit$"),
    "magnitude": (("#b27f00", "#f0b429"), "v"),
    "gmp": (("#7a7d1c", "#c6ca5a"), ">"),
    "imp": (("#5c4d00", "#cdbb5b"), "8"),
    "rigl": (("#b5179e", "#f06fd8"), "*"),
    "rlx2": (("#7d3fc8", "#c79bff"), "$\\heartsuit$"),
    "set": (("#6a8d00", "#b4d455"), "H"),
    "sparse_reg": (("#00798c", "#3fb8c9"), "d"),
    "random_erk": (("#d55e00", "#f5793a"), "s"),
    "random_uniform": (("#8c5a3c", "#cf9f80"), "p"),
    "small_dense": (("#6b7280", "#a9b1bd"), "h"),
}
# For pruners of other files: one of these, by a hash of the name.
OTHERS: tuple[tuple[Pair, str], ...] = (
    (("#a03e3e", "#e07a7a"), "4"), (("#4a6fa5", "#94b4e0"), "1"), (("#2a6f6f", "#7cc4c4"), "+"), (("#7a5195", "#b98fd4"), "3"),
)  # fmt: skip
PLAIN, DENSE_DASH, OTHER_DASH = "-", "--", (0, (7, 2))
CONTROLS: dict[str, tuple[Any, str, str]] = {  # dash, marker, hatch
    "+shuffle": ("-.", "1", "///"),
    "+reinit": ((0, (5, 1, 1, 1, 1, 1)), "2", "---"),
}
OTHER_MARKERS, OTHER_HATCH = ("3", "4", "+", "|"), "..."  # no "x": that is a seed without a score


@dataclass(frozen=True)
class Style:
    """How a method is drawn; an empty `hatch` is none."""

    colour: str
    marker: str
    dash: Any
    hatch: str


INK = ("#1a1a19", "#f2f1ec")
COLOURS: dict[str, Pair] = {
    "ink": INK,
    "muted": ("#5f5e5a", "#b4b2a9"),
    "rule": ("#d8d6cf", "#3f3e3b"),
    "accent": ("#1f6aa5", "#6fb2e6"),  # links, and the edge of the claim
    "fill": ("#74828f", "#7c8b9a"),  # fills the squares of grids
    "absent": ("#a84300", "#f57a3c"),  # of text only
}
for _name, (_pair, _) in PRUNERS.items():
    COLOURS[f"method-{_name}"] = _pair
for _number, (_pair, _) in enumerate(OTHERS):
    COLOURS[f"other-{_number}"] = _pair
VARIABLES = {paper: f"var(--{name})" for name, (paper, _) in COLOURS.items()}


def colour(name: str) -> str:
    """A named colour, as on paper."""
    return COLOURS[name][0]


def style_of(method: str) -> Style:
    """How a method looks in every figure: the pruner gives the colour, a control or another option the dash, marker and hatch."""
    if method == DENSE:
        return Style(colour("ink"), "o", DENSE_DASH, "")
    name, marker = _of_pruner(pruner_of(method))
    dash: Any = PLAIN
    options, hatch = variant_of(method), ""
    for control, look in CONTROLS.items():
        if control in options:
            options, (dash, marker, hatch) = options.replace(control, ""), look
    if options:
        marker, dash, hatch = _chosen(OTHER_MARKERS, options), OTHER_DASH if dash == PLAIN else dash, hatch + OTHER_HATCH
    return Style(colour(name), marker, dash, hatch)


def _of_pruner(pruner: str) -> tuple[str, str]:
    """Name of the colour, and marker."""
    if pruner in PRUNERS:
        return f"method-{pruner}", PRUNERS[pruner][1]
    number = _chosen(range(len(OTHERS)), pruner)
    return f"other-{number}", OTHERS[number][1]


def _chosen(choices: Sequence[T], name: str) -> T:
    """The same choice for a name in every figure and every process."""
    return choices[hashlib.sha256(name.encode()).digest()[0] % len(choices)]
