"""A pruned policy in torch: a plain network whose removed weights are zeros.

policy = load("policy.safetensors")
action = policy(observation)  # [O] or [B, O], float32, in the environment's own units, as are the actions
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from safetensors import safe_open
from safetensors.torch import load_file


def load(path: str) -> Policy:
    """The policy in a file that `winnow export --format torch` wrote."""
    with safe_open(path, framework="pt") as file:
        head = file.metadata()
    state = load_file(path)
    weights = sorted((name for name in state if name.endswith(".weight")), key=lambda name: int(name.split(".")[1]))
    policy = Policy([tuple(state[name].shape) for name in weights], head["output"], head.get("network", "mlp"))
    policy.load_state_dict(state)
    policy.requires_grad_(False)
    return policy


class Policy(torch.nn.Module):
    """`shapes`: (out, in) of each layer; `output`: "tanh" or "clip", what takes the network to [-1, 1]; `network`: "mlp", "layer_norm"
    where hidden layers are normalized, or "simba", where layers 0, 2, 4, ... add to a stream, which is normalized for the next."""

    def __init__(self, shapes: Sequence[tuple[int, ...]], output: str, network: str = "mlp") -> None:
        super().__init__()
        modules: list[torch.nn.Module] = []
        self.residual = network == "simba"
        for index, (n_out, n_in) in enumerate(shapes):
            normal = torch.nn.LayerNorm(n_out, eps=1e-6, elementwise_affine=False)
            hidden = torch.nn.Sequential(torch.nn.ReLU(), normal) if network == "layer_norm" else torch.nn.ReLU()
            modules += [torch.nn.Linear(n_in, n_out), normal if self.residual and index % 2 == 0 else hidden]
        modules[-1] = torch.nn.Tanh() if output == "tanh" else torch.nn.Hardtanh()
        self.network = torch.nn.Sequential(*modules)
        self.observation_shift, self.observation_scale = (torch.nn.Buffer(torch.ones(shapes[0][1])) for _ in range(2))
        self.action_shift, self.action_scale = (torch.nn.Buffer(torch.ones(shapes[-1][0])) for _ in range(2))

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        scaled = observation * self.observation_scale + self.observation_shift
        output, stream = scaled, torch.zeros_like(scaled[..., :1])
        for index, module in enumerate(self.network):
            output = module(output)
            if self.residual and index % 4 == 0:
                output = stream = output + stream
        return (output - self.action_shift) / self.action_scale
