"""Small dense: a control that masks nothing. Narrower hidden layers give as many weights as pruning leaves (Frankle et al. 2021)."""

from trainables.pruning.narrow import shrink

__all__ = ["shrink"]

TITLE = "Small dense"
