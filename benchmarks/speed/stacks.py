"""What a member of a stack costs on a CPU, against the same trial alone: CPU time per update and member, by the size of the stack.

    python -m benchmarks.speed.stacks        # writes stacks.json; minutes

Sizes take turns within a round, so that what else the machine does weighs on all of them alike. CPU time, since a stack is one process.
"""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path
from statistics import median
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

from trainables.reports import Trained
from trainables.run import run_stack
from trainables.trial import Stack, Trial

FOUND = Path(__file__).with_suffix(".json")
DATASET = "winnow/halfcheetah/expert-v0"
SIZES = (1, 2, 4, 8)
ROUNDS = 3
WORKS = {  # algorithm, sparsity: updates to time
    ("bc", 0.0): 300, ("bc", 0.95): 2000, ("td3_bc", 0.0): 100, ("td3_bc", 0.8): 200, ("td3_bc", 0.95): 600, ("td3_bc", 0.98): 600,
    ("iql", 0.0): 100, ("iql", 0.95): 600, ("edac", 0.95): 40, ("cql", 0.95): 40,
}  # fmt: skip


def cost(algorithm: str, sparsity: float, size: int, updates: int) -> float:
    """Microseconds of CPU per update and member, without the start and without the evaluation, which is made before the last report."""
    pruner = "random_erk" if sparsity else "dense"
    plain: dict[str, Any] = {"dataset": DATASET, "algorithm": algorithm, "pruner": pruner, "sparsity": sparsity}
    trials = tuple(Trial(**plain, seed=seed, updates=updates, evaluations=1, episodes=1) for seed in range(size))
    told = [(report.update, time.process_time()) for report in run_stack(Stack(trials)) if isinstance(report, Trained)]
    (first, begun), (last, ended) = told[len(told) // 4], told[-2]
    return (ended - begun) / (last - first) / size * 1e6


def main() -> None:
    found: dict[str, Any] = {}
    for (algorithm, sparsity), updates in WORKS.items():
        rounds = [{size: cost(algorithm, sparsity, size, updates) for size in SIZES} for _ in range(ROUNDS)]
        found[f"{algorithm} {100 * sparsity:g} %"] = {
            "microseconds": {size: round(median(each[size] for each in rounds)) for size in SIZES},
            "of_alone": {size: [round(each[size] / each[1], 3) for each in rounds] for size in SIZES[1:]},
        }
        print(f"{algorithm} {100 * sparsity:g} %", found[f"{algorithm} {100 * sparsity:g} %"], flush=True)
    machine = f"{len(os.sched_getaffinity(0))} cores, {platform.machine()}; {os.getloadavg()[0]:.1f} processes wanted to run beside this"
    FOUND.write_text(json.dumps({"machine": machine, "works": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
