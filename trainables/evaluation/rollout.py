"""Plays a finished trial's policy in gymnasium's own environment, one episode after another, to watch it and to check its returns.

The policy is computed as in the trial's evaluations: same execution, same batch size (the other rows are idle), same seeds. So on the
machine that trained it, an episode's return equals that of the last evaluation bit for bit.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file
from torch import Tensor

from trainables import environments, execution, plugins
from trainables.agent import Agent
from trainables.datasets import local, minari_store
from trainables.environments import Reference
from trainables.errors import UserError, one_line
from trainables.evaluation.evaluation import act, evaluation_seeds
from trainables.policy.policy import SCALINGS
from trainables.simulation.contract import failed
from trainables.simulation.stepping import bounded, succeeded
from trainables.tensors.mask import ones, unpack_bits
from trainables.trial import Stack, Trial

Array = npt.NDArray[Any]
FPS = 20  # frames per second, where the environment gives none


@dataclass(frozen=True)
class Episode:
    """`total` is the undiscounted return; `score` the normalized score, nan where no reference returns are known; `success` whether the
    environment reported one, or the share of its tasks that were completed, None where it reports nothing of the kind."""

    seed: int
    steps: int
    total: float
    score: float
    success: bool | float | None = None


class TrainedPolicy:
    """The policy of a finished trial, from the files that it left in `folder`, for batches of at most `episodes` episodes."""

    def __init__(self, folder: Path, trial: Trial, how: str) -> None:
        """`how` is the execution that computed the trial, as its reports name it."""
        torch.set_num_threads(1)
        torch.set_flush_denormal(True)
        tensors = load_file(folder / "policy.safetensors")
        self.scaling = {name: tensors.pop(name) for name in SCALINGS}
        sizes = len(self.scaling["observation_shift"]), len(self.scaling["action_shift"])
        self.agent = Agent(plugins.load("algorithms", trial.algorithm), Stack((trial,)), *sizes)
        self.batch = torch.zeros(1, trial.episodes, sizes[0])
        self._build(tensors, load_file(folder / "masks.safetensors"), how)
        self.agent.at(trial.updates - 1)  # what an algorithm draws to act is drawn as after the last update

    def __call__(self, observation: Array, episode: int) -> Array:
        """The action [A] for an observation [O] in an episode of the evaluation."""
        row = episode % self.batch.shape[1]
        self.batch[0, row] = torch.from_numpy(np.asarray(observation, np.float32))
        seen = torch.addcmul(self.scaling["observation_shift"], self.batch, self.scaling["observation_scale"])
        action = act(self.agent, seen)[0, row]
        return ((action - self.scaling["action_shift"]) / self.scaling["action_scale"]).numpy()

    def _build(self, tensors: dict[str, Tensor], packed: dict[str, Tensor], how: str) -> None:
        """Only the networks that act were saved; the others get their initial weights."""
        agent, rows, masks = self.agent, {}, {}
        acting = getattr(agent.algorithm, "POLICY", ("actor",))
        for name, spec in agent.specs.items():
            rows[name], masks[name] = agent.initial(name), ones(spec, 1)
            if name in acting:
                prefix = "" if name == "actor" else f"{name}/"
                for part, view in spec.views(rows[name]).items():
                    view.copy_(tensors[prefix + part].unsqueeze(0))
                masks[name] = unpack_bits(spec, [packed[name]])
        used = how.split(",")[0]
        agent.build(used if used in execution.CHOICES else "auto", rows, masks)


def play(folder: Path, trial: Trial, count: int, frame: Callable[[Array, int], None] | None = None) -> Iterator[Episode]:
    """The first `count` episodes of the trial's evaluations; `frame` receives each picture [height, width, 3] and the frame rate.

    Raises UserError for an environment that cannot be made or drawn.
    """
    about = json.loads((folder / "policy.json").read_bytes())
    policy = TrainedPolicy(folder, trial, about["execution"])
    environment, reference = about["environment"], reference_of(trial, about["environment"])
    env = environments.make(environment, drawn=frame is not None)
    if frame and (model := getattr(env.unwrapped, "model", None)):
        model.vis.quality.shadowsize = 0  # without a GPU a picture with shadows takes seven times as long
    try:
        for number, seed in enumerate(evaluation_seeds(trial, count)):
            total, steps, over = 0.0, 0, False
            success: bool | float | None = None
            observation = _called(environment, "reset", env.reset, seed=seed)[0]
            while not over:
                if frame:
                    frame(picture(env, environment), int(env.metadata.get("render_fps", FPS)))
                (action,), (finite,) = bounded(policy(observation, number)[None], env.action_space)
                if not finite:
                    raise UserError(f"the policy of {trial.name} returns an action that is not finite: {action.tolist()}")
                observation, reward, terminated, truncated, info = _called(environment, "step", env.step, action)
                if (now := succeeded(info)) is not None:
                    success = now if success is None else max(success, now)
                total, steps, over = total + float(reward), steps + 1, terminated or truncated
            yield Episode(seed, steps, total, float(reference.normalize(total)), success)
    finally:
        env.close()


def _called(environment: str, name: str, call: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
    """What a call of an environment returns; a UserError for what its code raises."""
    try:
        return call(*arguments, **more)
    except Exception as error:  # an environment's code may raise anything
        raise failed(environment, name, error) from error


def reference_of(trial: Trial, environment: str) -> Reference:
    """The dataset's reference returns if it is on this machine, else the environment's."""
    if local.exists(trial.dataset):
        return minari_store.read_metadata(trial.dataset).reference
    return environments.reference(environment) or environments.UNKNOWN


def picture(env: Any, environment: str) -> Array:
    """A picture [height, width, 3] of the environment; raises UserError if it cannot be drawn here."""
    try:
        if (drawn := env.render()) is None or np.ndim(drawn) != 3:
            raise TypeError("its render returned no picture [height, width, 3]")
        return np.asarray(drawn, np.uint8)
    except Exception as error:  # every renderer has exceptions of its own
        raise UserError(f"environment {environment!r} cannot be drawn here ({one_line(error)})") from None
