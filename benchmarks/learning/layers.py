"""What each layer of a HalfCheetah actor keeps at 95 %, beside the paper's bars: the shape of SNIP's and GraSP's masks.

python -m benchmarks.learning.layers              # benchmarks/learning/layers.json and the table of docs/retained.md
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.tables import fill, markdown
from trainables import plugins
from trainables.agent import Agent
from trainables.datasets.minibatches import Minibatches
from trainables.datasets.table import load_table
from trainables.pruning.prune import prune
from trainables.trial import Stack, Trial

FOUND = Path(__file__).with_suffix(".json")
PAGE = Path(__file__).parents[2] / "docs" / "retained.md"
DATASET = "winnow/halfcheetah/expert-v0"
SEEDS = (0, 1, 2)
ALGORITHMS = {"td3_bc": "TD3+BC", "bc": "BC"}
PAPER = {"snip": (14.7, 3.3, 45.4), "grasp": (20.9, 3.3, 35.5)}  # read off a bar chart of arXiv 2112.15579, +-0.4


def measure() -> list[dict[str, Any]]:
    """A row for each algorithm, pruner and seed: the percentage that each of the actor's layers keeps."""
    table = load_table(DATASET)
    rows = []
    for algorithm in ALGORITHMS:
        module = plugins.load("algorithms", algorithm)
        data = Minibatches(table, module.NORMALIZE)
        for pruner in PAPER:
            trials = [Trial(dataset=DATASET, algorithm=algorithm, pruner=pruner, sparsity=0.95, seed=seed) for seed in SEEDS]
            stack = Stack(tuple(trials))
            mask = prune(Agent(module, stack, table.observation_size, table.action_size), stack, data.draw)["actor"]
            for member, seed in enumerate(SEEDS):
                kept = [round(100 * float(layer[member].mean()), 2) for layer in mask]
                rows.append({"algorithm": algorithm, "pruner": pruner, "seed": seed, "kept": kept})
    return rows


def rows(found: list[dict[str, Any]]) -> Iterator[list[str]]:
    """The seeds' masks side by side, the paper's last."""
    yield ["", "SNIP", "GraSP"]
    for algorithm, title in ALGORITHMS.items():
        own = [row for row in found if row["algorithm"] == algorithm]
        yield [title, *(", ".join(shape(row["kept"]) for row in own if row["pruner"] == pruner) for pruner in PAPER)]
    yield ["the paper", *(shape(kept) for kept in PAPER.values())]


def shape(kept: list[float] | tuple[float, ...]) -> str:
    return "/".join(f"{share:.1f}" for share in kept)


if __name__ == "__main__":
    found = measure()
    FOUND.write_text("[\n" + ",\n".join(" " + json.dumps(row) for row in found) + "\n]\n")
    fill(PAGE, "layers", markdown(rows(found)))
