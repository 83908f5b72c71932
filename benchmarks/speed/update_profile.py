"""Where the time of a TD3+BC update goes, and what it costs made anew: `python -m benchmarks.speed.update_profile [--sparsity 0.95]`.

A sparse update is a list of calls (trainables/tensors/tape.py), so each call is timed by itself, which costs a microsecond for each; what a
tape saves is seen by making the same updates without it, in turn.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"


from benchmarks.speed.updates import Ours
from trainables.datasets.table import load_table
from trainables.tensors import calls
from trainables.training.process import set_up_torch

PARTS = {
    "winnow_replayed_forward": "networks forward (C)",
    "winnow_replayed_backward": "networks backward (C)",
    "winnow_elementwise": "losses and their gradients (C)",
    "winnow_sum": "losses and their gradients (C)",
    "winnow_replayed_gather": "minibatch (C)",
    "winnow_replayed_track": "target networks (C)",
    "winnow_adam": "Adam (C)",
    "winnow_move": "draws",
}
ROUNDS = 10


def part_of(call: Any) -> str:
    named = {calls.address(name): part for name, part in PARTS.items()}
    return named[call.function] if isinstance(call, calls.Call) else "losses and their gradients (torch)"


def timed(call: Callable[[], object], part: str, spent: Counter[str]) -> Callable[[], None]:
    def run() -> None:
        begun = time.perf_counter()
        call()
        spent[part] += time.perf_counter() - begun

    return run


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
    spent: Counter[str] = Counter()
    for repeat, _ in profiled.make.recordings.values():
        tape = repeat.__self__  # type: ignore[union-attr]
        steps = [timed(prepare, "draws", spent) for prepare in tape.before]
        for call in tape.made:
            run = calls.together([call]) if isinstance(call, calls.Call) else call
            steps.append(timed(run, part_of(call), spent))
        tape.steps = steps
    times: dict[str, list[float]] = {"repeated": [], "made anew": [], "profiled": []}
    for _ in range(ROUNDS):
        for name, ours in zip(times, (repeated, anew, profiled), strict=True):
            times[name].append(1e6 * ours.seconds(given.updates) / given.updates)
    microseconds = {part: 1e6 * seconds / ROUNDS / given.updates for part, seconds in spent.most_common()}
    microseconds["Python between the calls"] = statistics.fmean(times["profiled"]) - sum(microseconds.values())
    median = {name: statistics.median(found) for name, found in times.items()}
    print(
        f"td3_bc, {given.pruner} at {100 * given.sparsity:g} %: {median['repeated']:.0f} us an update, {median['made anew']:.0f} made anew"
    )
    total = sum(microseconds.values())
    for part, found in microseconds.items():
        print(f"  {100 * found / total:5.1f} %  {found:6.0f} us  {part}")
    if given.to:
        shares = {part: found / total for part, found in microseconds.items()}
        given.to.write_text(json.dumps({"microseconds": median, "shares": shares}, indent=1) + "\n")


if __name__ == "__main__":
    main()
