"""The networks that an algorithm file declares; they are defined in trainables/tensors/mlp.py."""

from trainables.tensors.mlp import MLP

__all__ = ["MLP"]
