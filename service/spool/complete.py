"""Whether the log of a trial, from somebody else, makes sense: every line, and of a finished trial all of them together."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from service.spool.lines import COMMITS, Line
from trainables.trial import Trial

HASH = r"[0-9a-f]{64}"
METRIC = r"[\w@][\w@.\- /:]{0,249}"  # what MLflow takes for the name of a metric
LATEST = 10**14  # milliseconds since 1970, in the year 5138: what a spool's times are below


def check(content: bytes, trial: Trial) -> None:
    """Raise ValueError, naming the line, unless `content` is the spool of `trial`, trained to its last update without diverging.

    Numbers may be NaN and infinite, in the form in which Python's json writes them: losses sometimes are."""
    lines = _lines(content, trial)
    _check_whole([line for line in lines if line["kind"] != "attempt"], trial)
    _check_data(lines, trial)


def check_until(content: bytes, trial: Trial, update: int) -> None:
    """Raise ValueError, naming the line, unless `content` is the spool of `trial` up to its checkpoint at `update`."""
    lines = _lines(content, trial)
    kinds = {line["kind"] for line in lines}
    if "finished" in kinds or "pruned" not in kinds:
        raise ValueError("its spool is not that of a trial in training")
    if not max(line.get("update", 0) for line in lines) <= update <= trial.updates:
        raise ValueError(f"its spool continues after its checkpoint at update {update}")
    evaluated = [line["update"] for line in lines if line["kind"] == "evaluated"]
    if evaluated != [each for each in trial.evaluation_updates() if each <= update]:  # those of an update come before its checkpoint
        raise ValueError(f"its spool has {len(evaluated)} evaluations up to update {update}, or others")
    if update == trial.updates and trial.final_episodes and "final" not in kinds:
        raise ValueError("its spool lacks the final evaluation")
    _check_data(lines, trial)


def number(value: object) -> float:
    """A number of JSON as a float; raises ValueError for anything else, and for an integer that is too long."""
    if isinstance(value, bool) or not isinstance(value, int | float) or (isinstance(value, int) and abs(value) >= 2**63):
        raise ValueError(f"{str(value)[:40]!r} is not a number")
    return float(value)


def _lines(content: bytes, trial: Trial) -> list[Line]:
    """The lines of a spool; raises ValueError for one that makes no sense, or not after those before it."""
    if not content.endswith(b"\n"):
        raise ValueError("its spool is empty or torn")
    lines: list[Line] = []
    for number, raw in enumerate(content.removesuffix(b"\n").split(b"\n"), start=1):
        try:
            line = json.loads(raw)
            if line["kind"] not in CHECKS:
                raise ValueError(f"kind {str(line['kind'])[:40]!r}")
            CHECKS[line["kind"]](line, trial)
            _check_order(line, lines, trial)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
            raise ValueError(f"line {number} of its spool makes no sense: {reason}") from error
        lines.append(line)
    reports = Counter((line["kind"], line["update"]) for line in lines if line["kind"] != "attempt")
    for (kind, update), count in reports.most_common(1):
        if count > 1:
            raise ValueError(f"its spool has {count} lines {kind!r} for update {update}")
    return lines


def _check_order(line: Line, before: list[Line], trial: Trial) -> None:
    if not 0 <= number(line["time"]) < LATEST:
        raise ValueError(f"time {line['time']!r}")
    if not before and line["kind"] != "attempt":
        raise ValueError("an attempt has to come first")
    if line["kind"] == "attempt":
        return
    update = line["update"]
    previous = next((each["update"] for each in reversed(before) if "update" in each), 0)
    if isinstance(update, bool) or not isinstance(update, int) or not previous <= update <= trial.updates:
        raise ValueError(f"update {update!r} is not an integer from {previous} to {trial.updates}")


def _check_whole(lines: list[Line], trial: Trial) -> None:
    """Raise ValueError where lines are missing."""
    if not lines:
        raise ValueError("its spool has no reports")
    if lines[-1]["kind"] != "finished" or lines[-1]["update"] != trial.updates:
        raise ValueError(f"its spool does not end with a line 'finished' for update {trial.updates}")
    if not any(line["kind"] == "pruned" for line in lines):
        raise ValueError("its spool has no line 'pruned'")
    evaluated = tuple(line["update"] for line in lines if line["kind"] == "evaluated")
    if evaluated != trial.evaluation_updates():
        raise ValueError(f"its spool has {len(evaluated)} of {trial.evaluations} evaluations, or others")
    if trial.final_episodes and not any(line["kind"] == "final" for line in lines):
        raise ValueError("its spool lacks the final evaluation")


def _check_data(lines: list[Line], trial: Trial) -> None:
    """Raise ValueError where what is committed was trained on several versions of the data, or on another than the trial's."""
    hashes: set[str] = set()
    current = ""
    for line in lines:
        if line["kind"] == "attempt":
            current = line.get("dataset_hash", "")
        elif line["kind"] in COMMITS and current:
            hashes.add(current)
    if len(hashes) > 1 or not all(each.startswith(trial.data) for each in hashes):
        raise ValueError(f"its data has the hash {', '.join(sorted(each[:12] for each in hashes))}, not one, or not that of the trial")


def _check_attempt(line: Line, trial: Trial) -> None:
    for name, value in line.items():
        if not isinstance(value, str):
            number(value)
        elif name == "dataset_hash" and value and not re.fullmatch(HASH, value):
            raise ValueError(f"dataset_hash {value!r} is not a hash")


def _check_metrics(line: Line, trial: Trial) -> None:
    for name, value in _a(dict, line, "metrics").items():
        if not re.fullmatch(METRIC, name) or ".." in name or "//" in name:
            raise ValueError(f"metric {name!r}")
        if number(value) <= 0 and name.startswith("speed/"):
            raise ValueError(f"{name} {value!r}")


def _check_pruned(line: Line, trial: Trial) -> None:
    _check_metrics(line, trial)
    if not all(isinstance(each, str) for each in _a(list, line, "warnings")):
        raise ValueError("warnings that are not text")


def _check_evaluated(line: Line, trial: Trial) -> None:
    _check_metrics(line, trial)
    episodes = trial.final_episodes if line["kind"] == "final" else trial.episodes
    for name, values in ((name, value) for name, value in line.items() if isinstance(value, list)):
        if len(values) not in (0, episodes):
            raise ValueError(f"{name} of {len(values)} episodes instead of {episodes}")
        for value in values:
            number(value)
    if line["metrics"] and not line["returns"]:
        raise ValueError("metrics without returns")


def _check_checkpointed(line: Line, trial: Trial) -> None:
    """There is nothing but its update."""


def _check_finished(line: Line, trial: Trial) -> None:
    number(line["seconds"])
    _a(str, line, "execution")


def _a(kind: type, line: Mapping[str, Any], name: str) -> Any:
    if not isinstance(line[name], kind):
        raise TypeError(f"{name} {str(line[name])[:40]!r}")
    return line[name]


# By kind of line; none for `diverged`, since a trial that has diverged is not done.
CHECKS: dict[str, Callable[[Line, Trial], None]] = {
    "attempt": _check_attempt,
    "pruned": _check_pruned,
    "trained": _check_metrics,
    "evaluated": _check_evaluated,
    "final": _check_evaluated,
    "checkpointed": _check_checkpointed,
    "finished": _check_finished,
}
