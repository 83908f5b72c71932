"""One file = one pruner, found by its file name. It defines `saliency`, or `shrink` in its place, and any of the others:

| name | what it is |
|---|---|
| `saliency(network)` | a score per weight, high = keep, as one tensor [K, C, out, in] per layer; `network` is a `Scored` |
| `shrink(spec, density)` | in place of everything below: a smaller network (MLP) and no mask |
| `WITHOUT_LOSS = True` | the scores use no loss, so calibration data change nothing |
| `CHAIN = True` | the scores need fully connected layers in a row: `prune_at_init` refuses other modules, and a trial other networks |
| `schedule(density)` | the density after each round, in several rounds; each scores the network pruned so far |
| `REGROWS = True` | with a schedule: a later round may bring back a removed weight |
| `budgets(spec, density)` | weights kept per layer; without it, the trial's scope says within what weights are ranked |
| `EVEN = True` | those budgets are the same density in every layer, so `structure` may take their place |
| `mask_schedule(updates)` | changes masks during training, at these updates: update -> a share of weights (see below) |
| `growth(network)` | a score per weight, high = let it grow, for masks that move |
| `RESCORES = True` | masks that are chosen anew by `saliency` during training |
| `REWINDS = True` | with budgets: after each change, what is left begins again with its first values |
| `SETTINGS = {"delta": 1000}` | numbers that a trial may change: arguments of `mask_schedule`; RANGES as in algorithms/ |
| `n_step`, `n_step_from` in SETTINGS | from that share of the updates on, TD targets have at least so many steps |
| `TITLE = "SNIP"` | its name as papers write it; without it, the file's name |

With a `mask_schedule` and `budgets` alone, a trial starts dense, and the share is that of all weights to be removed that are gone from this
update on (with REWINDS, the share of the changes that are made). With `growth`, it starts from a mask, and the share of each layer's kept
weights, the smallest ones, makes room for others. With RESCORES, it starts from a mask, and the share means nothing.

They are read from the source without importing the file (trainables/trial/pruner_traits.py), so define them at its top level.
"""

from trainables.pruning.scored import Scored

__all__ = ["Scored"]
