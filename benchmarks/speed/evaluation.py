"""Ten HalfCheetah evaluation episodes against their physics alone, interleaved in one run on one core.

Physics alone is `mujoco.mj_step` with the actions and initial states of the same episodes, `frame_skip` at a time, and nothing else:
no observations, no rewards, no policy. Times are the process's CPU seconds, so that other work on the machine counts little;
prints each time's median and its ratio to the physics of the same round with its spread, and writes them as JSON.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import mujoco
import numpy as np
import numpy.typing as npt

from trainables import environments, plugins
from trainables.agent import Agent
from trainables.datasets.minibatches import Minibatches
from trainables.datasets.table import Table, load_table
from trainables.evaluation.evaluation import Evaluation
from trainables.pruning.prune import prune
from trainables.training.process import set_up_torch
from trainables.trial import Stack, Trial

Array = npt.NDArray[Any]
EPISODES = 10


class Ours:
    """The evaluation of freshly pruned trials, as run_stack does it."""

    def __init__(self, table: Table, members: int, pruner: str, sparsity: float) -> None:
        seeds = range(members)
        stack = Stack(tuple(Trial(dataset=table.dataset, pruner=pruner, sparsity=sparsity, seed=seed, episodes=EPISODES) for seed in seeds))
        algorithm = plugins.load("algorithms", stack.lead.algorithm)
        agent = Agent(algorithm, stack, table.observation_size, table.action_size)
        masks = prune(agent, stack, Minibatches(table, algorithm.NORMALIZE).draw)
        agent.build("auto", masks=masks)
        self.evaluation = Evaluation(agent, table, stack)
        self.execution, self.count = agent.execution, members * EPISODES
        self.actions: list[Array] = []

    def __call__(self) -> None:
        self.evaluation()

    def record(self) -> Array:
        """The actions [time steps, n, A] of the episodes that every call plays, as they reach the environments."""

        def act(observations: Array) -> Array:
            self.actions.append(self.evaluation.act(observations))
            return self.actions[-1]

        self.evaluation.evaluator.run(act)
        evaluator = self.evaluation.evaluator
        return (
            np.array(self.actions, np.float32)
            .reshape(-1, self.count, evaluator.action_size)
            .clip(evaluator.action_low, evaluator.action_high)
        )


class Physics:
    """The episodes of `ours` with recorded actions: MuJoCo alone, or gymnasium's own steps."""

    def __init__(self, ours: Ours, actions: Array) -> None:
        evaluator = ours.evaluation.evaluator
        self.seeds = [seed for row in evaluator._seeds for seed in row]
        self.environments = [environments.make(evaluator.environment).unwrapped for _ in self.seeds]
        self.actions = actions

    def reset(self) -> None:
        for environment, seed in zip(self.environments, self.seeds, strict=True):
            environment.reset(seed=seed)

    def alone(self) -> None:
        first = self.environments[0]
        states = [(state, state.ctrl) for state in (copy.copy(environment.data) for environment in self.environments)]
        for actions in self.actions:
            for (state, control), action in zip(states, actions, strict=True):
                control[:] = action
                mujoco.mj_step(first.model, state, first.frame_skip)

    def gymnasium(self) -> None:
        for actions in self.actions:
            for environment, action in zip(self.environments, actions, strict=True):
                environment.step(action)


class Envpool:
    """envpool in a worker process of its own environment, idle while ours is timed."""

    def __init__(self, python: str, environment: str, actions: Array) -> None:
        self.file, self.environment = tempfile.NamedTemporaryFile(suffix=".npy"), environment  # noqa: SIM115
        np.save(self.file, actions)
        self.file.flush()
        program = str(Path(__file__).parent / "peers" / "peer_envpool.py")
        variables = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self.worker = subprocess.Popen([python, program, self.file.name], text=True, env=variables, **pipes)

    def seconds(self, threads: int) -> dict[str, float]:
        assert self.worker.stdin is not None
        assert self.worker.stdout is not None
        print(json.dumps({"environment": self.environment, "threads": threads}), file=self.worker.stdin, flush=True)
        return json.loads(self.worker.stdout.readline())


def seconds(call: Callable[[], None]) -> dict[str, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="winnow/halfcheetah/expert-v0")
    parser.add_argument("--envpool", help="python of an environment with envpool 1.2; without it envpool is left out")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--to", type=Path, default=Path("benchmarks/speed/evaluation.json"))
    given = parser.parse_args()
    set_up_torch()
    table = load_table(given.dataset)
    ours = {
        "10 episodes, SNIP 95 %": Ours(table, 1, "snip", 0.95),
        "10 episodes, dense 2x256": Ours(table, 1, "dense", 0.0),
        "4 members x 10 episodes, SNIP 95 %": Ours(table, 4, "snip", 0.95),
    }
    first = next(iter(ours.values()))
    physics = {name: Physics(own, own.record()) for name, own in ours.items()}
    peer = Envpool(given.envpool, table.environment, physics["10 episodes, SNIP 95 %"].actions) if given.envpool else None
    found: dict[str, dict[str, list[float]]] = {}

    def note(name: str, value: dict[str, float], base: dict[str, float]) -> None:
        row = found.setdefault(name, {"cpu": [], "wall": [], "ratio": []})
        row["cpu"].append(value["cpu"])
        row["wall"].append(value["wall"])
        row["ratio"].append(value["cpu"] / base["cpu"])

    for _ in range(given.rounds):
        for name, own in ours.items():
            physics[name].reset()
            base = seconds(physics[name].alone)
            note(f"{name}: physics alone", base, base)
            note(name, seconds(own), base)
            if own is first:
                physics[name].reset()
                note("gymnasium's unwrapped env.step, no policy", seconds(physics[name].gymnasium), base)
                for threads in (1, 2) if peer else ():
                    note(f"envpool, no policy, {threads} threads", peer.seconds(threads), base)  # type: ignore[union-attr]
    for name, row in found.items():
        cpu, wall, ratio = (statistics.median(row[key]) for key in ("cpu", "wall", "ratio"))
        print(
            f"{name:>52}  {cpu:6.3f} s CPU  {wall:6.3f} s wall  {ratio:5.2f}x  ({min(row['ratio']):.2f} - {max(row['ratio']):.2f})",
            flush=True,
        )
    executions = {name: own.execution for name, own in ours.items()}
    given.to.write_text(json.dumps({"executions": executions, "seconds": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
