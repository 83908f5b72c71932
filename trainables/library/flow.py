"""A module's outputs for other weights than its own, for pruners that need no data."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from trainables.errors import UserError

# What the linear network of SynFlow does not have: activations, normalization, dropout.
# fmt: off
PASSED = {
    "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "softplus", "softsign", "tanh",
    "sigmoid", "hardtanh", "hardsigmoid", "hardswish", "logsigmoid", "clamp", "clip", "layer_norm", "batch_norm",
    "group_norm", "instance_norm", "rms_norm", "dropout",
}
UNSUITED = {
    "softmax", "log_softmax", "scaled_dot_product_attention", "multi_head_attention_forward", "lstm", "gru",
    "rnn_tanh", "rnn_relu",
}
# fmt: on


class Linear(TorchFunctionMode):
    """Makes every module a linear one: what is PASSED returns its input."""

    def __torch_function__(self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        name = getattr(function, "__name__", "").removesuffix("_")  # relu_ is relu in place
        if name in UNSUITED:
            raise UserError(f"{name} cannot be made linear, as SynFlow needs")
        if name in PASSED:
            return args[0] if args else (kwargs or {})["input"]
        return function(*args, **(kwargs or {}))


def outputs(module: nn.Module, inputs: Sequence[Tensor], value: Callable[[str, Tensor], Tensor]) -> Tensor:
    """The module's outputs [B, units] in float64, in evaluation mode, with the value of each of its parameters by `value`."""
    for name, layer in module.named_modules():
        if isinstance(layer, nn.RNNBase):
            raise UserError(f"{name!r} ({type(layer).__name__}) reads its weights from a list of its own; such layers are pruned by a loss")
    state: dict[str, Tensor] = {name: buffer.double() if buffer.is_floating_point() else buffer for name, buffer in module.named_buffers()}
    state |= {name: value(name, parameter).double() for name, parameter in module.named_parameters()}
    training = [layer for layer in module.modules() if layer.training]
    module.eval()
    try:
        found = torch.func.functional_call(module, state, tuple(given.double() for given in inputs))
    finally:
        for layer in training:
            layer.training = True
    tensors = [found] if isinstance(found, Tensor) else found
    if not isinstance(tensors, list | tuple) or not all(isinstance(tensor, Tensor) for tensor in tensors):
        raise UserError(f"a module's output is {type(found).__name__}; to be pruned without a loss, it needs to return tensors")
    return torch.cat([tensor.flatten(1) for tensor in tensors], dim=1)


def split(rows: Tensor, examples: Sequence[Tensor]) -> list[Tensor]:
    """Rows [B, numbers] as inputs in the shapes of the examples, which have a batch axis, too."""
    parts = rows.split([math.prod(example.shape[1:]) for example in examples], dim=1)
    return [part.reshape(len(rows), *example.shape[1:]) for part, example in zip(parts, examples, strict=True)]
