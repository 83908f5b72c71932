"""A policy as an ONNX model: observation [batch, O] in, action [batch, A] out, both in the environment's own units. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainables.errors import UserError
from trainables.native.build import NORM_EPSILON
from trainables.policy.forward import normalizes
from trainables.policy.policy import Policy, write

OPSET, IR_VERSION = 17, 8  # of 2022, so that older runtimes read it too


def to_onnx(policy: Policy, path: str | Path) -> None:
    """Write the layers as they are (take `policy.to("compact")` for fewer units); ONNX has no sparse product, so zeros are kept.

    Raises UserError where the package `onnx` (the extra `export`) is missing.
    """
    try:
        from onnx import TensorProto, helper, numpy_helper
    except ImportError:
        raise UserError("ONNX export needs the package 'onnx': pip install 'winnow-rl[export]'") from None
    nodes: list[Any] = []
    constants: list[Any] = []

    def node(kind: str, *inputs: str | npt.NDArray[np.float32] | float, **attributes: Any) -> str:
        names = []
        for value in inputs:
            if not isinstance(value, str):
                constants.append(numpy_helper.from_array(np.asarray(value, np.float32), f"constant.{len(constants)}"))
                value = constants[-1].name
            names.append(value)
        nodes.append(helper.make_node(kind, names, [f"{kind.lower()}.{len(nodes)}"], **attributes))
        return str(nodes[-1].output[0])

    x = node("Mul", "observation", policy.scaling["observation_scale"])
    x = node("Add", x, policy.scaling["observation_shift"])
    stream = ""
    for index, (weight, bias) in enumerate(policy.layers):
        x = node("Gemm", x, weight, bias, transB=1)
        if index == len(policy.layers) - 1:
            break
        if policy.network == "simba" and index % 2 == 0:
            x = stream = node("Add", stream, x) if stream else x
        else:
            x = node("Relu", x)
        if normalizes(policy.network, index):
            x = node("LayerNormalization", x, np.ones(len(bias), np.float32), axis=-1, epsilon=NORM_EPSILON)
    x = node("Tanh", x) if policy.output == "tanh" else node("Clip", x, -1.0, 1.0)
    x = node("Sub", x, policy.scaling["action_shift"])
    x = node("Div", x, policy.scaling["action_scale"])
    nodes[-1].output[0] = "action"
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size])
        for name, size in (("observation", policy.sizes[0]), ("action", policy.sizes[-1]))
    ]
    graph = helper.make_graph(nodes, "policy", ends[:1], ends[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="winnow")
    write(path, model.SerializeToString())
