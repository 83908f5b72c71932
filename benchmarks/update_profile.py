"""Where the time of one update goes: `python benchmarks/update_profile.py [--sparsity 0.95]`.

The same update with a part of it switched off or timed by itself would change what the rest costs, so the interpreter is sampled
instead: every millisecond of CPU time a signal asks which part is running, from the innermost frame outwards.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
from collections import Counter
from pathlib import Path
from types import FrameType

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from updates import Ours

from trainables.datasets import load_table

# (end of the file's name, function) -> part; "" is any function.
PARTS = {
    ("execution/sparse.py", "forward"): "networks forward (C)",
    ("execution/sparse.py", "backward"): "networks backward (C)",
    ("native/__init__.py", "gathered"): "minibatch (C)",
    ("native/__init__.py", "integers"): "draws (C)",
    ("native/__init__.py", "uniform"): "draws (C)",
    ("streams.py", ""): "draws",
    ("native/__init__.py", "update"): "Adam (C)",
    ("native/__init__.py", "tracked"): "target networks (C)",
    ("minibatches.py", ""): "minibatch",
    ("agent.py", "gradients"): "autograd's engine and the losses' derivatives",
    ("algorithms/td3_bc.py", "critic_loss"): "the losses in torch",
    ("algorithms/td3_bc.py", "actor_loss"): "the losses in torch",
}


def part_of(frame: FrameType | None) -> str:
    while frame is not None:
        code = frame.f_code
        for (file, function), part in PARTS.items():
            if code.co_filename.endswith(file) and function in ("", code.co_name):
                return part
        frame = frame.f_back
    return "the rest"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="winnow/halfcheetah/expert-v0")
    parser.add_argument("--pruner", default="snip")
    parser.add_argument("--sparsity", type=float, default=0.95)
    parser.add_argument("--updates", type=int, default=10_000)
    parser.add_argument("--to", type=Path, help="JSON file")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    ours = Ours(load_table(given.dataset), ("td3_bc", given.pruner, given.sparsity, "auto"))
    ours.seconds(500)
    seen: Counter[str] = Counter()
    signal.signal(signal.SIGPROF, lambda number, frame: seen.update([part_of(frame)]))
    signal.setitimer(signal.ITIMER_PROF, 1e-3, 1e-3)
    seconds = ours.seconds(given.updates)
    signal.setitimer(signal.ITIMER_PROF, 0)
    total = sum(seen.values())
    print(f"td3_bc, {given.pruner} at {100 * given.sparsity:g} %: {1e6 * seconds / given.updates:.0f} us per update, {total} samples")
    for part, count in seen.most_common():
        print(f"  {100 * count / total:5.1f} %  {1e6 * seconds * count / total / given.updates:6.0f} us  {part}")
    if given.to:
        given.to.write_text(json.dumps({part: count / total for part, count in seen.most_common()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
