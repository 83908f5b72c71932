"""Dense scores beside a peer's (d3rlpy, OfflineRLLib): the same table, settings, updates and episodes. Are our algorithms right?

    python -m benchmarks.learning.methods             # ours, from the sweep `methods`
    make .venv-peer/installed-xql                     # the peers
    python -m benchmarks.learning.scores              # theirs, for each dense trial of it; what is in scores.json is not trained again
    python -m benchmarks.learning.scores table        # the table of docs/methods.md

The peers' policies are played here, in the episodes of the same seed, so nothing but the training differs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import torch

from benchmarks.learning import methods
from benchmarks.speed.updates import save
from benchmarks.tables import fill, markdown
from trainables import plugins
from trainables.datasets.minibatches import reward_span, span_factor
from trainables.datasets.table import load_table
from trainables.datasets.table_evaluator import evaluator_of
from trainables.evaluation.evaluation import evaluation_seeds
from trainables.trial import Trial

FOUND = Path(__file__).with_suffix(".json")
PEER = Path(os.environ.get("WINNOW_PEER", ".venv-peer/bin/python"))
EPISODES = 10
# XQL is OfflineRLLib's, the others are d3rlpy's. No package that can be installed has FQL or SPOT; EDAC is SAC-N with one more term.
ALGORITHMS = ("bc", "td3_bc", "iql", "awac", "rebrac", "bcq", "cql", "sac_n", "cal_ql", "xql")


def wanted() -> Iterator[dict[str, Any]]:
    """Our dense trials of algorithms that a peer has, seed after seed."""
    own = json.loads(methods.FOUND.read_text())
    dense = [row for row in own if row["pruner"] == "dense" and row["algorithm"] in ALGORITHMS]
    yield from sorted(dense, key=lambda row: (row["seed"], ALGORITHMS.index(row["algorithm"]), row["dataset"]))


def peer(row: dict[str, Any]) -> dict[str, Any]:
    """The peer's score and seconds for one of our trials."""
    table = load_table(row["dataset"])
    with tempfile.TemporaryDirectory() as folder:
        save(table, Path(folder) / "table.npz")
        trial = Trial(dataset=row["dataset"], algorithm=row["algorithm"], seed=row["seed"], hyper=row.get("hyper", {}))
        scale = span_factor(table, reward_span(plugins.load("algorithms", row["algorithm"]), row["dataset"]))
        hyper = trial.hyper_values() | {"reward_scale": scale}
        names = [*(str(row[name]) for name in ("algorithm", "updates", "seed")), json.dumps(hyper)]
        file = Path(__file__).with_name("peer_xql.py" if row["algorithm"] == "xql" else "peer_scores.py")
        program = [str(PEER), str(file), f"{folder}/table.npz", *names, f"{folder}/policy.pt"]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        begun = time.monotonic()
        subprocess.run(program, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        seconds = time.monotonic() - begun
        policy = torch.jit.load(f"{folder}/policy.pt")
    evaluator = evaluator_of(table, [evaluation_seeds(trial, EPISODES)])
    torch.manual_seed(row["seed"])  # BCQ's policy draws
    with torch.no_grad():
        returns = evaluator.run(lambda seen: policy(torch.from_numpy(seen[0])).numpy()[None])
    evaluator.close()
    return {**{name: row[name] for name in ("dataset", "algorithm", "updates", "seed")}, "hyper": dict(trial.hyper),
            "score": round(float(table.reference.normalize(returns).mean()), 2), "seconds": round(seconds, 1)}  # fmt: skip


def run() -> None:
    found = json.loads(FOUND.read_text()) if FOUND.exists() else []
    known = {identity(row) for row in found}
    todo = [row for row in wanted() if identity(row) not in known]
    for number, row in enumerate(todo, 1):
        found.append(peer(row))
        text = "[\n" + ",\n".join(" " + json.dumps(each) for each in found) + "\n]\n"
        FOUND.with_suffix(".tmp").write_text(text)
        FOUND.with_suffix(".tmp").replace(FOUND)
        print(f"{number} of {len(todo)}: {found[-1]}", flush=True)


def identity(row: dict[str, Any]) -> tuple[Any, ...]:
    return (*methods.place_of(row), row["seed"])


def table() -> Iterator[list[str]]:
    """Ours beside the peer's, the seeds' scores one by one: a few seeds have no honest interval of their difference."""
    found = json.loads(FOUND.read_text())
    yield ["dataset", "algorithm", "updates", "ours, by seed", "the peer's, by seed"]
    own: dict[tuple[Any, ...], list[float]] = {identity(row)[:3]: [] for row in wanted()}
    for row in wanted():
        own[identity(row)[:3]].append(row["score"])
    for cell, scores in own.items():
        theirs = [row["score"] for row in found if identity(row)[:3] == cell]
        both = (", ".join(f"{score:.1f}" for score in each) or "-" for each in (scores, theirs))
        yield [*cell, *both]


if __name__ == "__main__":
    if sys.argv[1:] == ["table"]:
        fill(methods.PAGE, "scores", markdown(table()))
    else:
        run()
