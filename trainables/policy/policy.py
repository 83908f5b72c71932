"""Runs a trained policy without torch: with numpy, or with the C kernels where only the kept weights are computed.

    act = load_policy("storage/trials/3f0c9d2e5a7b1c48")   # the folder of a finished trial, or a file of save_policy
    action = act(observation)                              # the environment's own units; one observation or a batch of them

Formats, of the same function to 1e-6 (1e-5 where activations are normalized): `dense` every weight; `compact` without the hidden units
that cannot change the action; `csr` the kept weights of `compact` alone, with the smallest indices that fit.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as dump_tensors

from trainables.errors import UserError, unknown
from trainables.native import build
from trainables.policy import forward
from trainables.storage import files

Array = npt.NDArray[np.float32]
Layers = tuple[tuple[Array, Array], ...]

FORMATS = ("dense", "compact", "csr")
CLOSE = 1e-3  # to the actions of training, of -1 to 1
SCALINGS = ("observation_shift", "observation_scale", "action_shift", "action_scale")


@dataclass(frozen=True, eq=False)
class Policy:
    """A deterministic policy: observations [O] or [B, O] in, actions [A] or [B, A] out, both in the environment's own units.

    layers   (weights [out, in], bias [out]) of a ReLU network, float32
    network  "mlp", "layer_norm" or "simba" (tensors/mlp.py); gains and shifts of normalized layers are part of the layers that follow
    output   "tanh" or "clip": what takes its output to [-1, 1]
    scaling  observation_shift + observation_scale x observation goes in; (output - action_shift) / action_scale comes out
    about    where it comes from: the trial, its key, the environment, the dataset's hash
    """

    layers: Layers
    output: str
    scaling: Mapping[str, Array]
    about: Mapping[str, Any] = field(default_factory=dict)
    format: str = "dense"
    network: str = "mlp"

    def __call__(self, observation: npt.ArrayLike) -> Array:
        """Actions, float32. Raises ValueError for observations of another size."""
        seen = np.asarray(observation, np.float32)
        if seen.ndim not in (1, 2) or seen.shape[-1] != self.sizes[0]:
            raise ValueError(f"an observation [{self.sizes[0]}] or a batch [B, {self.sizes[0]}] expected, got {list(seen.shape)}")
        scaled = seen * self.scaling["observation_scale"]
        scaled += self.scaling["observation_shift"]
        action = self._forward(scaled if seen.ndim == 2 else scaled[None])
        action -= self.scaling["action_shift"]
        action /= self.scaling["action_scale"]
        return action if seen.ndim == 2 else action[0]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Units per layer, inputs first."""
        return (self.layers[0][0].shape[1], *(len(bias) for _, bias in self.layers))

    def to(self, format: str) -> Policy:
        """The same policy in another of FORMATS. What is left out is gone: `dense` from `compact` is as small as `compact`."""
        if format not in FORMATS:
            raise unknown("policy format", format, FORMATS)
        return replace(self, layers=self.layers if format == "dense" else compact(self.layers, self.network), format=format)

    @cached_property
    def _forward(self) -> Callable[[Array], Array]:
        if self.format == "csr" and build.available():
            return forward.Kept(self.layers, self.output, self.network)
        return forward.Dense(self.layers, self.output, self.network)


def compact(layers: Layers, network: str = "mlp") -> Layers:
    """The same function with fewer hidden units. A unit without inputs is a constant and goes into the biases above it; one from
    which no path leads to the output goes. Exact but for the rounding of the new biases. Units that are normalized all count, and stay."""
    smaller = list(layers)
    free = [index for index in range(len(smaller) - 1) if not forward.normalizes(network, index)]
    for index in free:
        (weight, bias), (above, bias_above) = smaller[index : index + 2]
        fed = weight.any(1)
        constant = above[:, ~fed].astype(np.float64) @ np.maximum(bias[~fed], 0)
        smaller[index : index + 2] = (weight[fed], bias[fed]), (above[:, fed], (bias_above + constant).astype(np.float32))
    for index in reversed(free):
        (weight, bias), (above, bias_above) = smaller[index : index + 2]
        used = above.any(0)
        smaller[index : index + 2] = (weight[used], bias[used]), (above[:, used], bias_above)
    return tuple((np.ascontiguousarray(weight), bias) for weight, bias in smaller)


def save_policy(policy: Policy, path: str | Path, format: str | None = None) -> None:
    """Write one safetensors file in `format` (default: the policy's own), whole or not at all."""
    policy = policy if format is None else policy.to(format)
    tensors = {name: np.asarray(value, np.float32) for name, value in policy.scaling.items()}
    for index, (weight, bias) in enumerate(policy.layers):
        tensors[f"bias.{index}"] = bias
        tensors |= {f"{name}.{index}": part for name, part in (_csr(weight) if policy.format == "csr" else {"weight": weight}).items()}
    head = {"format": policy.format, "output": policy.output, "inputs": [weight.shape[1] for weight, _ in policy.layers]}
    head |= {"network": policy.network} if policy.network != "mlp" else {}
    content = dump_tensors(tensors, metadata={"policy": json.dumps(head | {"about": dict(policy.about)})})
    write(path, content)


def write(path: str | Path, content: bytes) -> None:
    """Write a file whole or not at all; raises UserError if it cannot be written."""
    path = Path(path)
    try:
        path.parent.stat()  # a missing folder may be a typo, so it is not created
        files.write(path, content)
    except OSError as error:
        raise UserError(f"cannot write the policy to {str(path)!r} ({error.strerror})") from None


def load_policy(path: str | Path) -> Policy:
    """The policy of a finished trial (its folder, or the policy.safetensors there) or of a file that `save_policy` wrote.

    Raises UserError where there is none, and for an algorithm whose policy is more than one plain network.
    """
    path = Path(path)
    file = path / "policy.safetensors" if path.is_dir() else path
    try:
        with safe_open(file, framework="numpy") as opened:
            tensors = {name: opened.get_tensor(name) for name in sorted(opened.keys())}
            head = json.loads((opened.metadata() or {}).get("policy", "null"))
        return _from_trial(tensors, json.loads(file.with_suffix(".json").read_text())) if head is None else _from_file(tensors, head)
    except FileNotFoundError as error:
        raise UserError(f"no policy at {str(path)!r}: there is no {error.filename or file}; a trial has one when it is finished") from None
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{str(file)!r} is not a policy ({error})") from None


def _from_trial(tensors: Mapping[str, npt.NDArray[Any]], head: Mapping[str, Any]) -> Policy:
    """From the canonical tensors of trainables/training/files_of_trial.py and the JSON beside them.

    How the network's output becomes an action is seen from its shape: tanh where the network ends in it; else A outputs are
    clipped, and of 2 A outputs, the mean and the log deviation of a squashed Gaussian, the mean's are taken and squashed.
    """
    scaling = {name: tensors[name] for name in SCALINGS}
    observation_size, action_size = len(scaling["observation_shift"]), len(scaling["action_shift"])
    trial, sizes = head["trial"]["algorithm"], head["sizes"]
    if head.get("others") or sizes[0] != observation_size or sizes[-1] not in (action_size, 2 * action_size):
        raise UserError(f"{trial}'s policy is more than a network from {observation_size} observations to {action_size} actions: {sizes}")
    layers = [_folded(tensors, i) for i in range(len(sizes) - 1)]
    network = head["trial"].get("network", "mlp")
    if network == "mlp" and "gain.0" in tensors:
        network = "layer_norm"  # of the algorithm's own
    output = "tanh" if head["output"] == "tanh" or sizes[-1] == 2 * action_size else "clip"
    weight, bias = layers[-1]
    layers[-1] = weight[:action_size], bias[:action_size]
    about = {name: value for name, value in head.items() if name not in ("sizes", "output", "probe")}
    policy = Policy(tuple(layers), output, scaling, about, network=network)
    if "probe" in head:
        _check(policy, head["probe"], trial)
    return policy


def _check(policy: Policy, probe: Mapping[str, Any], algorithm: str) -> None:
    """Raise UserError where the network does not act as the algorithm of somebody else's file did in training."""
    apart = (policy(probe["observations"]) - np.asarray(probe["actions"], np.float32)) * policy.scaling["action_scale"]
    if not (furthest := float(np.abs(apart).max())) <= CLOSE:
        raise UserError(
            f"{algorithm}'s policy is not its actor's network alone: on a few observations the two are up to {furthest:.2g} apart, with "
            "actions from -1 to 1; docs/your-own.md says which policies can be exported"
        )


def _folded(tensors: Mapping[str, npt.NDArray[Any]], index: int) -> tuple[Array, Array]:
    """Weights and bias of a layer, with the gain and the shift of the normalized one below it, if it is that."""
    weight, bias = tensors[f"weight.{index}"][0], tensors[f"bias.{index}"][0]
    if f"gain.{index - 1}" not in tensors:
        return weight, bias
    gain, shift = tensors[f"gain.{index - 1}"][0], tensors[f"shift.{index - 1}"][0]
    return weight * (1 + gain), (bias + weight.astype(np.float64) @ shift).astype(np.float32)


def _from_file(tensors: Mapping[str, npt.NDArray[Any]], head: Mapping[str, Any]) -> Policy:
    layers = []
    for index, inputs in enumerate(head["inputs"]):
        if head["format"] == "csr":
            weight = _uncsr(tensors[f"value.{index}"], tensors[f"column.{index}"], tensors[f"count.{index}"], inputs)
        else:
            weight = tensors[f"weight.{index}"]
        layers.append((weight, tensors[f"bias.{index}"]))
    scaling = {name: tensors[name] for name in SCALINGS}
    return Policy(tuple(layers), head["output"], scaling, head["about"], head["format"], head.get("network", "mlp"))


def _csr(weight: Array) -> dict[str, npt.NDArray[Any]]:
    """Values and columns of the kept weights, row after row, and how many each row has."""
    rows, columns = weight.nonzero()
    counts = np.bincount(rows, minlength=len(weight))
    smallest = [part.astype(np.min_scalar_type(part.max(initial=0))) for part in (columns, counts)]
    return {"value": weight[rows, columns], "column": smallest[0], "count": smallest[1]}


def _uncsr(values: Array, columns: npt.NDArray[Any], counts: npt.NDArray[Any], inputs: int) -> Array:
    weight = np.zeros((len(counts), inputs), np.float32)
    weight[np.arange(len(counts)).repeat(counts), columns] = values
    return weight
