"""The execution `onchip` on a GPU, first whether it is right, then updates per second beside `fused`, with and without TF32, in one run;
and, without a GPU, what its programs have to load.

    python -m benchmarks.speed.onchip                # on a GPU: checks, measures, writes benchmarks/speed/onchip.json, prints the table
    ncu --set full -k winnow_onchip -s 1 -c 1 python -m benchmarks.speed.onchip --members 132 --cells snip:0.95 --to /tmp/onchip.json
                                                     # what limits the kernel; the launch that is skipped is the check's
    python -m benchmarks.speed.onchip --estimate     # anywhere: counts, writes benchmarks/speed/onchip_estimate.json

The estimate counts, for one member's update, how often a warp reads 128 bytes of the memory on the chip, or 16 that all its lanes share,
and the bytes that come from the cache of the GPU. A multiprocessor does one such read, or takes 64 bytes from there, per cycle. What the
barriers, the small operations and waiting for memory cost is left out, so it is a bound and no forecast.
"""

from __future__ import annotations

import argparse
import json
import math
from itertools import product
from pathlib import Path
from typing import Any

import torch

from benchmarks.speed.gpu import rate, trainer
from trainables.datasets.table import Table, load_table
from trainables.native import onchip
from trainables.training.onchip import Launches

CELLS = [(pruner, sparsity) for pruner in ("snip", "random_erk", "random_uniform") for sparsity in (0.9, 0.95, 0.98)]
SIZES = "1,32,132,264"  # with these all is done in some five minutes
GPUS = {"H100 (SXM)": (132, 1.755e9, 90), "A100": (108, 1.41e9, 80)}  # multiprocessors, Hz, compute capability; NVIDIA's data sheets
CACHE_BYTES = 64  # that a multiprocessor takes from the L2 cache per cycle
UPDATES = 20  # that are compared before anything is measured
PATH = Path(__file__)


def counted(launches: Launches) -> dict[str, float]:
    """Of one update of the widest member, on average over the patterns of updates, as often as each occurs."""
    launches.pattern(0)
    period = math.lcm(*launches.shadow.periods)
    patterns = [launches.pattern(update) for update in range(period)]
    found = {"loads": 0.0, "cache_bytes": 0.0, "instructions": 0.0, "barriers": 0.0}
    for instruction in (each for pattern in patterns for each in launches.programs[pattern].instructions):
        for name, value in costs(launches, instruction).items():
            found[name] += value / period
    return found | {"shared_bytes": launches.shared}


def costs(launches: Launches, instruction: onchip.Instruction) -> dict[str, float]:
    """What an instruction costs a block."""
    code = onchip.CODES[instruction.code]
    if code not in ("forward", "backward"):
        moved = {"adam": 28, "track": 12}.get(code, 0)  # bytes of a value, read and written
        network = launches.networks[instruction.of.adam.network][1] if moved else None
        return {"instructions": 1, "barriers": 1, "cache_bytes": moved * network.width if network else 0}
    operands = getattr(instruction.of, "pass")
    network, backward = launches.networks[operands.network][1], code == "backward"
    tiles, depth = math.ceil(operands.batch / onchip.TILE), len(network.spec.layers)
    copies = (onchip.Copy * (network.members * network.spec.copies)).from_buffer_copy(network.copies.cpu().numpy())
    mine = copies[network.longest * network.spec.copies :][: network.spec.copies]
    found = {"instructions": 1.0, "loads": 0.0, "cache_bytes": 0.0, "barriers": 1.0}
    for copy in mine if operands.copy == onchip.NONE else mine[operands.copy : operands.copy + 1]:
        weights = copy.weight[depth]
        found["loads"] += tiles * 1.5 * weights  # a row of the tile for each weight, and two weights at once
        found["cache_bytes"] += (8 + 4) * weights + 8 * copy.unit[depth]
        found["barriers"] += tiles * (depth + 2)
        if not backward:
            continue
        first = 0 if any(at != onchip.NONE for at in operands.input) else copy.input[1]  # the inputs' gradient may not be wanted
        share = (copy.input[depth] - first) / copy.input[depth]
        found["loads"] += tiles * 1.5 * copy.back * share
        found["cache_bytes"] += (8 + 4) * copy.back + 8 * copy.input[depth]
        found["barriers"] += tiles * 2 * depth
        if operands.gradient != onchip.NONE:
            found["loads"] += tiles * 1.5 * weights  # three numbers for two products
            found["cache_bytes"] += tiles * (8 + 8) * weights  # places, and the sum so far
    return found


def estimate(table: Table, algorithms: list[str]) -> None:
    rows: list[dict[str, Any]] = []
    for algorithm, (pruner, sparsity) in product(algorithms, CELLS):
        updates = trainer(table, algorithm, 1, pruner, sparsity, "cpu", False, "onchip")
        assert updates.launches
        row: dict[str, Any] = {"algorithm": algorithm, "pruner": pruner, "sparsity": sparsity, **counted(updates.launches)}
        cycles = row["loads"] + row["cache_bytes"] / CACHE_BYTES
        row["bounds"] = {}
        for name, (count, clock, capability) in GPUS.items():
            if row["shared_bytes"] <= onchip.SHARED[capability]:
                row["bounds"][name] = {"microseconds": 1e6 * cycles / clock, "updates_per_second": count * clock / cycles}
        rows.append(row)
        print(
            algorithm,
            pruner,
            sparsity,
            {key: round(value) for key, value in row.items() if isinstance(value, float | int) and value > 1},
            row["bounds"],
        )
    PATH.with_name("onchip_estimate.json").write_text(json.dumps({"rows": rows}, indent=1) + "\n")


def distance(table: Table, algorithm: str, pruner: str, sparsity: float) -> float:
    """How far training in `onchip` goes from that in `fused` in some updates, as a part of the way."""
    ends = {}
    for execution in ("onchip", "fused"):
        updates = trainer(table, algorithm, 4, pruner, sparsity, "cuda", True, execution)
        start = updates.agent.rows()
        updates.run(0, UPDATES)
        ends[execution] = {name: row.double() for name, row in updates.agent.rows().items()}
    names = [name for name in start if name.startswith("online/")]
    far = [float((ends["onchip"][name] - ends["fused"][name]).norm() / (ends["fused"][name] - start[name]).norm()) for name in names]
    return max(far)


def measure(table: Table, given: argparse.Namespace) -> None:
    name = torch.cuda.get_device_name()
    about: dict[str, Any] = {"device": name, "torch": torch.__version__, "threads": onchip.THREADS, "rows": (rows := [])}
    for algorithm, (pruner, sparsity) in product(given.algorithms.split(","), cells_of(given.cells)):
        torch.set_float32_matmul_precision("highest")
        far = distance(table, algorithm, pruner, sparsity)
        if not far < 0.01:
            raise SystemExit(
                f"{algorithm} {pruner} {sparsity}: {far:.1%} of the way apart from `fused` after {UPDATES} updates; nothing is measured"
            )
        for members in map(int, given.members.split(",")):
            row: dict[str, Any] = {"algorithm": algorithm, "pruner": pruner, "sparsity": sparsity, "members": members, "distance": far}
            for execution, tf32 in (("onchip", False), ("fused", False), ("fused", True)):
                torch.set_float32_matmul_precision("high" if tf32 else "highest")
                key = execution + (", TF32" if tf32 else "")
                updates = trainer(table, algorithm, members, pruner, sparsity, "cuda", True, execution)
                if updates.agent.instead:
                    row["why not"] = updates.agent.instead
                else:
                    row[key] = rate(updates, "cuda", given.seconds)
            rows.append(row)
            given.to.write_text(json.dumps(about, indent=1) + "\n")
            shown = "  ".join(f"{key} {row[key]:10,.0f}/s" for key in ("onchip", "fused", "fused, TF32") if key in row)
            print(
                f"{algorithm:>8} {pruner:>14} {100 * sparsity:3.0f} %  K = {members:<4}  {shown}  {row.get('why not', '')}",
                flush=True,
            )


def cells_of(text: str) -> list[tuple[str, float]]:
    """`snip:0.95,random_erk:0.9`; all where nothing is given."""
    return [(name, float(sparsity)) for name, _, sparsity in (part.partition(":") for part in text.split(","))] if text else CELLS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--estimate", action="store_true", help="only count, which needs no GPU")
    parser.add_argument("--dataset", default="winnow/halfcheetah/expert-v0")
    parser.add_argument("--members", default=SIZES)
    parser.add_argument("--algorithms", default="td3_bc")
    parser.add_argument("--cells", default="", help="pruner:sparsity,...; all of them by default")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    parser.add_argument("--to", type=Path, default=PATH.with_suffix(".json"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.estimate:
        estimate(load_table(given.dataset), given.algorithms.split(","))
    elif torch.cuda.is_available():
        measure(load_table(given.dataset), given)
    else:
        parser.exit(1, "no GPU that the installed torch can use; --estimate counts what there would be to do\n")


if __name__ == "__main__":
    main()
