"""The options of training that any algorithm takes: their choices."""

from __future__ import annotations

# The default comes first.
TRAINING_CHOICES: dict[str, tuple[str, ...]] = {
    "initialization": ("torch", "xavier"),  # weights as torch.nn.Linear draws them, or Xavier-normal; biases are torch's
    "timeouts": ("bootstrap", "terminal"),  # a cut-off episode goes on for the value, or has ended there, as in the authors' code
}
