"""SAC-N: SAC whose target and policy see the minimum of many critics (An et al. 2021, arXiv 2110.01548); EDAC without diversity.

What EDAC's file says of initial weights and of the order of steps holds here, too.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from trainables.agent import Agent, Batch
from trainables.algorithms.edac import act, actor_losses, networks, squared_errors, td_target

TITLE = "SAC-N"
__all__ = ["act", "networks"]  # EDAC's, of the same paper


@dataclass(frozen=True)
class Hyper:
    hidden: tuple[int, ...] = (256, 256, 256)  # snu-mllab/EDAC; CORL
    batch_size: int = 256  # the paper, appendix; CORL
    learning_rate: float = 3e-4  # the paper, appendix; CORL: actor, critics and the entropy's weight
    discount: float = 0.99  # the paper, appendix
    tau: float = 0.005  # the paper, appendix
    critics: int = 10  # the paper, appendix: halfcheetah; hopper up to 500, walker2d up to 100 (trial/published.py)
    log_std_min: float = -5.0  # CORL
    log_std_max: float = 2.0  # CORL


RANGES = {"critics": "[2, inf)"}
NORMALIZE = False  # CORL
LEARNING_RATES = {"actor": "learning_rate", "critic": "learning_rate"}
TARGETS = ("critic",)


def critic_loss(agent: Agent, batch: Batch) -> Tensor:
    """Sum over the N critics of the mean squared TD error towards their minimum, [K]."""
    target = td_target(agent, batch)
    return squared_errors(agent.critic(batch.observations, batch.actions), target)


LOSSES = {"actor": lambda agent, batch: actor_losses(agent, batch)[0], "critic": critic_loss}


def update(agent: Agent, batch: Batch) -> dict[str, Tensor]:
    actor, entropy = actor_losses(agent, batch)
    agent.minimize(actor=actor + entropy)
    critic = critic_loss(agent, batch)
    agent.minimize(critic=critic)
    agent.track("critic")
    return {"actor_loss": actor, "entropy_loss": entropy, "critic_loss": critic}
