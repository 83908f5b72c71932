"""How a network sees a dataset: observations normalized where the algorithm asks for it, actions scaled to [-1, 1]."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from trainables.datasets.table import Table

STD_OFFSET = 1e-3  # CORL and TD3+BC: (s - mean) / (std + 1e-3)


def normalizes(algorithm: ModuleType, network: str, states: str = "own") -> bool:
    """Whether networks see normalized observations: where the algorithm asks for it, and in SimBa, whose running statistics are the
    dataset's here, which does not change; or as a trial's `states` says."""
    return states == "normalized" or (states == "own" and (algorithm.NORMALIZE or network == "simba"))


def observation_affine(table: Table, normalize: bool) -> tuple[np.ndarray, np.ndarray]:
    """(shift, scale) [O] with which a network sees an observation: shift + scale s."""
    if not normalize:
        return np.zeros(table.observation_size), np.ones(table.observation_size)
    scale = 1 / (np.asarray(table.std, dtype=np.float64) + STD_OFFSET)
    return -np.asarray(table.mean, dtype=np.float64) * scale, scale


def action_affine(table: Table) -> tuple[np.ndarray, np.ndarray]:
    """(shift, scale) [A] that take the environment's action bounds to [-1, 1]."""
    low, high = np.asarray(table.action_low, dtype=np.float64), np.asarray(table.action_high, dtype=np.float64)
    return -(high + low) / (high - low), 2 / (high - low)


class Scaling:
    """Between an environment and a network: raw observations in, raw actions out."""

    def __init__(self, table: Table, normalize: bool) -> None:
        self.observation_shift, self.observation_scale = (v.astype(np.float32) for v in observation_affine(table, normalize))
        self.action_shift, self.action_scale = (v.astype(np.float32) for v in action_affine(table))
        self._affine = torch.from_numpy(self.observation_shift), torch.from_numpy(self.observation_scale)
        self._same = not self.action_shift.any() and bool((self.action_scale == 1).all())

    def observation(self, raw: Tensor) -> Tensor:
        shift, scale = self._affine
        return torch.addcmul(shift, raw, scale)

    def action(self, scaled: np.ndarray) -> np.ndarray:
        return scaled if self._same else (scaled - self.action_shift) / self.action_scale
