"""Numbers as people read them."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """`45 s`, `7 min`, `3.5 h`, `12 d`."""
    for unit, length, until in (("s", 1, 90), ("min", 60, 90), ("h", 3600, 48)):
        if seconds / length < until:
            value = seconds / length
            return f"{value:.1f} {unit}" if unit == "h" and value < 10 else f"{value:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"


def hours_and_minutes(seconds: float) -> str:
    """`9 h 12 min`, `12 min`, `less than a minute`."""
    hours, minutes = divmod(int(seconds // 60), 60)
    return " ".join([f"{hours} h"] * bool(hours) + [f"{minutes} min"] * bool(minutes)) or "less than a minute"
