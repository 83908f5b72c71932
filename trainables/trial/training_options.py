"""The options of training that any algorithm takes: their choices, and numbers that change the rewards."""

from __future__ import annotations

# The default comes first.
TRAINING_CHOICES: dict[str, tuple[str, ...]] = {
    "initialization": ("torch", "xavier"),  # weights as torch.nn.Linear draws them, or Xavier-normal; biases are torch's
    "timeouts": ("bootstrap", "terminal"),  # a cut-off episode goes on for the value, or has ended there, as in the authors' code
    "network": ("mlp", "layer_norm", "simba"),  # what all networks of the algorithm are built as: tensors/mlp.py
    "states": ("own", "normalized", "raw"),  # observations as the algorithm's own code takes them, or one way for all algorithms
}

# An update sees reward_scale x reward + reward_shift; evaluations and datasets' returns are in the environment's own rewards.
REWARDS: dict[str, float] = {"reward_shift": 0.0, "reward_scale": 1.0}
