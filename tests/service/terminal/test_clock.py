"""The time of day at which a run ends: which one is meant, by which clock, and in how long."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest

from service.planning.description import limits
from service.planning.options import TrainingOptions
from service.terminal import clock
from trainables.errors import UserError


@pytest.fixture(autouse=True)
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This machine is in Berlin, by a rule that needs no database of time zones."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
        time.tzset()
        yield
    time.tzset()


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone()


@pytest.mark.parametrize(
    ("now", "until", "says"),
    [
        ("2026-11-28T21:48", "07:00", "07:00 tomorrow, in 9 h 12 min"),
        ("2026-11-28T21:48", "7:00", "7:00 tomorrow, in 9 h 12 min"),
        ("2026-11-28T06:59:30", "07:00", "07:00 today, in less than a minute"),
        ("2026-11-28T07:00", "07:00", "07:00 tomorrow, in 24 h"),
        ("2026-11-28T21:48", "23:30", "23:30 today, in 1 h 42 min"),
        ("2026-12-31T21:48", "00:10", "00:10 tomorrow, in 2 h 22 min"),
        ("2026-03-28T21:00", "07:00", "07:00 tomorrow, in 9 h"),  # the night in which an hour is left out
        ("2026-10-24T21:00", "07:00", "07:00 tomorrow, in 11 h"),  # and the one that has an hour twice
        ("2026-11-28T21:48", "07:00-05:00", "07:00-05:00 tomorrow, in 15 h 12 min"),
        ("2026-11-28T21:48", "02:00+05:30", "02:00+05:30 tomorrow, in 23 h 42 min"),
    ],
)
def test_the_next_such_time_is_meant_and_said(now: str, until: str, says: str) -> None:
    assert clock.meant(until, at(now)) == says
    assert timedelta() < clock.deadline(until, at(now)) - at(now) <= timedelta(hours=25)


def test_for_another_machine_it_says_by_which_clock() -> None:
    now = at("2026-11-28T21:48")
    assert clock.with_zone("07:00", now) == "07:00+01:00"
    assert clock.with_zone("07:00", at("2026-07-28T21:48")) == "07:00+02:00"
    assert clock.with_zone("07:00-05:00", now) == "07:00-05:00"
    assert clock.deadline(clock.with_zone("07:00", now), now) == clock.deadline("07:00", now)


@pytest.mark.parametrize("wrong", ["", "24:00", "7", "07:60", "7am", "07:00:00", "07:00+2", "07:00Z", "07:00+25:00", "-1:00"])
def test_what_is_no_time_of_day_is_refused(wrong: str) -> None:
    with pytest.raises(UserError, match="is not a time of day from 00:00 to 23:59"):
        clock.check(wrong)


def test_all_limits_are_said() -> None:
    assert limits(TrainingOptions()) == ""
    assert limits(TrainingOptions(max_hours=2, max_core_hours=40.5, max_gpu_hours=1)) == "2 hours; 40.5 core-hours; 1 gpu-hours"
    said = limits(TrainingOptions(until="07:00", max_hours=2))
    assert said.startswith("until 07:00 to")
    assert said.endswith("; 2 hours")
