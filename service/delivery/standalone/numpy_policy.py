"""A pruned policy on numpy and safetensors alone.

act = load("policy.safetensors")
action = act(observation)  # one observation [O] or a batch [B, O], in the environment's own units, as are the actions
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import safe_open

Array = npt.NDArray[Any]


def load(path: str) -> Callable[[npt.ArrayLike], Array]:
    """The policy in a file that `winnow export --format compact` wrote."""
    with safe_open(path, framework="numpy") as file:
        head = json.loads(file.metadata()["policy"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    network = head.get("network", "mlp")
    residual = network == "simba"  # layers 0, 2, 4, ... add to a stream
    layers = [(weights(tensors, index, inputs), tensors[f"bias.{index}"]) for index, inputs in enumerate(head["inputs"])]

    def act(observation: npt.ArrayLike) -> Array:
        x = np.asarray(observation, np.float32) * tensors["observation_scale"] + tensors["observation_shift"]
        stream = 0.0
        for index, (weight, bias) in enumerate(layers):
            x = x @ weight + bias
            if index + 1 < len(layers):
                if residual and index % 2 == 0:
                    x = stream = x + stream
                else:
                    x = np.maximum(x, 0)
                x = normalized(x) if network == "layer_norm" or (residual and index % 2 == 0) else x
        squashed = np.tanh(x) if head["output"] == "tanh" else np.clip(x, -1, 1)
        return (squashed - tensors["action_shift"]) / tensors["action_scale"]

    return act


def normalized(x: Array) -> Array:
    """Each row to mean 0 and deviation 1."""
    y = x - x.mean(-1, keepdims=True)
    normal: Array = y / np.sqrt((y * y).mean(-1, keepdims=True) + np.float32(1e-6))
    return normal


def weights(tensors: Mapping[str, Array], index: int, inputs: int) -> Array:
    """A layer's weights [inputs, outputs]; of a sparse file only the kept ones are there, row after row."""
    if f"weight.{index}" in tensors:
        return np.ascontiguousarray(tensors[f"weight.{index}"].T)
    counts = tensors[f"count.{index}"]  # kept weights of each output
    weight = np.zeros((inputs, len(counts)), np.float32)
    weight[tensors[f"column.{index}"], np.arange(len(counts)).repeat(counts)] = tensors[f"value.{index}"]
    return weight
