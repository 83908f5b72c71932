"""The peer: one of d3rlpy's algorithms, dense, trained with our settings. Runs in its own virtual environment (it pins another gymnasium).

    python peer_scores.py TABLE.npz ALGORITHM UPDATES SEED HYPER POLICY.pt     # writes the greedy policy, a function of raw observations

HYPER is the JSON of our trial's hyperparameters; ReBRAC's two weights are taken from it, they differ between datasets.
What d3rlpy has no setting for stays its own: AWAC's weights are a softmax over the batch, BCQ scores as many generated actions for acting
as for the target (ten; we act with a hundred), CQL's and Cal-QL's targets take the policy's mean for the next action, ReBRAC's and AWAC's
networks are initialized in other ways.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import d3rlpy
import numpy as np
import torch
from d3rlpy.algos import AWACConfig, BCConfig, BCQConfig, CalQLConfig, CQLConfig, IQLConfig, ReBRACConfig, SACConfig, TD3PlusBCConfig
from d3rlpy.dataset import MultiStepTransitionPicker
from d3rlpy.logging import NoopAdapterFactory
from d3rlpy.models.encoders import VectorEncoderFactory
from d3rlpy.optimizers import AdamFactory
from d3rlpy.optimizers.lr_schedulers import CosineAnnealingLRFactory
from d3rlpy.preprocessing import StandardObservationScaler


def config(algorithm: str, updates: int, hyper: dict[str, Any]) -> Any:
    """Ours, in d3rlpy's words (trainables/algorithms/ says where each number is from)."""
    scaled: dict[str, Any] = {"observation_scaler": StandardObservationScaler()}
    three = VectorEncoderFactory([256, 256, 256])
    deep = {"actor_encoder_factory": three, "critic_encoder_factory": three}
    own = {f"{network}_encoder_factory": VectorEncoderFactory(list(hyper["hidden"])) for network in ("actor", "critic")}
    match algorithm:
        case "bc":
            return BCConfig(batch_size=256, learning_rate=3e-4, **scaled)
        case "td3_bc":
            return TD3PlusBCConfig(**scaled)
        case "iql":
            falling = AdamFactory(lr_scheduler_factory=CosineAnnealingLRFactory(T_max=updates))
            return IQLConfig(actor_optim_factory=falling, **scaled)
        case "awac":
            return AWACConfig(batch_size=256, lam=0.3333, **deep, **scaled)
        case "rebrac":
            normed = VectorEncoderFactory([256, 256, 256], use_layer_norm=True)
            weights = {"actor_beta": hyper["actor_penalty"], "critic_beta": hyper["critic_penalty"]}
            return ReBRACConfig(**weights, actor_encoder_factory=three, critic_encoder_factory=normed)
        case "bcq":
            wide, model = VectorEncoderFactory([400, 300]), VectorEncoderFactory([750, 750])
            # One number for targets and acting: a hundred, which we act with, would take it hours
            few: dict[str, Any] = {"n_action_samples": 10}
            return BCQConfig(actor_encoder_factory=wide, critic_encoder_factory=wide, imitator_encoder_factory=model, **few)
        case "sac_n":
            return SACConfig(batch_size=256, n_critics=hyper["critics"], **own)
        case "cal_ql":
            return CalQLConfig(conservative_weight=hyper["alpha"], alpha_learning_rate=0.0, gamma=hyper["discount"], **own)
        case _:
            rates = {"actor_learning_rate": 3e-5, "temp_learning_rate": 3e-5, "alpha_learning_rate": 0.0}
            return CQLConfig(conservative_weight=10.0, **rates, **deep, **scaled)


def main() -> None:
    torch.set_num_threads(1)
    place, algorithm, updates, seed, hyper, to = sys.argv[1:]
    d3rlpy.seed(int(seed))
    table = np.load(place)
    given, columns = json.loads(hyper), ("observations", "actions", "rewards", "terminals", "timeouts")
    steps: dict[str, Any] = {}
    if given.get("n_step", 1) > 1:
        steps["transition_picker"] = MultiStepTransitionPicker(n_steps=given["n_step"], gamma=given["discount"])
    dataset = d3rlpy.dataset.MDPDataset(*(table[name] for name in columns), **steps)
    learner = config(algorithm, int(updates), given).create(device="cpu:0")
    learner.fit(
        dataset, n_steps=int(updates), n_steps_per_epoch=int(updates), logger_adapter=NoopAdapterFactory(), show_progress=False
    )  # fmt: skip
    learner.save_policy(to)


if __name__ == "__main__":
    main()
