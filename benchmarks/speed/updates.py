"""Updates per second against d3rlpy and plain torch, interleaved in one run on one core: `make bench`.

All train on the same table with batches of 256; ours runs the loop of trainables/run.py. Prints each rate's median, the ratios to the
peers with their spread over the rounds (lowest - highest), and writes them as JSON, with the processor's name.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np

from trainables import plugins
from trainables.agent import Agent
from trainables.datasets.minibatches import minibatches_of
from trainables.datasets.table import Table, load_table
from trainables.native import build
from trainables.pruning.prune import prune
from trainables.training.process import set_up_torch
from trainables.training.updates import Updates
from trainables.trial import Stack, Trial

# algorithm, pruner, sparsity, execution
CASES = [
    ("td3_bc", "dense", 0.0, "auto"),
    ("td3_bc", "snip", 0.8, "auto"),
    ("td3_bc", "snip", 0.9, "auto"),
    ("td3_bc", "snip", 0.95, "auto"),
    ("td3_bc", "random_uniform", 0.95, "auto"),
    ("td3_bc", "random_erk", 0.95, "auto"),
    ("td3_bc", "snip", 0.95, "dense"),
    ("td3_bc", "snip", 0.98, "auto"),
    ("td3_bc", "random_erk", 0.99, "auto"),
    ("td3_bc", "snip", 0.99, "auto"),
    ("iql", "dense", 0.0, "auto"),
    ("iql", "snip", 0.95, "auto"),
    ("cql", "dense", 0.0, "auto"),
    ("cql", "snip", 0.95, "auto"),
    ("bc", "dense", 0.0, "auto"),
    ("bc", "snip", 0.95, "auto"),
    ("sac_n", "dense", 0.0, "auto"),
    ("sac_n", "snip", 0.95, "auto"),
    ("cal_ql", "dense", 0.0, "auto"),
    ("cal_ql", "snip", 0.95, "auto"),
]
SERVED = {"d3rlpy": ("td3_bc", "iql", "cql", "bc", "sac_n", "cal_ql"), "plain": ("td3_bc", "iql", "bc")}  # algorithms of each peer
HYPER = {"cql": {"hidden": (256, 256)}}  # d3rlpy's; all else has the same sizes by default


class Ours:
    """One trial in training, as run_stack trains it."""

    def __init__(self, table: Table, case: tuple[str, str, float, str]) -> None:
        name, pruner, sparsity, execution = case
        stack = Stack((Trial(dataset=table.dataset, algorithm=name, pruner=pruner, sparsity=sparsity, hyper=HYPER.get(name, {})),))
        algorithm = plugins.load("algorithms", name)
        self.agent = Agent(algorithm, stack, table.observation_size, table.action_size)
        self.data = minibatches_of(algorithm, stack, table)
        masks = prune(self.agent, stack, self.data.draw)
        self.agent.build(execution, masks=masks)
        self.make, self.update = Updates(self.agent, self.data), 0

    def seconds(self, updates: int) -> float:
        begun = time.perf_counter()
        self.make.run(self.update, self.update + updates)
        self.update += updates
        return time.perf_counter() - begun


def save(table: Table, to: str | IO[bytes]) -> None:
    """The table as the peers' programs read it."""
    o, a = table.observation_size, table.action_size
    ends = np.zeros(len(table.rows), np.float32)
    ends[np.cumsum(table.episode_lengths) - 1] = 1
    terminals = np.array(table.rows[:, -1])
    np.savez(
        to,
        observations=table.rows[:, :o],
        actions=table.rows[:, o : o + a],
        rewards=table.rows[:, o + a],
        terminals=terminals,
        timeouts=ends * (1 - terminals),
        next_observations=table.rows[:, o + a + 1 : o + a + 1 + o],
    )


class Peer:
    """A peer in a worker process of its own environment; idle while others are timed."""

    def __init__(self, name: str, python: str, table: Table) -> None:
        self.file = tempfile.NamedTemporaryFile(suffix=".npz")  # noqa: SIM115
        save(table, self.file)
        program = str(Path(__file__).parent / "peers" / f"peer_{name}.py")
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        self.worker = subprocess.Popen(
            [python, program, self.file.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )

    def seconds(self, algorithm: str, updates: int) -> float:
        assert self.worker.stdin is not None
        assert self.worker.stdout is not None
        print(json.dumps({"algorithm": algorithm, "updates": updates}), file=self.worker.stdin, flush=True)
        return float(json.loads(self.worker.stdout.readline()))


def processor() -> str:
    """Its model and the size of its first cache, which decides more than the model's name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    cache = Path("/sys/devices/system/cpu/cpu0/cache/index0/size")
    return model + (f", {cache.read_text().strip().removesuffix('K')} kB of L1" if cache.exists() else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="winnow/halfcheetah/expert-v0")
    parser.add_argument("--peer", default=".venv-peer/bin/python", help="python of an environment with d3rlpy 2.8")
    parser.add_argument("--rounds", type=int, default=5)
    names = list(dict.fromkeys(case[0] for case in CASES))
    parser.add_argument("--algorithms", nargs="+", choices=names, default=names, help="only these; the rows of others stay as they are")
    parser.add_argument("--to", type=Path, default=Path("benchmarks/speed/updates.json"))
    given = parser.parse_args()
    set_up_torch()
    table = load_table(given.dataset)
    peers = {"d3rlpy": Peer("d3rlpy", given.peer, table), "plain": Peer("plain", sys.executable, table)}
    found: list[dict[str, object]] = []
    for name in given.algorithms:
        cases = [case for case in CASES if case[0] == name]
        ours = [Ours(table, case) for case in cases]
        updates = [max(20, int(0.7 / (trial.seconds(64) / 64))) for trial in ours]  # about 0.7 s each
        theirs = {peer: max(20, int(1.5 / (run.seconds(name, 30) / 30))) for peer, run in peers.items() if name in SERVED[peer]}
        rows: list[list[float]] = [[] for _ in cases]
        others: dict[str, list[float]] = {peer: [] for peer in theirs}
        for _ in range(given.rounds):
            for peer, count in theirs.items():
                others[peer].append(count / peers[peer].seconds(name, count))
            for row, trial, count in zip(rows, ours, updates, strict=True):
                row.append(count / trial.seconds(count))
        print(name, *(f"{peer} {statistics.median(rates):.1f} updates/s" for peer, rates in others.items()), sep=", ", flush=True)
        for case, trial, row in zip(cases, ours, rows, strict=True):
            ratios = {peer: [own / other for own, other in zip(row, rates, strict=True)] for peer, rates in others.items()}
            shown = "  ".join(f"{statistics.median(r):5.1f}x {peer} ({min(r):.1f} - {max(r):.1f})" for peer, r in ratios.items())
            print(
                f"  {case[1]:>14} {100 * case[2]:4.0f} %  {trial.agent.execution:>6}  {statistics.median(row):7.0f} updates/s  {shown}",
                flush=True,
            )
            found.append(
                {
                    "date": str(datetime.date.today()),
                    "algorithm": name,
                    "pruner": case[1],
                    "sparsity": case[2],
                    "execution": trial.agent.execution,
                    "updates_per_second": statistics.median(row),
                    "peers": {peer: statistics.median(rates) for peer, rates in others.items()},
                    "ratios": ratios,
                }
            )
    measured = json.loads(given.to.read_text()) if given.to.exists() else {}
    found = [row for row in measured.get(processor(), {"rows": []})["rows"] if row["algorithm"] not in given.algorithms] + found
    rates = {(row["algorithm"], row["pruner"], row["sparsity"]): row["updates_per_second"] for row in found if row["execution"] == "sparse"}
    if "td3_bc" in given.algorithms:
        faster = rates["td3_bc", "snip", 0.95] / rates["td3_bc", "snip", 0.8]
        print(f"td3_bc, snip: {faster:.2f}x faster with 5 % kept than with 20 %, {faster / 4:.2f} of proportional")
    measured[processor()] = {"kernels": build.simd(), "rows": found}
    given.to.write_text(json.dumps(measured, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
