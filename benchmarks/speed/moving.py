"""What it costs that a mask moves: updates of RigL, SET and Sparse-Reg beside a mask of the same layers' densities that stays.

    python -m benchmarks.speed.moving        # writes moving.json; about ten minutes

CPU time of one trial of TD3+BC, and then of BC, at 95 %, as run_stack trains it, changes of the mask and their reports included: rounds
of 10,000 updates, in turn. With delta = 10,000 a round has one change, with 1,000 ten.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"


from trainables.run import StackRun
from trainables.training.process import set_up_torch
from trainables.training.stack_files import StackFiles
from trainables.trial import Stack, Trial

FOUND = Path(__file__).with_suffix(".json")
DATASET = "winnow/halfcheetah/expert-v0"
STILL = "static (ERK)"
CASES: dict[str, tuple[str, Mapping[str, Any]]] = {
    STILL: ("random_erk", {}),
    "RigL, delta 10,000": ("rigl", {"delta": 10_000}),
    "RigL, delta 1,000": ("rigl", {"delta": 1_000}),
    "SET, delta 1,000": ("set", {"delta": 1_000}),
    "Sparse-Reg": ("sparse_reg", {}),
}
ALGORITHMS = ("td3_bc", "bc")  # that of the papers' comparisons, and the one whose updates are the cheapest
ROUNDS, UPDATES = 5, 10_000


class Moving:
    """A trial in training."""

    def __init__(self, algorithm: str, pruner: str, settings: Mapping[str, Any]) -> None:
        trial = Trial(dataset=DATASET, algorithm=algorithm, pruner=pruner, sparsity=0.95, updates=1_000_000, pruning=settings)
        stack = Stack((trial,))
        self.run = StackRun(stack, "cpu", "sparse", StackFiles(stack, None, lambda: None), None)
        list(self.run.start())
        self.run.train_until(100)  # a tape is recorded and compared in these

    def rate(self) -> float:
        """Updates per second of CPU in a round."""
        begun = time.process_time()
        self.run.train_until(self.run.update + UPDATES)
        list(self.run.reports.ready())
        return UPDATES / (time.process_time() - begun)


def measured(algorithm: str) -> dict[str, dict[str, list[float]]]:
    """Updates per second by mask, round after round, and their ratios to the static mask's in the same round."""
    trials = {name: Moving(algorithm, *case) for name, case in CASES.items()}
    rates: dict[str, list[float]] = {name: [] for name in CASES}
    for number in range(ROUNDS):
        for name, trial in trials.items():
            rates[name].append(trial.rate())
            print(f"{algorithm}, round {number + 1}, {name}: {rates[name][-1]:.0f} updates/s", flush=True)
    ratios = {name: [own / other for own, other in zip(found, rates[STILL], strict=True)] for name, found in rates.items()}
    return {"updates_per_second": rates, "against_static": ratios}


def main() -> None:
    set_up_torch()
    FOUND.write_text(json.dumps({algorithm: measured(algorithm) for algorithm in ALGORITHMS}, indent=1) + "\n")


if __name__ == "__main__":
    main()
