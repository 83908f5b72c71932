"""A time of day at which a run ends, `07:00` of this machine's clock or `07:00+02:00` of another's, and when that comes next."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone, tzinfo

from service.terminal.words import hours_and_minutes
from trainables.errors import UserError

TIME = r"([01]?\d|2[0-3]):([0-5]\d)(?:([+-])(0\d|1[0-4]):([0-5]\d))?"


def check(until: str) -> None:
    """Raise UserError for a text that is not a time of day."""
    _parsed(until)


def deadline(until: str, now: datetime | None = None) -> datetime:
    """When that time comes next, by `now`, which has a time zone."""
    hour, minute, zone = _parsed(until)
    now = (now or _now()).astimezone(zone)
    today = now.replace(hour=hour, minute=minute, second=0, microsecond=0, tzinfo=None)
    days = (today + timedelta(days=days) for days in range(3))
    return next(time for time in (day.replace(tzinfo=zone) if zone else day.astimezone() for day in days) if time > now)


def meant(until: str, now: datetime | None = None) -> str:
    """`07:00 tomorrow, in 9 h 12 min`."""
    zone = _parsed(until)[2]
    now = (now or _now()).astimezone(zone)
    time = deadline(until, now)
    day = "today" if time.date() == now.date() else "tomorrow"
    return f"{until} {day}, in {hours_and_minutes((time - now).total_seconds())}"


def with_zone(until: str, now: datetime | None = None) -> str:
    """The same time for a machine whose clock may be another: `07:00` -> `07:00+02:00`."""
    if _parsed(until)[2] is not None:
        return until
    zone = deadline(until, now).strftime("%z")
    return f"{until}{zone[:3]}:{zone[3:5]}"


def _parsed(until: str) -> tuple[int, int, tzinfo | None]:
    if not (found := re.fullmatch(TIME, until)):
        raise UserError(f"--until {until!r} is not a time of day from 00:00 to 23:59, e.g. 07:00 or 07:00+02:00")
    hour, minute, sign, *offset = found.groups()
    if not sign:
        return int(hour), int(minute), None
    ahead = timedelta(hours=int(offset[0]), minutes=int(offset[1]))
    return int(hour), int(minute), timezone(ahead if sign == "+" else -ahead)


def _now() -> datetime:
    return datetime.now().astimezone()
