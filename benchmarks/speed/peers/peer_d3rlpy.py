"""The peer: d3rlpy's own `fit`, timed on demand. Runs in its own virtual environment (it pins another gymnasium).

    python peer_d3rlpy.py TABLE.npz     then on standard input, a line each: {"algorithm": "td3_bc", "updates": 200}

The answer is one line, the seconds that `fit` took for these updates. One algorithm object lives through all lines.
"""

from __future__ import annotations

import json
import sys
import time

import d3rlpy
import numpy as np
import torch
from d3rlpy.logging import NoopAdapterFactory

DEEP = d3rlpy.models.VectorEncoderFactory([256, 256, 256])
CONFIGS = {
    "bc": lambda: d3rlpy.algos.BCConfig(batch_size=256, learning_rate=3e-4),
    "td3_bc": lambda: d3rlpy.algos.TD3PlusBCConfig(batch_size=256),
    "iql": lambda: d3rlpy.algos.IQLConfig(batch_size=256),
    "cql": lambda: d3rlpy.algos.CQLConfig(batch_size=256),
    "cal_ql": lambda: d3rlpy.algos.CalQLConfig(batch_size=256, alpha_learning_rate=0.0),
    "sac_n": lambda: d3rlpy.algos.SACConfig(batch_size=256, n_critics=10, actor_encoder_factory=DEEP, critic_encoder_factory=DEEP),
}


def main() -> None:
    torch.set_num_threads(1)
    table = np.load(sys.argv[1])
    dataset = d3rlpy.dataset.MDPDataset(table["observations"], table["actions"], table["rewards"], table["terminals"], table["timeouts"])
    learners: dict[str, object] = {}
    for line in sys.stdin:
        task = json.loads(line)
        name = task["algorithm"]
        if name not in learners:
            learners[name] = CONFIGS[name]().create(device="cpu:0")
            learners[name].build_with_dataset(dataset)
        begun = time.perf_counter()
        learners[name].fit(
            dataset,
            n_steps=task["updates"],
            n_steps_per_epoch=task["updates"],
            logger_adapter=NoopAdapterFactory(),
            show_progress=False,
        )
        print(json.dumps(time.perf_counter() - begun), file=sys.__stdout__, flush=True)


if __name__ == "__main__":
    sys.stdout = sys.stderr  # d3rlpy logs to standard output
    main()
