"""What an action costs without torch: latency and file size of the policy's formats by sparsity and batch, interleaved in one run.

A 2x256 HalfCheetah actor of TD3+BC as it is pruned before training; the peers are torch's own dense layers and onnxruntime on the
compact policy, one thread each. A latency is the median of many calls in a row, the spread is that of these medians over the rounds
(lowest - highest). Prints the table of benchmarks/README.md and writes all numbers as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch

from service.storage import paths
from trainables import plugins
from trainables.agent import Agent
from trainables.datasets.minibatches import Minibatches
from trainables.datasets.scaling import Scaling
from trainables.datasets.table import Table, load_table
from trainables.native import build
from trainables.policy.onnx_export import to_onnx
from trainables.policy.policy import FORMATS, Policy, load_policy, save_policy
from trainables.pruning.prune import prune
from trainables.training import files_of_trial
from trainables.trial import Stack, Trial

Act = Callable[[npt.NDArray[np.float32]], Any]
MASKS = [("dense", 0.0), *((pruner, sparsity) for pruner in ("snip", "random_erk") for sparsity in (0.8, 0.9, 0.95, 0.98, 0.99))]
BATCHES = (1, 16, 256)
SECONDS = 0.03  # of calls in a row


def pruned(table: Table, pruner: str, sparsity: float) -> Policy:
    """The exported policy of a trial after no update."""
    stack = Stack((Trial(dataset=table.dataset, pruner=pruner, sparsity=sparsity),))
    algorithm = plugins.load("algorithms", stack.lead.algorithm)
    agent = Agent(algorithm, stack, table.observation_size, table.action_size)
    masks = prune(agent, stack, Minibatches(table, algorithm.NORMALIZE).draw)
    agent.build("dense", masks=masks)
    with tempfile.TemporaryDirectory() as folder:
        files_of_trial.write_policies(Path(folder), stack, agent, Scaling(table, algorithm.NORMALIZE), {})
        return load_policy(paths.trial(Path(folder), stack.lead.key))


def in_torch(policy: Policy) -> Act:
    """The same with torch's dense layers."""
    modules: list[torch.nn.Module] = []
    for weight, bias in policy.layers:
        layer = torch.nn.Linear(weight.shape[1], weight.shape[0])
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(weight))
            layer.bias.copy_(torch.from_numpy(bias))
        modules += layer, torch.nn.ReLU()
    network = torch.nn.Sequential(*modules[:-1], torch.nn.Tanh())
    scaling = {name: torch.from_numpy(value) for name, value in policy.scaling.items()}

    def act(observations: npt.NDArray[np.float32]) -> Any:
        with torch.inference_mode():
            seen = torch.addcmul(scaling["observation_shift"], torch.from_numpy(observations), scaling["observation_scale"])
            return ((network(seen) - scaling["action_shift"]) / scaling["action_scale"]).numpy()

    return act


def in_onnx(policy: Policy, path: Path) -> Act:
    to_onnx(policy.to("compact"), path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda observations: session.run(None, {"observation": observations})[0]


def microseconds(act: Act, observations: npt.NDArray[np.float32]) -> float:
    """The median call of those that fit into SECONDS."""
    found = []
    until = time.perf_counter() + SECONDS
    while not found or time.perf_counter() < until:
        begun = time.perf_counter_ns()
        act(observations)
        found.append((time.perf_counter_ns() - begun) / 1000)
    return statistics.median(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="winnow/halfcheetah/expert-v0")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--to", type=Path, default=Path("benchmarks/speed/inference.json"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    table = load_table(given.dataset)
    assert build.available(), "without a C compiler csr is computed as compact"
    rows = []
    print("| pruner | sparsity | units | batch | torch dense | dense | compact | csr | onnxruntime | kB dense | compact | csr | onnx |")
    print("|" + "---|" * 13)
    for pruner, sparsity in MASKS:
        policy = pruned(table, pruner, sparsity)
        with tempfile.TemporaryDirectory() as folder:
            ways: dict[str, Act] = {"torch": in_torch(policy)} | {format: policy.to(format) for format in FORMATS}
            ways["onnxruntime"] = in_onnx(policy, Path(folder) / "onnx")
            for format in FORMATS:
                save_policy(policy, Path(folder) / format, format)
            kilobytes = {name: (Path(folder) / name).stat().st_size / 1000 for name in (*FORMATS, "onnx")}
        for batch in BATCHES:
            observations = np.array(table.rows[:batch, : table.observation_size])
            for act in ways.values():
                np.testing.assert_allclose(act(observations), policy(observations), atol=2e-6)
            times: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(given.rounds):
                for name, act in ways.items():
                    times[name].append(microseconds(act, observations))
            medians = {name: statistics.median(values) for name, values in times.items()}
            units = "-".join(str(size) for size in policy.to("compact").sizes)
            cells = [f"{medians[name]:.0f} ({min(times[name]):.0f} - {max(times[name]):.0f})" for name in ways]
            print(
                "|",
                " | ".join([pruner, f"{sparsity:.0%}", units, str(batch), *cells, *(f"{v:.0f}" for v in kilobytes.values())]),
                "|",
                flush=True,
            )
            rows.append(
                {"pruner": pruner, "sparsity": sparsity, "units": units, "batch": batch, "microseconds": times, "kilobytes": kilobytes}
            )
    given.to.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
