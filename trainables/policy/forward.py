"""Two ways to compute a policy's network on [B, O]: numpy's matrix products, and the kernels of the sparse execution. No torch."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from trainables.native import build

Array = npt.NDArray[np.float32]
Layers = Sequence[tuple[Array, Array]]


def normalizes(network: str, index: int) -> bool:
    """Whether the hidden units that layer `index` makes are normalized; those that add to SimBa's stream are, and have no ReLU."""
    return network == "layer_norm" or (network == "simba" and index % 2 == 0)


def normalized(x: Array) -> Array:
    """(x - mean) / deviation over the units [B, H]."""
    x = x - x.mean(axis=1, keepdims=True)
    normal: Array = x / np.sqrt(np.square(x).mean(axis=1, keepdims=True) + np.float32(build.NORM_EPSILON))
    return normal


class Dense:
    """[B, O] -> [B, A], every weight multiplied."""

    def __init__(self, layers: Layers, output: str, network: str = "mlp") -> None:
        self.layers = [(np.ascontiguousarray(weight.T), bias) for weight, bias in layers]
        self.output, self.network = output, network

    def __call__(self, x: Array) -> Array:
        stream: Array | float = 0.0
        for index, (weight, bias) in enumerate(self.layers):
            x = x @ weight
            x += bias
            if index == len(self.layers) - 1:
                break
            if self.network == "simba" and index % 2 == 0:
                x += stream
                stream = x
            else:
                np.maximum(x, 0, out=x)
            x = normalized(x) if normalizes(self.network, index) else x
        return np.tanh(x, out=x) if self.output == "tanh" else np.clip(x, -1, 1, out=x)


class Kept:
    """[B, O] -> [B, A], only the weights that are not zero; see kernels.c for the layout. Not thread-safe."""

    def __init__(self, layers: Layers, output: str, network: str = "mlp") -> None:
        self.library, self.output, self.inputs, self.outputs = build.library(), output, layers[0][0].shape[1], len(layers[-1][1])
        groups = [np.concatenate([bias[:, None], weight], axis=1) for weight, bias in layers]
        kept = [np.insert(group[:, 1:] != 0, 0, True, axis=1) for group in groups]  # column 0: the bias
        self.values = np.concatenate([group[mask] for group, mask in zip(groups, kept, strict=True)])
        self.column = np.concatenate([mask.nonzero()[1] for mask in kept]).astype(np.int32) * build.TILE
        ends = np.cumsum([0, *(int(mask.sum()) for mask in kept)])
        self.starts = [(end + np.concatenate([[0], mask.sum(1).cumsum()])).astype(np.int32) for end, mask in zip(ends, kept, strict=False)]
        heights = [1 + len(bias) + 2 * normalizes(network, index) for index, (_, bias) in enumerate(layers)]
        self.offset = (np.cumsum([1 + self.inputs, *heights]) * build.TILE).astype(np.int32)
        self.tile = np.zeros(self.offset[-1], np.float32)
        self.stream = np.zeros(max(len(bias) for _, bias in layers) * build.TILE, np.float32)
        self.layers = (build.LayerStruct * len(layers))()
        for layer, start in zip(self.layers, self.starts, strict=True):
            layer.outputs, layer.start = len(start) - 1, start.ctypes.data
        self.network = build.NetworkStruct(
            members=1, copies=1, depth=len(layers), features=self.inputs, outputs=self.outputs, values=len(self.values),
            tanh=output == "tanh", norm=0 if network == "mlp" else build.NORM_EPSILON, residual=network == "simba", tile=len(self.tile),
            column=self.column.ctypes.data, offset=self.offset.ctypes.data, layers=ctypes.addressof(self.layers),
        )  # fmt: skip
        self.addresses = ctypes.addressof(self.network), self.values.ctypes.data, self.tile.ctypes.data, self.stream.ctypes.data

    def __call__(self, x: Array) -> Array:
        network, values, tile, stream = self.addresses
        batch = len(x)
        x, out = np.ascontiguousarray(x), np.empty((batch, self.outputs), np.float32)
        part = (ctypes.c_int64 * 4)(x.ctypes.data, batch * self.inputs, self.inputs, self.inputs)
        self.library.winnow_forward(network, values, 1, part, batch, -1, 0, tile, out.ctypes.data, stream)
        return out if self.output == "tanh" else np.clip(out, -1, 1, out=out)
