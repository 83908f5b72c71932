"""One file = one pruner, found by its name; trainables/pruning/prune.py says what such a file defines."""

from trainables.pruning.prune import Scored

__all__ = ["Scored"]
