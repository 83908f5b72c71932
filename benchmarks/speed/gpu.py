"""Updates per second of stacks on one GPU, summed over members, as plain calls and as CUDA graphs, with float32's products and
with TF32's, and the share of the roofline.

    python -m benchmarks.speed.gpu                                     # writes benchmarks/speed/gpu.json, some minutes on one GPU
    python -m benchmarks.speed.gpu --device cpu --members 1,2 --seconds 0.2 --to /tmp/gpu.json   # that the program runs

The roofline counts the multiplications and additions of the weights between live units (kept or not, as a matrix product does), for the
passes that the algorithm makes, over what one large product reached in the same run, with the same rounding of factors.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Iterator
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import torch

from trainables import plugins
from trainables.agent import Agent
from trainables.datasets.minibatches import minibatches_of
from trainables.datasets.table import Table, load_table
from trainables.errors import UserError
from trainables.pruning.prune import prune
from trainables.run import usable
from trainables.training.updates import Updates
from trainables.trial import Stack, Trial

CELLS = [("dense", 0.0), ("snip", 0.95)]
# Weights of a network are multiplied so often in an update: forward 1, and 2 more for its gradient and its inputs' each.
PASSES = {
    "td3_bc": {"actor": 1 + 3 / 2, "critic": 1 + 3 + 2 / 4},  # target; own, the critic's first copy for the actor, every 2nd update
    "iql": {"actor": 3, "critic": 1 + 3, "value": 1 + 3},
}


def trainer(
    table: Table, algorithm: str, members: int, pruner: str, sparsity: float, device: str, graph: bool, execution: str = "fused"
) -> Updates:
    """A stack in training as run_stack trains it, on a GPU in the execution `fused`."""
    trials = (Trial(dataset=table.dataset, algorithm=algorithm, pruner=pruner, sparsity=sparsity, seed=seed) for seed in range(members))
    stack, module = Stack(tuple(trials)), plugins.load("algorithms", algorithm)
    agent = Agent(module, stack, table.observation_size, table.action_size, device, recorded=graph and device != "cpu")
    data = minibatches_of(module, stack, table, device)
    masks = prune(agent, stack, data.draw)
    agent.build(execution, masks=masks)
    return Updates(agent, data)


def rate(updates: Updates, device: str, seconds: float) -> float:
    """Updates per second, summed over members, after a warm-up."""
    done = 50
    updates.run(0, done)
    wait(device)
    begun = time.perf_counter()
    while (spent := time.perf_counter() - begun) < seconds or done == 50:
        updates.run(done, done + 50)
        wait(device)
        done += 50
    return updates.agent.size * (done - 50) / spent


def flop(updates: Updates, algorithm: str) -> float:
    """Floating point operations of one update of one member, biases and elementwise work left out."""
    agent = updates.agent
    held = {
        name: network.spec.copies * sum(n_in * n_out for n_in, n_out in pairwise(network.sizes)) for name, network in agent.networks.items()
    }
    return sum(2 * agent.hyper.batch_size * held[name] * times for name, times in PASSES[algorithm].items())


def peak(device: str) -> float:
    """Float32 operations per second of one large matrix product."""
    size = 8192 if device != "cpu" else 1024
    a = torch.randn(size, size, device=device)
    a @ a
    wait(device)
    begun = time.perf_counter()
    for _ in range(5):
        a @ a
    wait(device)
    return 5 * 2 * size**3 / (time.perf_counter() - begun)


def wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def works(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """What to measure; every kind of stack as plain calls and as graphs, and the largest as graphs in the execution `dense`."""
    sizes = list(map(int, given.members.split(",")))
    for tf32, algorithm, (pruner, sparsity) in product((False, True), given.algorithms.split(","), CELLS):
        work = {"tf32": tf32, "algorithm": algorithm, "pruner": pruner, "sparsity": sparsity}
        yield from ({**work, "members": size, "graph": graph, "execution": "fused"} for size in sizes for graph in (False, True))
        yield {**work, "members": sizes[-1], "graph": True, "execution": "dense"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="winnow/halfcheetah/expert-v0")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--members", default="1,8,32,64,128")
    parser.add_argument("--algorithms", default="td3_bc,iql")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--to", type=Path, default=Path(__file__).with_suffix(".json"))
    given = parser.parse_args()
    try:
        usable(given.device)
    except UserError as error:
        parser.error(str(error))
    torch.set_num_threads(1)
    table, device = load_table(given.dataset), given.device
    name = torch.cuda.get_device_name() if device != "cpu" else platform.processor() or "cpu"
    ceilings: dict[bool, float] = {}
    about = {"device": name, "torch": torch.__version__, "flop_per_second": ceilings, "rows": (rows := [])}
    for work in works(given):
        torch.set_float32_matmul_precision("high" if work["tf32"] else "highest")
        if work["tf32"] not in ceilings:
            ceilings[work["tf32"]] = peak(device)
            print(f"{name}, torch {torch.__version__}, {ceilings[work['tf32']] / 1e12:.1f} TFLOP/s in one product, TF32: {work['tf32']}")
        kind = [work[key] for key in ("algorithm", "members", "pruner", "sparsity")]
        updates = trainer(table, *kind, device, work["graph"], work["execution"])
        work["updates_per_second"] = rate(updates, device, given.seconds)
        if work["execution"] == "fused":
            work["roofline"] = work["updates_per_second"] * flop(updates, work["algorithm"]) / ceilings[work["tf32"]]
        rows.append(work)
        given.to.write_text(json.dumps(about, indent=1) + "\n")
        print(
            f"{work['algorithm']:>8} {work['pruner']:>6} {100 * work['sparsity']:3.0f} %  {work['execution']:>6}  K = {work['members']:<4}"
            f" {'graph' if work['graph'] else 'calls'}  {work['updates_per_second']:10,.0f} updates/s"
            f"  {100 * work.get('roofline', 0):5.1f} % of the roofline",
            flush=True,
        )


if __name__ == "__main__":
    main()
