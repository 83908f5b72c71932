"""What a mask's structure costs and saves on a CPU: updates and actions of structured masks beside unstructured ones of the same density.

    python -m benchmarks.speed.structures        # writes structures.json; about three minutes

CPU time of one trial with a SNIP mask, as run_stack trains it: updates per second, and the microseconds of an action of the fastest
format of its policy for one observation. At each density, all structures take turns with the unstructured mask in execution `sparse`, with
which a round's ratios are made. Whole units are also trained in `compact`, where what is left of them is dense.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np

from benchmarks.speed.inference import microseconds
from service.storage import paths
from trainables import plugins
from trainables.agent import Agent
from trainables.datasets.minibatches import minibatches_of
from trainables.datasets.scaling import Scaling
from trainables.datasets.table import Table, load_table
from trainables.policy.policy import Policy, load_policy
from trainables.pruning.prune import prune
from trainables.tensors.mask import on_path
from trainables.training import files_of_trial
from trainables.training.process import set_up_torch
from trainables.training.updates import Updates
from trainables.trial import Stack, Trial

FOUND = Path(__file__).with_suffix(".json")
DATASET = "winnow/halfcheetah/expert-v0"
STRUCTURES = {0.5: "2:4", 0.75: "1:4", 0.875: "1:8", 0.9375: "1:16"}  # by sparsity, beside those that fit any
BESIDE = (("none", "sparse"), ("none", "dense"), ("fan_in", "sparse"), ("units", "sparse"), ("units", "compact"))
FORMATS = ("dense", "compact", "csr")
WORKS = {"td3_bc": 25, "bc": 120}  # algorithm: updates of a measurement
ROUNDS = 5
WARM_UP = 12  # updates: a tape is recorded and compared in them


class Trained:
    """A trial in training, its policy, and what its mask keeps."""

    def __init__(self, table: Table, algorithm: str, sparsity: float, structure: str, execution: str) -> None:
        trial = Trial(dataset=DATASET, algorithm=algorithm, pruner="snip", sparsity=sparsity, structure=structure)
        stack, module = Stack((trial,)), plugins.load("algorithms", algorithm)
        agent = Agent(module, stack, table.observation_size, table.action_size)
        data = minibatches_of(module, stack, table)
        masks = prune(agent, stack, data.draw)
        agent.build(execution, masks=masks)
        self.kept = sum(int(layer.sum()) for mask in masks.values() for layer in mask)
        self.live = sum(int((layer.sum(-1) > 0).sum()) for mask in masks.values() for layer in on_path(mask)[:-1])
        with tempfile.TemporaryDirectory() as folder:
            files_of_trial.write_policies(Path(folder), stack, agent, Scaling(table, module.NORMALIZE), {})
            policy = load_policy(paths.trial(Path(folder), trial.key))
        self.policies: dict[str, Policy] = {name: policy.to(name) for name in FORMATS}
        self.updates, self.done = Updates(agent, data), 0
        self.rate(WARM_UP)

    def rate(self, updates: int) -> float:
        """Updates per second of CPU."""
        begun = time.process_time()
        self.updates.run(self.done, self.done + updates)
        self.done += updates
        return updates / (time.process_time() - begun)

    def action(self, observation: np.ndarray) -> float:
        """Microseconds of an action in the fastest format."""
        return min(microseconds(policy, observation) for policy in self.policies.values())


def compared(table: Table, algorithm: str, sparsity: float, updates: int) -> dict[str, Any]:
    """Per structure and execution: what it keeps, and in each round its rate and latency, and both against the unstructured mask's."""
    pairs = (*BESIDE, (STRUCTURES[sparsity], "sparse"))
    trained = {" ".join(pair): Trained(table, algorithm, sparsity, *pair) for pair in pairs}
    observation = table.rows[:1, : table.observation_size].copy()
    found: dict[str, Any] = {name: {"kept": one.kept, "live_units": one.live} for name, one in trained.items()}
    for _ in range(ROUNDS):
        rates = {name: one.rate(updates) for name, one in trained.items()}
        actions = {name: one.action(observation) for name, one in trained.items()}
        for name, row in found.items():
            row.setdefault("updates_per_second", []).append(round(rates[name], 1))
            row.setdefault("microseconds", []).append(round(actions[name], 2))
            row.setdefault("updates_ratio", []).append(round(rates[name] / rates["none sparse"], 3))
            row.setdefault("action_ratio", []).append(round(actions[name] / actions["none sparse"], 3))
    return found


def processor() -> str:
    """The name of the processor, and what else it had to do."""
    names = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return f"{names[0]}, {len(os.sched_getaffinity(0))} cores; {os.getloadavg()[0]:.1f} processes wanted to run beside this"


def main() -> None:
    set_up_torch()
    table, found = load_table(DATASET), {}
    for algorithm, updates in WORKS.items():
        found[algorithm] = {sparsity: compared(table, algorithm, sparsity, updates) for sparsity in STRUCTURES}
        print(algorithm, json.dumps(found[algorithm]), flush=True)
    FOUND.write_text(json.dumps({"machine": processor(), "works": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
