"""Where kept weights become cheaper than dense products on a CPU: the time of an update, sparse against dense, by density.

    python -m benchmarks.speed.break_even        # writes break_even.json; about three minutes

CPU time per update of one trial with a random ERK mask, each execution as run_stack trains it (sparse from a tape). Both take turns at a
density. `BREAK_EVEN` in trainables/trial/trial.py is read off it.
"""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"


from trainables import plugins
from trainables.agent import Agent
from trainables.datasets.minibatches import minibatches_of
from trainables.datasets.table import load_table
from trainables.pruning.prune import prune
from trainables.training.process import set_up_torch
from trainables.training.updates import Updates
from trainables.trial import Stack, Trial

FOUND = Path(__file__).with_suffix(".json")
DATASET = "winnow/halfcheetah/expert-v0"
DENSITIES = (0.2, 0.4, 0.5, 0.6, 0.7, 0.8)
WORKS = {"td3_bc": 30, "rebrac": 8}  # algorithm: updates of a measurement
ROUNDS = 3
WARM_UP = 12  # updates: a tape is recorded and compared in them


class Trained:
    """A trial in training, in one execution."""

    def __init__(self, algorithm: str, density: float, execution: str) -> None:
        table = load_table(DATASET)
        stack = Stack((Trial(dataset=DATASET, algorithm=algorithm, pruner="random_erk", sparsity=1 - density),))
        module = plugins.load("algorithms", algorithm)
        agent = Agent(module, stack, table.observation_size, table.action_size)
        data = minibatches_of(module, stack, table)
        masks = prune(agent, stack, data.draw)
        agent.build(execution, masks=masks)
        self.updates, self.done = Updates(agent, data), 0
        self.microseconds(WARM_UP)

    def microseconds(self, updates: int) -> float:
        """Of CPU per update."""
        begun = time.process_time()
        self.updates.run(self.done, self.done + updates)
        self.done += updates
        return (time.process_time() - begun) / updates * 1e6


def ratios(algorithm: str, density: float, updates: int) -> dict[str, list[float]]:
    """Microseconds per update of both executions, and sparse against dense of the same round."""
    found: dict[str, list[float]] = {"dense": [], "sparse": [], "ratio": []}
    trained = {execution: Trained(algorithm, density, execution) for execution in ("dense", "sparse")}
    for _ in range(ROUNDS):
        for execution, one in trained.items():
            found[execution].append(round(one.microseconds(updates)))
        found["ratio"].append(round(found["sparse"][-1] / found["dense"][-1], 3))
    return found


def main() -> None:
    set_up_torch()
    found: dict[str, Any] = {}
    for algorithm, updates in WORKS.items():
        for density in DENSITIES:
            found.setdefault(algorithm, {})[density] = ratios(algorithm, density, updates)
            print(algorithm, density, found[algorithm][density], flush=True)
    machine = f"{len(os.sched_getaffinity(0))} cores, {platform.machine()}; {os.getloadavg()[0]:.1f} processes wanted to run beside this"
    FOUND.write_text(json.dumps({"machine": machine, "works": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
