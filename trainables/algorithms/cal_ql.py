"""Cal-QL, its offline part: CQL that pushes no value of the policy below the data's return (Nakamoto et al. 2023, arXiv 2303.05479).

Initial weights are torch's and not those of the authors' code (docs/methods.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trainables.agent import Agent, Batch
from trainables.algorithms.cql import act, actor_losses, conservative, networks, values

TITLE = "Cal-QL"
__all__ = ["act", "networks"]  # CQL's


@dataclass(frozen=True)
class Hyper:
    hidden: tuple[int, ...] = (256, 256)  # nakamotoo/Cal-QL's default, actor and critic; twice as deep a critic for AntMaze
    batch_size: int = 256  # nakamotoo/Cal-QL
    actor_learning_rate: float = 1e-4  # nakamotoo/Cal-QL; also the entropy weight's
    critic_learning_rate: float = 3e-4  # nakamotoo/Cal-QL
    discount: float = 0.99  # nakamotoo/Cal-QL
    n_step: int = 1  # the same: steps of the TD target (docs/methods.md)
    tau: float = 0.005  # nakamotoo/Cal-QL
    alpha: float = 5.0  # nakamotoo/Cal-QL (cql_min_q_weight), fixed; for AntMaze it tunes a Lagrange multiplier
    temperature: float = 1.0  # nakamotoo/Cal-QL (cql_temp)
    samples: int = 10  # nakamotoo/Cal-QL; its targets take the best of as many next actions, here one is drawn, as in CQL
    log_std_offset: float = -1.0  # nakamotoo/Cal-QL, as an initial value that is trained; here the output's bias learns it
    log_std_min: float = -20.0  # nakamotoo/Cal-QL
    log_std_max: float = 2.0  # nakamotoo/Cal-QL


RANGES = {"alpha": "[0, inf)", "temperature": "(0, inf)"}
NORMALIZE = False  # nakamotoo/Cal-QL
RETURNS = True
LEARNING_RATES = {"actor": "actor_learning_rate", "critic": "critic_learning_rate"}
TARGETS = ("critic",)


def critic_loss(agent: Agent, batch: Batch) -> Tensor:
    """CQL's loss with max(Q, return) for the policy's actions, though not for the uniform ones, [K]."""
    q, log_density, target = values(agent, batch)
    assert batch.returns is not None, "RETURNS asks for them"
    returns = batch.returns(agent.hyper.discount)  # [K, B]
    others, proposed = q.split([1 + agent.hyper.samples, 2 * agent.hyper.samples], dim=2)
    calibrated = torch.maximum(proposed, returns[:, None, None])
    return conservative(agent, torch.cat([others, calibrated], dim=2), log_density, target)


LOSSES = {"actor": lambda agent, batch: actor_losses(agent, batch)[0], "critic": critic_loss}


def update(agent: Agent, batch: Batch) -> dict[str, Tensor]:
    # The order of nakamotoo/Cal-QL: both losses see the networks from before this update.
    actor, entropy = actor_losses(agent, batch)
    critic = critic_loss(agent, batch)
    agent.minimize(actor=actor + entropy, critic=critic)
    agent.track("critic")
    return {"actor_loss": actor, "entropy_loss": entropy, "critic_loss": critic}
