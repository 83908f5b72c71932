"""Trials (cells of the grid) and stacks (trials trained as one batched model). No torch."""

from trainables.trial.checked import Checked, with_seed
from trainables.trial.pruning_options import CALIBRATION, CHOICES, UNCONTROLLED, options_of
from trainables.trial.stack import BREAK_EVEN, LARGEST, Stack, comparison, shape_of, stack_mates
from trainables.trial.training_options import REWARDS, TRAINING_CHOICES
from trainables.trial.trial import MAPPINGS, PLURALS, Trial

__all__ = [
    "BREAK_EVEN",
    "CALIBRATION",
    "CHOICES",
    "LARGEST",
    "MAPPINGS",
    "PLURALS",
    "REWARDS",
    "TRAINING_CHOICES",
    "UNCONTROLLED",
    "Checked",
    "Stack",
    "Trial",
    "comparison",
    "options_of",
    "shape_of",
    "stack_mates",
    "with_seed",
]
