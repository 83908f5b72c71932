"""What is on disk of a trial: checkpoints, the packed mask and the finished policy. Atomic, hashed, one folder per trial.

A checkpoint is two files, `<update>.safetensors` and then `<update>.json`, which holds the hash of both: a torn or altered
one is not a checkpoint and the one before it counts. Tensors are canonical rows, so a trial may go on in another stack or
execution.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as dump_tensors
from torch import Tensor

from trainables.agent import Agent
from trainables.datasets.minibatches import Scaling
from trainables.pruning.mask_statistics import QUANTILES
from trainables.storage import trial_files
from trainables.storage.files import write
from trainables.tensors.mask import Mask
from trainables.tensors.mlp import MLP
from trainables.trial import Stack, Trial

KEEP = 2  # the newest may be torn; the one before it is then used


@dataclass(frozen=True)
class Saved:
    """A stack's state after `update`: canonical rows [K, D] by name, masks, the optimizers' counts, and per member what the masks are."""

    update: int
    rows: dict[str, Tensor]
    masks: dict[str, Mask]
    counts: dict[str, int]
    details: Sequence[Mapping[str, Any]] = ()

    def to(self, device: str) -> Saved:
        """The same on another device."""
        rows = {name: row.to(device) for name, row in self.rows.items()}
        return replace(self, rows=rows, masks={name: [layer.to(device) for layer in mask] for name, mask in self.masks.items()})


def pack_bits(mask: Mask, member: int) -> Tensor:
    """One bit per prunable weight of a member, layer after layer, uint8."""
    flat = np.concatenate([layer[member].flatten().cpu().numpy().astype(bool) for layer in mask])
    return torch.from_numpy(np.packbits(flat))


def unpack_bits(spec: MLP, packed: Sequence[Tensor]) -> Mask:
    """The mask [K, C, out, in] per layer from K packed members."""
    flat = torch.stack([torch.from_numpy(np.unpackbits(bits.numpy(), count=sum(spec.weights_per_layer))) for bits in packed]).float()
    parts = flat.split(spec.weights_per_layer, dim=1)
    return [part.unflatten(1, (spec.heads, n_out, n_in)) for part, (n_in, n_out) in zip(parts, spec.layers, strict=True)]


def state_of(agent: Agent, masks: Mapping[str, Mask], update: int, details: Sequence[Mapping[str, Any]] = ()) -> Saved:
    """What a checkpoint after `update` holds, on the CPU: training may go on before it is saved."""
    rows = {name: row.cpu() for name, row in agent.rows().items()}
    return Saved(update, rows, {name: [layer.cpu() for layer in mask] for name, mask in masks.items()}, agent.counts(), details)


def save(storage: Path, stack: Stack, state: Saved) -> None:
    """Commit every member's state and drop all its checkpoints but this one and the one before."""
    for member, trial in enumerate(stack.trials):
        folder = trial_files.checkpoints(storage, trial.key)
        tensors = {name: row[member].clone() for name, row in state.rows.items()}
        tensors |= {f"mask/{name}": pack_bits(mask, member) for name, mask in state.masks.items()}
        content = dump_tensors(tensors)
        head: dict[str, Any] = {"trial": trial.key, "update": state.update, "counts": state.counts}
        head |= {"details": state.details[member]} if state.details else {}
        head["sha256"] = _hash(head, content)
        write(folder / f"{state.update:09d}.safetensors", content)
        write(folder / f"{state.update:09d}.json", json.dumps(head).encode())
        _tidy(storage, trial, state.update)


def _tidy(storage: Path, trial: Trial, newest: int) -> None:
    """Leave the newest two up to update `newest`, and whole ones ahead of it: what a kill left half done, or damaged ahead, goes as well.

    Whole ones ahead are of another attempt that has come further, while this one was held up and does not know it yet."""
    kept = [f"{update:09d}" for update in [u for u in _updates(storage, trial) if u <= newest][:KEEP]]
    kept += [f"{update:09d}" for update in _updates(storage, trial) if update > newest and _read(storage, trial, update)]
    for path in sorted(trial_files.checkpoints(storage, trial.key).iterdir()):  # the head before the tensors that it vouches for
        if path.stem not in kept:
            path.unlink(missing_ok=True)


def tidy(storage: Path, stack: Stack, newest: int) -> None:
    """Leave what `save` leaves after update `newest`: a kill behind the last checkpoint of all comes between writing and that."""
    for trial in stack.trials:
        _tidy(storage, trial, newest)


def committed(storage: Path, trial: Trial) -> list[int]:
    """The updates of a trial's whole checkpoints, newest first; a torn or altered one is left out."""
    return [update for update in _updates(storage, trial) if _read(storage, trial, update) is not None]


def newest(storage: Path, stack: Stack, specs: Mapping[str, MLP]) -> Saved | None:
    """The newest state that all members of the stack have, or None."""
    common = set.intersection(*(set(_updates(storage, trial)) for trial in stack.trials))
    for update in sorted(common, reverse=True):
        found = [_read(storage, trial, update) for trial in stack.trials]
        members = [entry for entry in found if entry is not None]
        if len(members) < len(stack):
            continue
        tensors = [tensor for _, tensor in members]
        rows = {name: torch.stack([t[name] for t in tensors]) for name in tensors[0] if not name.startswith("mask/")}
        masks = {name: unpack_bits(spec, [t[f"mask/{name}"] for t in tensors]) for name, spec in specs.items()}
        details = [head["details"] for head, _ in members if "details" in head]
        return Saved(update, rows, masks, members[0][0]["counts"], details if len(details) == len(stack) else ())
    return None


def _updates(storage: Path, trial: Trial) -> list[int]:
    return sorted(
        (int(path.stem) for path in trial_files.checkpoints(storage, trial.key).glob("*.json") if path.stem.isdigit()), reverse=True
    )


def _read(storage: Path, trial: Trial, update: int) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """Head and tensors of a checkpoint, or None unless both are whole and belong to the trial."""
    path = trial_files.checkpoints(storage, trial.key) / f"{update:09d}.json"
    try:
        head = json.loads(path.read_bytes())
        content = path.with_suffix(".safetensors").read_bytes()
        claimed = head.pop("sha256")
    except (OSError, ValueError, AttributeError, TypeError, KeyError):
        return None
    if claimed != _hash(head, content) or head["trial"] != trial.key or head["update"] != update:
        return None
    return head, load_tensors(content)


def _hash(head: Mapping[str, Any], content: bytes) -> str:
    """Covers both files, so that a flipped bit in the counts is found as well."""
    return hashlib.sha256(json.dumps(head, sort_keys=True).encode() + content).hexdigest()


def write_masks(storage: Path, stack: Stack, masks: Mapping[str, Mask], details: Sequence[Mapping[str, Any]]) -> None:
    """The masks of each trial as artifacts: one bit per prunable weight with shapes in the header, and what they are in JSON.

    A file that is as it should be is left alone."""
    for member, trial in enumerate(stack.trials):
        tensors = {name: pack_bits(mask, member) for name, mask in masks.items()}
        shapes = {name: [list(layer.shape[1:]) for layer in mask] for name, mask in masks.items()}
        # One entry: safetensors writes several in any order, and the same masks shall be the same bytes.
        files = {trial_files.masks(storage, trial.key): dump_tensors(tensors, metadata={"shapes": json.dumps(shapes)})}
        calibration = {"seed": trial.seed, "batches": trial.calibration_batches, "size": trial.calibration_size}
        about = {"trial": trial.to_json(), "calibration": calibration, "quantiles": QUANTILES, "networks": details[member]}
        files[trial_files.masks_json(storage, trial.key)] = json.dumps(about, indent=1).encode()
        for path, content in files.items():
            if not path.exists() or path.read_bytes() != content:
                write(path, content)


def write_policies(storage: Path, stack: Stack, agent: Agent, scaling: Scaling, about: Mapping[str, Any]) -> None:
    """The actor of each member that did not diverge, with all that is needed to act: the scaling of observations and actions too,
    and the other networks of the algorithm's POLICY, their tensors under `<network>/`."""
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
        write(trial_files.policy(storage, trial.key), dump_tensors(tensors))
        actor = agent.specs["actor"]
        head = {"trial": trial.to_json(), "key": trial.key, "sizes": actor.sizes, "output": actor.output, **about}
        head |= {"others": {other: agent.specs[other].sizes for other in others}} if others else {}
        write(trial_files.policy_json(storage, trial.key), json.dumps(head, indent=1).encode())
