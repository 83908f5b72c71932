"""Whether a finished trial's log from somebody else is whole: what an archive may hold, line by line and all together."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from service.spool.complete import check
from trainables.trial import Trial

HASH, OTHER = "ab" * 32, "cd" * 32
TRIAL = Trial(dataset="test/hopper/random-v0", algorithm="bc", updates=40, evaluations=2, episodes=2, final_episodes=3, data=HASH[:16])
Lines = list[dict[str, Any]]


def evaluated(update: int, kind: str = "evaluated", episodes: int = 2) -> dict[str, Any]:
    return {"kind": kind, "update": update, "metrics": {"eval/return": 1.0}, "returns": [1.0] * episodes}


def whole() -> Lines:
    """A trial that was killed after its first checkpoint and went on."""
    lines: Lines = [
        {"kind": "attempt", "dataset_hash": HASH, "host": "here", "pid": 1},
        {"kind": "pruned", "update": 0, "metrics": {"mask/density/actor": 1.0}, "warnings": []},
        {"kind": "trained", "update": 10, "metrics": {"train/actor_loss": float("nan"), "speed/stack": 1.0}},
        evaluated(20),
        {"kind": "checkpointed", "update": 20},
        {"kind": "attempt", "dataset_hash": HASH, "host": "there", "pid": 2},
        evaluated(40),
        evaluated(40, "final", 3),
        {"kind": "checkpointed", "update": 40},
        {"kind": "finished", "update": 40, "seconds": 1.5, "execution": "dense"},
    ]
    return [{"time": 1_700_000_000_000 + number, **line} for number, line in enumerate(lines)]


def content(lines: Lines) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def test_a_whole_log_is_whole_also_of_a_trial_that_went_on() -> None:
    check(content(whole()), TRIAL)
    older = whole()
    for line in older:
        line.pop("dataset_hash", None)
    check(content(older), TRIAL)  # of code that kept no hash
    begun: Lines = [{"kind": "attempt", "dataset_hash": OTHER, "time": 1}, {"kind": "trained", "update": 0, "metrics": {}, "time": 2}]
    check(content([*begun, *whole()]), TRIAL)  # an attempt that has committed nothing does not count


def at(number: int, **values: Any) -> Callable[[Lines], Lines]:
    """Line `number` with other values."""
    return lambda lines: [line | values if place == number else line for place, line in enumerate(lines)]


def without(kind: str) -> Callable[[Lines], Lines]:
    return lambda lines: [line for line in lines if line["kind"] != kind]


def test_data_that_changed_on_the_way_is_said_also_of_a_trial_that_names_no_version() -> None:
    check(content(whole()), replace(TRIAL, data=""))
    with pytest.raises(ValueError, match="its data has the hash abababababab, cdcdcdcdcdcd, not one"):
        check(content(at(5, dataset_hash=OTHER)(whole())), replace(TRIAL, data=""))


CHANGES: dict[str, tuple[Callable[[Lines], Lines], str]] = {
    "trained on two versions of its data": (at(5, dataset_hash=OTHER), "its data has the hash abababababab, cdcdcdcdcdcd, not one"),
    "trained on another version than the trial's": (
        lambda lines: [line | ({"dataset_hash": OTHER} if line["kind"] == "attempt" else {}) for line in lines],
        "its data has the hash cdcdcdcdcdcd, not one, or not that of the trial",
    ),
    "an evaluation at another update": (at(3, update=10), "its spool has 2 of 2 evaluations, or others"),
    "no final episodes": (without("final"), "its spool lacks the final evaluation"),
    "as many final episodes as an evaluation has": (at(7, returns=[1.0, 1.0]), "line 8 .* returns of 2 episodes instead of 3"),
    "a line twice": (lambda lines: [*lines[:4], lines[3], *lines[4:]], "its spool has 2 lines 'evaluated' for update 20"),
    "an update before the one above": (at(4, update=10), "line 5 .* update 10 is not an integer from 20 to 40"),
    "an update after the last": (at(4, update=41), "line 5 .* update 41 is not an integer"),
    "an update that is true": (at(1, update=True), "line 2 .* update True is not an integer"),
    "a number that is true": (at(2, metrics={"train/actor_loss": True}), "line 3 .* 'True' is not a number"),
    "metrics without returns": (at(3, returns=[]), "line 4 .* metrics without returns"),
    "warnings that are no text": (at(1, warnings=[1]), "line 2 .* warnings that are not text"),
    "a time before 1970": (at(2, time=-1), "line 3 .* time -1"),
    "no time at all": (lambda lines: [{name: v for name, v in line.items() if name != "time"} for line in lines], "line 1 .* lacks 'time'"),
    "no seconds": (at(9, seconds="x"), "line 10 .* 'x' is not a number"),
    "an execution that is no text": (at(9, execution=1), "line 10 .* execution '1'"),
    "a metric with two slashes in a row": (at(2, metrics={"a//b": 1.0}), "line 3 .* metric 'a//b'"),
    "reports after its end": (lambda lines: [*lines[:-2], lines[-1], lines[-2]], "does not end with a line 'finished' for update 40"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_what_is_wrong_with_a_log_is_said(case: str) -> None:
    change, said = CHANGES[case]
    with pytest.raises(ValueError, match=said):
        check(content(change(whole())), TRIAL)


def test_a_torn_log_is_no_whole_one() -> None:
    for torn in (b"", content(whole())[:-1]):
        with pytest.raises(ValueError, match="its spool is empty or torn"):
            check(torn, TRIAL)
