"""Tables as text."""

from __future__ import annotations

from collections.abc import Sequence

from trainables.output import printable


def aligned(rows: Sequence[Sequence[str]], gap: str = "  ") -> str:
    """Rows as lines of aligned columns, indented by two spaces."""
    rows = [[printable(cell, lines=False) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(("  " + gap.join(map(str.ljust, row, widths))).rstrip() for row in rows)
