"""One file = one pruner, found by its file name. It defines `saliency`, or `shrink` in its place, and any of the others:

| name | what it is |
|---|---|
| `saliency(network)` | a score per weight, high = keep, as one tensor [K, C, out, in] per layer; `network` is a `Scored` |
| `shrink(spec, density)` | in place of everything below: a smaller network (MLP) and no mask |
| `WITHOUT_LOSS = True` | the scores use no loss, so calibration data change nothing |
| `schedule(density)` | the density after each round, in several rounds; each scores the network pruned so far |
| `REGROWS = True` | with a schedule: a later round may bring back a removed weight |
| `budgets(spec, density)` | weights kept per layer; without it, the trial's scope says within what weights are ranked |
| `mask_schedule(updates)` | with budgets, prunes during training: update -> share of all weights to be removed that are gone from then on |
| `TITLE = "SNIP"` | its name as papers write it; without it, the file's name |

They are read from the source without importing the file (trainables/trial/pruner_traits.py), so define them at its top level.
"""

from trainables.pruning.scored import Scored

__all__ = ["Scored"]
