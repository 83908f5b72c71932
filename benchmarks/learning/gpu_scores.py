"""What stacks on a GPU score, with float32's products and with TF32's, seed by seed; tables.py puts the study's scores on CPUs beside.

    python -m benchmarks.learning.gpu_scores                               # writes gpu_scores.json; minutes on one GPU and its host's cores
    python -m benchmarks.learning.gpu_scores --device cpu --seeds 2 --updates 200 --to /tmp/scores.json   # that the program runs

Each cell is one stack of its own, trained as a sweep trains it: evaluation beside training in other processes, on CPUs. Trials are
those of the sweep `study` (its evaluations and final episodes), with more seeds. Seconds are of the whole stack: masks, updates and
evaluations.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch

from benchmarks.tables import said
from search_spaces.studies.study import SWEEP as STUDY
from trainables.reports import Evaluated, Finished, Trained
from trainables.run import run_stack
from trainables.trial import Stack, Trial

HERE = Path(__file__).parent
CELLS = [("dense", 0.0), ("snip", 0.95)]


def train(stack: Stack, device: str, tf32: bool, pool: ProcessPoolExecutor) -> dict[str, Any]:
    """Scores of the last evaluation and means over the final episodes, by member; seconds, and updates/s while training."""
    begun, found = time.perf_counter(), {}
    rates, scores = [], {False: [], True: []}
    for report in run_stack(stack, device=device, tf32=tf32, beside=pool.submit):
        if isinstance(report, Trained):
            rates.append(report.updates_per_second)
        if isinstance(report, Evaluated):
            scores[report.final] = [float(np.mean(own["scores"])) for own in report.episodes]
        if isinstance(report, Finished):
            found["execution"] = report.execution
    found |= {"last": scores[False], "final": scores[True], "seconds": time.perf_counter() - begun}
    return found | {"updates_per_second": float(np.median(rates))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", default="winnow/halfcheetah/medium-v0,winnow/hopper/medium-v0")
    parser.add_argument("--algorithms", default="td3_bc")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seeds", type=int, default=32)
    parser.add_argument("--updates", type=int, default=STUDY.updates)
    parser.add_argument("--to", type=Path, default=HERE / "gpu_scores.json")
    given = parser.parse_args()
    name = torch.cuda.get_device_name() if given.device != "cpu" else "cpu"
    rows: list[dict[str, Any]] = []
    about = {"device": name, "torch": torch.__version__, "cores": len(os.sched_getaffinity(0)), "rows": rows}
    cores = max(1, len(os.sched_getaffinity(0)) - 1)
    with ProcessPoolExecutor(cores, multiprocessing.get_context("spawn")) as pool:
        for dataset in given.datasets.split(","):
            for algorithm in given.algorithms.split(","):
                for pruner, sparsity in CELLS:
                    plain: dict[str, Any] = {"dataset": dataset, "algorithm": algorithm, "pruner": pruner, "sparsity": sparsity}
                    plain |= {"updates": given.updates, "evaluations": STUDY.evaluations, "episodes": STUDY.episodes}
                    plain["final_episodes"] = STUDY.final_episodes
                    stack = Stack(tuple(Trial(**plain, seed=seed) for seed in range(given.seeds)))
                    both = {"tf32" if tf32 else "float32": train(stack, given.device, tf32, pool) for tf32 in (False, True)}
                    rows.append({"dataset": dataset, "algorithm": algorithm, "pruner": pruner, "sparsity": sparsity, **both})
                    given.to.write_text(json.dumps(about, indent=1) + "\n")
                    print(f"{dataset} {algorithm} {pruner} {100 * sparsity:g} %, {given.seeds} seeds of {given.updates:,} updates")
                    for kind, found in both.items():
                        print(
                            f"  {kind:>8}: last {said(np.array(found['last']))}, final {said(np.array(found['final']))};"
                            f" {found['seconds']:.0f} s, {found['updates_per_second']:,.0f} updates/s ({found['execution']})",
                            flush=True,
                        )


if __name__ == "__main__":
    main()
