"""Statistics of masks: densities, live units and inputs, size and cost, and how alike two masks are. Plain numbers, ready for JSON.

    python -m trainables.pruning.mask_statistics MASKS.safetensors MASKS.safetensors ...     Jaccard overlap of every pair, per network

A pruned network is counted in four ways: `dense`, as if nothing were pruned; `nominal`, directly, the weights that the mask keeps;
`effective`, the weights that lie on a path from input to output; `compact`, dense matrices between the units that lie on one. Biases, gains
and shifts count as parameters: those of all units in `dense` and `nominal`, those of live units in the others. Parameters that belong to no
unit (a log standard deviation) always count.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainables.errors import UserError
from trainables.tensors.mask import Mask, between, live_units, unpacked, useful_units
from trainables.tensors.mlp import MLP

QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.95, 1.0)
Quantiles = dict[tuple[int, str], list[list[float]]]  # (member, network) -> per layer, the QUANTILES of its scores
FRAGILE = 8  # live units of a hidden layer: with fewer, each carries much
WORD = 4  # bytes of a number


def describe(spec: MLP, mask: Mask, inputs: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The statistics of a network's mask, per member; `inputs` are the names of its inputs.

    Copies are counted together: an input is live if any copy sees it. A unit is live if it lies on a path."""
    alive = live_units(mask, spec.residual)
    path = between(mask, alive)
    names = list(inputs) or [str(i) for i in range(spec.sizes[0])]
    members = range(len(mask[0]))
    return [_describe(spec, [m[k] for m in mask], [p[k] for p in path], [a[k] for a in alive], names) for k in members]


def _describe(spec: MLP, mask: Mask, path: Mask, alive: list[Tensor], names: list[str]) -> dict[str, Any]:
    """One member; layers [C, out, in], and live units [C, units] of the inputs and of each layer."""
    kept, live = [int(layer.sum()) for layer in mask], [int(layer.sum()) for layer in path]
    sees, out_of = alive[0].any(0), alive[-1]
    units = [[int(copy.sum()) for copy in layer] for layer in alive]
    fewest = [min(layer) for layer in units[1:-1]]  # live units of a hidden layer, in the copy that has fewest
    compact = sum(a * b for copies in itertools.pairwise(units) for a, b in zip(*copies, strict=True))
    beside, live_beside = _beside_weights(spec, [spec.copies * n for n in spec.sizes[1:]]), _beside_weights(spec, list(map(sum, units[1:])))
    weights = {"dense": sum(spec.weights_per_layer), "nominal": sum(kept), "effective": sum(live), "compact": compact}
    parameters = {name: count + (beside if name in ("dense", "nominal") else live_beside) for name, count in weights.items()}
    bits = -(-weights["dense"] // 8)
    layers = [
        {
            "weights": layer.numel(), "kept": kept[i], "density": kept[i] / layer.numel(), "effective_density": live[i] / layer.numel(),
            "units": spec.copies * spec.sizes[i + 1], "live_units": sum(units[i + 1]),
        }
        for i, layer in enumerate(mask)
    ]  # fmt: skip
    return {
        "density": weights["nominal"] / weights["dense"],
        "effective_density": weights["effective"] / weights["dense"],
        "kept": weights["nominal"],
        "live_inputs": int(sees.sum()),
        "unseen_inputs": [name for name, seen in zip(names, sees.tolist(), strict=True) if not seen],
        "live_units": sum(sum(layer) for layer in units[1:-1]),
        "outputs_without_a_path": [index for index, alive in enumerate(out_of.all(0).tolist()) if not alive],
        "paths_end_in": _ends(spec, mask, out_of),
        "fewest_live_units": min(fewest, default=None),
        "layer_of_fewest": fewest.index(min(fewest)) if fewest else None,
        "fewest_units": min(spec.sizes[1:-1], default=None),
        "parameters": parameters,
        "bytes": {
            n: WORD * c + (bits if n in ("nominal", "effective") else 0) for n, c in parameters.items()
        },  # values and one bit a weight
        "flops": {name: 2 * count for name, count in weights.items()},  # of one observation: a multiplication and an addition a weight
        "layers": layers,
    }


def _ends(spec: MLP, mask: Mask, alive: Tensor) -> list[int]:
    """The layers in which paths back from the outputs [C, out] that are not alive end: none of their kept weights leads there."""
    ends = set()
    # Past a block, the stream goes on, so that its paths end in the first or in the last layer.
    inner = (len(mask) - 1,) if spec.residual else range(1, len(mask))
    for copy, output in (~alive).nonzero().tolist():
        alone = [layer[copy : copy + 1] for layer in mask[:-1]] + [mask[-1][copy : copy + 1, output : output + 1]]
        leading = useful_units(alone, spec.residual)
        ends.add(max((index for index in inner if not leading[index].any()), default=0))
    return sorted(ends)


def _beside_weights(spec: MLP, units: Sequence[int]) -> int:
    """Parameters other than weights, for so many units per layer: their biases, gains and shifts of normalized layers, and the extras."""
    return sum(units) + 2 * sum(units[index] for index in spec.normalized) + sum(spec.extra.values())


def metrics(described: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """The scalars worth a curve and a column, by `mask/<what>/<network>`; the artifact masks.json has the rest."""
    return {
        f"mask/{what}/{network}": float(about[what])
        for network, about in described.items()
        for what in ("density", "effective_density", "live_units", "live_inputs")
    }


def warnings(described: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What makes a network fragile, a sentence each; usually none."""
    sentences = []
    for network, about in described.items():
        if about["outputs_without_a_path"]:
            layers = " or ".join(f"{network}.{index}" for index in about["paths_end_in"])
            sentences.append(
                f"{network}: no path leads to outputs {about['outputs_without_a_path']}, which are constants: "
                f"no kept weight of layer {layers} leads there"
            )
        fewest = about["fewest_live_units"]
        if fewest is not None and fewest < FRAGILE <= about["fewest_units"]:
            sentences.append(f"{network}: hidden layer {network}.{about['layer_of_fewest']} has {fewest} live units left")
        if about["effective_density"] < 0.5 * about["density"]:
            sentences.append(
                f"{network}: {100 * (1 - about['effective_density'] / about['density']):.0f} % of the kept weights lie on no path"
            )
    return sentences


def quantiles(saliency: Tensor) -> list[float]:
    """QUANTILES of a layer's finite scores."""
    finite = saliency.flatten().double()
    finite = finite[torch.isfinite(finite)].sort().values
    return [float(finite[round(q * (len(finite) - 1))]) for q in QUANTILES] if len(finite) else []


def jaccard(first: Mask, second: Mask) -> float:
    """Weights that both keep over weights that either keeps; 1 for equal masks, about d / (2 - d) for random ones of density d."""
    both = sum(float((a * b).sum()) for a, b in zip(first, second, strict=True))
    either = sum(float(((a + b) > 0).sum()) for a, b in zip(first, second, strict=True))
    return both / either if either else 1.0


def read_masks(path: Path) -> dict[str, Mask]:
    """The masks of a trial from its artifact, layers [1, C, out, in]; raises UserError for any other file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            shapes = json.loads(file.metadata()["shapes"])
            return {name: _from_bits(file.get_tensor(name), layers) for name, layers in shapes.items()}
    except (OSError, SafetensorError, AttributeError, KeyError, TypeError, ValueError, UserError) as error:
        raise UserError(f"{path} is not a trial's masks.safetensors: {error}") from None


def _from_bits(bits: Tensor, layers: Sequence[Sequence[int]]) -> Mask:
    """A network's mask from its bits and the shape (C, out, in) of each layer."""
    sizes = [c * n_out * n_in for c, n_out, n_in in layers]
    flat = unpacked(bits, sum(sizes)).float()
    return [part.reshape(1, *shape) for part, shape in zip(flat.split(sizes), layers, strict=True)]


def main(arguments: Sequence[str]) -> int:
    """Print the overlap of every pair of files, per network; exit code 2 for files that cannot be compared."""
    try:
        if len(arguments) < 2:
            raise UserError("give two or more masks.safetensors files")
        masks = [read_masks(Path(argument)) for argument in arguments]
        for (first, a), (second, b) in itertools.combinations(zip(arguments, masks, strict=True), 2):
            if {n: [m.shape for m in mask] for n, mask in a.items()} != {n: [m.shape for m in mask] for n, mask in b.items()}:
                raise UserError(f"{first} and {second} are of different networks")
            print(f"{first} {second}: " + "  ".join(f"{name} {jaccard(a[name], b[name]):.3f}" for name in a))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
