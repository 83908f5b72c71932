"""envpool's side of benchmarks/speed/evaluation.py: plays recorded actions, as often as it is told. Runs in an environment of its own."""

from __future__ import annotations

import json
import sys
import time

import envpool
import numpy as np

actions = np.load(sys.argv[1])  # [time steps, n, A]
for line in sys.stdin:
    asked = json.loads(line)
    environments = envpool.make(
        asked["environment"],
        env_type="gymnasium",
        num_envs=actions.shape[1],
        num_threads=asked["threads"],
        seed=0,
        max_episode_steps=len(actions),
    )
    environments.reset()
    wall, cpu = time.perf_counter(), time.process_time()
    for action in actions:
        environments.step(action)
    seconds = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    environments.close()
    print(json.dumps(seconds), flush=True)
