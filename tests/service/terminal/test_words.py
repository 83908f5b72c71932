from __future__ import annotations

from service.terminal.words import duration


def test_durations_are_readable() -> None:
    assert [duration(s) for s in (5, 300, 5 * 3600, 100 * 3600)] == ["5 s", "5 min", "5.0 h", "4 d"]
