"""Tables as people read them."""

from __future__ import annotations

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]], gap: str = "  ") -> str:
    """Rows as text in columns, a line each, set in by two spaces."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(("  " + gap.join(map(str.ljust, row, widths))).rstrip() for row in rows)
