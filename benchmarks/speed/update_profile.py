"""Where the time of a TD3+BC update goes, and what it costs made anew: `python -m benchmarks.speed.update_profile [--sparsity 0.95]`.

A sparse update is a list of calls (trainables/tensors/tape.py), so each is timed by itself, less the time of a call of nothing.
What is left of an update that is repeated as in training is Python's, once for as many updates as their draws are there. What a tape saves
is seen by making the same updates without it, in turn.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"


from benchmarks.speed.updates import Ours
from trainables.datasets.table import load_table
from trainables.tensors import calls
from trainables.tensors.tape import Tape
from trainables.training.process import set_up_torch

PARTS = {
    "winnow_replayed_forward": "networks forward (C)",
    "winnow_replayed_backward": "networks backward (C)",
    "winnow_elementwise": "losses and their gradients (C)",
    "winnow_sum": "losses and their gradients (C)",
    "winnow_replayed_gather": "minibatch (C)",
    "winnow_replayed_track": "target networks (C)",
    "winnow_adam": "Adam (C)",
    "winnow_row": "draws",
}
ROUNDS = 10


def part_of(call: Any) -> str:
    named = {calls.address(name): part for name, part in PARTS.items()}
    return named[call.function] if isinstance(call, calls.Call) else "losses and their gradients (torch)"


def timed(call: Callable[[], object], found: list[int]) -> Callable[[], None]:
    def run() -> None:
        begun = time.thread_time_ns()
        call()
        found.append(time.thread_time_ns() - begun)

    return run


def microseconds_of(ours: Ours, updates: int) -> float:
    """Processor time of an update."""
    begun = time.thread_time_ns()
    ours.seconds(updates)
    return (time.thread_time_ns() - begun) / 1e3 / updates


class Draws:
    """The time in which blocks of draws are made."""

    def __init__(self, ours: Ours) -> None:
        self.spent, self.plain = 0, ours.agent.streams._block
        ours.agent.streams._block = self  # type: ignore[assignment,method-assign]

    def __call__(self, *asked: Any) -> Any:
        begun = time.thread_time_ns()
        made = self.plain(*asked)
        self.spent += time.thread_time_ns() - begun
        return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="winnow/halfcheetah/expert-v0")
    parser.add_argument("--pruner", default="snip")
    parser.add_argument("--sparsity", type=float, default=0.95)
    parser.add_argument("--updates", type=int, default=500, help="of a round")
    parser.add_argument("--to", type=Path, help="JSON file")
    given = parser.parse_args()
    set_up_torch()
    table, case = load_table(given.dataset), ("td3_bc", given.pruner, given.sparsity, "sparse")
    repeated, anew, profiled = (Ours(table, case) for _ in range(3))
    for ours in (repeated, anew, profiled):
        ours.seconds(50)
    anew.make.record = None
    parts: list[tuple[str, int, list[int]]] = []  # of each call: its part, how many patterns there are, its times
    for tape in (made := [repeat for repeat, _ in profiled.make.recordings.values() if isinstance(repeat, Tape)]):
        tape.steps = []
        for call in tape.made:
            parts.append((part_of(call), len(made), []))
            tape.steps.append(timed(calls.together([call]) if isinstance(call, calls.Call) else call, parts[-1][2]))
        tape.before = [lambda: None]  # so that these steps are made
    nothing: list[int] = []
    no_call = calls.together([])
    draws, times = Draws(repeated), defaultdict[str, list[float]](list)
    for _ in range(ROUNDS):
        for name, ours in (("repeated", repeated), ("made anew", anew), ("profiled", profiled)):
            times[name].append(microseconds_of(ours, given.updates))
        for _ in range(given.updates):
            timed(no_call, nothing)()
    microseconds: Counter[str] = Counter()
    for part, patterns, found in parts:
        microseconds[part] += max(0, statistics.median(found) - statistics.median(nothing)) / 1e3 / patterns
    microseconds["draws"] += draws.spent / 1e3 / given.updates / ROUNDS
    microseconds["Python between the calls"] = max(0, statistics.median(times["repeated"]) - microseconds.total())
    median = {name: statistics.median(found) for name, found in times.items()}
    print(
        f"td3_bc, {given.pruner} at {100 * given.sparsity:g} %: {median['repeated']:.0f} us an update, {median['made anew']:.0f} made anew"
    )
    total = sum(microseconds.values())
    for part, spent in microseconds.most_common():
        print(f"  {100 * spent / total:5.1f} %  {spent:6.0f} us  {part}")
    if given.to:
        shares = {part: spent / total for part, spent in microseconds.most_common()}
        given.to.write_text(json.dumps({"microseconds": median, "shares": shares}, indent=1) + "\n")


if __name__ == "__main__":
    main()
