"""Trials (cells of the grid) and stacks (trials trained as one batched model). No torch."""

from trainables.trial.trial import (
    BREAK_EVEN,
    CALIBRATION,
    CHOICES,
    MAPPINGS,
    UNCONTROLLED,
    Stack,
    Trial,
    company,
    comparison,
    options_of,
    shape_of,
)

__all__ = [
    "BREAK_EVEN",
    "CALIBRATION",
    "CHOICES",
    "MAPPINGS",
    "UNCONTROLLED",
    "Stack",
    "Trial",
    "company",
    "comparison",
    "options_of",
    "shape_of",
]
