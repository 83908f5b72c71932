"""A learner's actor in plain numpy: a ReLU network with a Gaussian on top, and the files it is shipped in.

Its products are `native/rows.c`'s, so that a recording has the same bits on every processor; numpy's where there is no C compiler.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainables.datasets.minari_store import unreadable
from trainables.errors import UserError, unknown
from trainables.native import build

FOLDER = Path(__file__).parents[1] / "policies"
LOG_STD_RANGE = (-20.0, 2.0)  # stable-baselines3 and sbx, SquashedGaussianActor

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Policy:
    """Hidden ReLU layers [(weights, bias)] and the mean's output layer; then one of two Gaussians, the one that the learner explored with.

    TQC and SAC squash a sample by tanh and have a second output layer for the log standard deviation; PPO clips a sample to [-1, 1] and
    has one log standard deviation [A] for all observations.
    """

    hidden: tuple[tuple[Array, Array], ...]
    mean: tuple[Array, Array]
    log_std: tuple[Array, Array] | Array

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, npt.NDArray[Any]]) -> Policy:
        """Read `.../Dense_<i>/{kernel,bias}` (flax's names), any float type; `.../log_std`, if there, tells PPO's Gaussian."""
        named = {
            "/".join(name.split("/")[-2:]): np.ascontiguousarray(value, np.float32) for name, value in tensors.items() if "Dense_" in name
        }
        fixed = next((np.asarray(value, np.float32) for name, value in tensors.items() if name.split("/")[-1] == "log_std"), None)
        layers = [(named[f"Dense_{i}/kernel"], named[f"Dense_{i}/bias"]) for i in range(len(named) // 2)]
        if fixed is not None:
            return cls(tuple(layers[:-1]), layers[-1], fixed)
        return cls(tuple(layers[:-2]), layers[-2], layers[-1])

    def act(self, observations: Array, noise: Array | None = None) -> Array:
        """Actions [..., A] in [-1, 1] for observations [..., O]: the mode, or a sample where `noise` [..., A] is standard normal."""
        x = observations
        for weights, bias in self.hidden:
            x = np.maximum(product(x, weights) + bias, 0)
        action: Array = product(x, self.mean[0]) + self.mean[1]
        if not isinstance(self.log_std, tuple):
            return np.clip(action if noise is None else action + np.exp(self.log_std) * noise, -1, 1)
        if noise is not None:
            action = action + np.exp(np.clip(product(x, self.log_std[0]) + self.log_std[1], *LOG_STD_RANGE)) * noise
        return np.tanh(action)


def product(x: Array, weights: Array) -> Array:
    """Rows [..., I] times contiguous weights [I, O]: [..., O]."""
    if why_not_exact():
        return np.asarray(x @ weights)
    x, made = np.ascontiguousarray(x, np.float32), np.empty((*x.shape[:-1], weights.shape[1]), np.float32)
    build.library().winnow_rows(x.size // len(weights), *weights.shape, x.ctypes.data, weights.ctypes.data, made.ctypes.data)
    return made


@functools.cache
def why_not_exact() -> str:
    """Why products are numpy's here, whose last bits depend on the processor; empty where they are the project's own."""
    return build.reason()


def folder(version: int = 0) -> Path:
    """Where the policies of a version of the datasets lie; version 0 is beside the folders of the later ones."""
    return FOLDER / f"v{version}" if version else FOLDER


def versions() -> tuple[int, ...]:
    """The versions of datasets that can be recorded, ascending."""
    return (0, *sorted(int(path.name[1:]) for path in FOLDER.glob("v[1-9]*")))


def families(version: int = 0) -> tuple[str, ...]:
    """The environments' families for which policies are shipped."""
    return tuple(sorted(path.stem for path in folder(version).glob("*.json")))


def card(family: str, version: int = 0) -> dict[str, Any]:
    """What is known about a family's shipped policies: learner, settings, training curve, and for each tier its snapshot and returns."""
    if family not in families(version):
        raise unknown("shipped policy for", family, families(version))
    value = json.loads((folder(version) / f"{family}.json").read_text())
    if not isinstance(value, dict):
        raise UserError(f"{folder(version) / family}.json is not a JSON object")
    return value


def load(family: str, version: int = 0) -> dict[int, Policy]:
    """The shipped snapshots of a family's learner, by the environment step after which each was taken."""
    from safetensors.numpy import load_file

    path = folder(version) / f"{family}.safetensors"
    try:
        tensors = load_file(path)
    except Exception as error:  # safetensors raises an exception of its own
        raise unreadable(family, path, error) from None
    steps = sorted({int(name.split("/")[0]) for name in tensors})
    return {
        step: Policy.from_tensors({name: value for name, value in tensors.items() if name.startswith(f"{step:08d}/")}) for step in steps
    }
