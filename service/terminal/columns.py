"""Tables as text."""

from __future__ import annotations

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]], gap: str = "  ") -> str:
    """Rows as lines of aligned columns, indented by two spaces."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(("  " + gap.join(map(str.ljust, row, widths))).rstrip() for row in rows)
