"""A pruned policy in torch: a plain network whose removed weights are zeros.

policy = load("policy.safetensors")
action = policy(observation)  # [O] or [B, O], float32, in the environment's own units, as are the actions
"""

import torch
from safetensors import safe_open
from safetensors.torch import load_file


def load(path):
    """The policy in a file that `python -m service export --format torch` wrote."""
    with safe_open(path, framework="pt") as file:
        output = file.metadata()["output"]
    state = load_file(path)
    policy = Policy([tuple(value.shape) for name, value in state.items() if name.endswith(".weight")], output)
    policy.load_state_dict(state)
    return policy.requires_grad_(False)


class Policy(torch.nn.Module):
    """`shapes`: (out, in) of each layer; `output`: "tanh" or "clip", what takes the network to [-1, 1]."""

    def __init__(self, shapes, output):
        super().__init__()
        modules = [module for n_out, n_in in shapes for module in (torch.nn.Linear(n_in, n_out), torch.nn.ReLU())]
        modules[-1] = torch.nn.Tanh() if output == "tanh" else torch.nn.Hardtanh()
        self.network = torch.nn.Sequential(*modules)
        for name, size in (("observation", shapes[0][1]), ("action", shapes[-1][0])):
            self.register_buffer(f"{name}_shift", torch.zeros(size))
            self.register_buffer(f"{name}_scale", torch.ones(size))

    def forward(self, observation):
        scaled = observation * self.observation_scale + self.observation_shift
        return (self.network(scaled) - self.action_shift) / self.action_scale
