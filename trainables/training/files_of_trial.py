"""What a trial leaves for others to read: its masks and its finished policy. A checkpoint (checkpoint.py) is for training alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as dump_tensors

from trainables.agent import Agent
from trainables.datasets.scaling import Scaling
from trainables.pruning.mask_statistics import QUANTILES
from trainables.storage import trial_files
from trainables.storage.files import write
from trainables.tensors.mask import Mask, pack_bits
from trainables.trial import Stack


def write_masks(storage: Path, stack: Stack, masks: Mapping[str, Mask], details: Sequence[Mapping[str, Any]]) -> None:
    """Write the masks of each trial: one bit per prunable weight with the shapes in the header, and their details as JSON.

    A file that has the right content already is left alone."""
    for member, trial in enumerate(stack.trials):
        tensors = {name: pack_bits(mask, member) for name, mask in masks.items()}
        shapes = {name: [list(layer.shape[1:]) for layer in mask] for name, mask in masks.items()}
        # One entry: safetensors writes several in any order, and equal masks should give equal bytes.
        files = {trial_files.masks(storage, trial.key): dump_tensors(tensors, metadata={"shapes": json.dumps(shapes)})}
        calibration = {"seed": trial.seed, "batches": trial.calibration_batches, "size": trial.calibration_size}
        about = {"trial": trial.to_json(), "calibration": calibration, "quantiles": QUANTILES, "networks": details[member]}
        files[trial_files.masks_json(storage, trial.key)] = json.dumps(about, indent=1).encode()
        for path, content in files.items():
            if not path.exists() or path.read_bytes() != content:
                write(path, content, below=storage)


def write_policies(
    storage: Path, stack: Stack, agent: Agent, scaling: Scaling, about: Mapping[str, Any], probes: Sequence[Mapping[str, Any]] = ()
) -> None:
    """Write the policy of each member that did not diverge: the actor, the scaling of observations and actions, and the other networks
    of the algorithm's POLICY, whose tensors are named `<network>/...`. `probes`: of each member, as `Evaluation.probes` has them."""
    others = [name for name in getattr(agent.algorithm, "POLICY", ()) if name != "actor"]
    rows = {name: agent.networks[name].unpack(agent.networks[name].parameters.detach()).cpu() for name in ("actor", *others)}
    finite = agent.finite()
    for member, trial in enumerate(stack.trials):
        if not finite[member]:
            continue
        tensors = {name: view[member].clone() for name, view in agent.specs["actor"].views(rows["actor"]).items()}
        for other in others:
            tensors |= {f"{other}/{name}": view[member].clone() for name, view in agent.specs[other].views(rows[other]).items()}
        tensors |= {
            "observation_shift": torch.from_numpy(scaling.observation_shift),
            "observation_scale": torch.from_numpy(scaling.observation_scale),
            "action_shift": torch.from_numpy(scaling.action_shift),
            "action_scale": torch.from_numpy(scaling.action_scale),
        }
        write(trial_files.policy(storage, trial.key), dump_tensors(tensors), below=storage)
        actor = agent.specs["actor"]
        head = {"trial": trial.to_json(), "key": trial.key, "sizes": actor.sizes, "output": actor.output, **about}
        head |= {"probe": probes[member]} if probes else {}
        head |= {"others": {other: agent.specs[other].sizes for other in others}} if others else {}
        write(trial_files.policy_json(storage, trial.key), json.dumps(head, indent=1).encode(), below=storage)
