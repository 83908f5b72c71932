"""Pruning at initialization for any torch module and any training code; needs torch and numpy only.

    from trainables.library import prune_at_init

    masks = prune_at_init({"actor": actor, "critic": [q1, q2]}, {"actor": actor_loss, "critic": critic_loss}, batches, density=0.05)

and then train as usual. The masks hold by themselves: removed weights are exactly 0, and a hook makes their gradients exactly 0, so any
torch optimizer that starts from fresh state (Adam, AdamW, SGD with momentum, with or without weight decay) leaves them at 0. What brings
one back to life raises an error. docs/library.md has the rest: checkpoints, copies, torch.compile, plain modules at the end.
"""

from trainables.library.masks import Masks
from trainables.library.prune import PRUNERS, prune_at_init

__all__ = ["PRUNERS", "Masks", "prune_at_init"]
