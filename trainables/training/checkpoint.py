"""Checkpoints: the state of each trial on disk, atomic and hashed, in a folder per trial.

Where a checkpoint is torn or altered (trainables/storage/checkpoint_files.py), the one before it counts, and so it does where one does not
fit the trial's networks (docs/decisions/019-what-a-checkpoint-proves.md). Tensors are canonical rows, so a trial may go on in another stack
or execution.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as dump_tensors
from torch import Tensor

from trainables import plugins
from trainables.agent import Agent
from trainables.storage import trial_files
from trainables.storage.checkpoint_files import OURS, hashed, head_file, tensor_file, updates, vouched
from trainables.storage.files import write
from trainables.tensors.mask import Mask, pack_bits, unpack_bits
from trainables.tensors.mlp import MLP
from trainables.trial import Stack, Trial
from trainables.trial.pruner_traits import traits_of

Needs = dict[str, tuple[torch.dtype, tuple[int, ...]]]  # type and shape of each tensor of a checkpoint
EARLIER = ("first", "reported")  # masks that a checkpoint may hold beside the present ones
KEEP = 2  # the newest may be torn; the one before it is then used


@dataclass(frozen=True)
class Saved:
    """A stack's state after `update`: canonical rows [K, D] by name, masks, the optimizers' counts, details of each member's masks, and
    the hash of the data that each member was trained on, empty where older code wrote the checkpoint.

    `unreported`, of each member that left between two reports: what the next report needs to know of the updates before. `earlier`, where
    weights are replaced during training: the `first` masks and, between two reports, those last `reported`."""

    update: int
    rows: dict[str, Tensor]
    masks: dict[str, Mask]
    counts: dict[str, int]
    details: Sequence[Mapping[str, Any]] = ()
    data: Sequence[str] = ()
    unreported: Sequence[Mapping[str, Any]] = ()
    earlier: Mapping[str, dict[str, Mask]] = field(default_factory=dict)

    def to(self, device: str) -> Saved:
        """The same on another device."""
        rows = {name: row.to(device) for name, row in self.rows.items()}
        masks, *earlier = (
            {name: [layer.to(device) for layer in mask] for name, mask in each.items()} for each in (self.masks, *self.earlier.values())
        )
        return replace(self, rows=rows, masks=masks, earlier=dict(zip(self.earlier, earlier, strict=True)))


def state_of(
    agent: Agent,
    masks: Mapping[str, Mask],
    update: int,
    details: Sequence[Mapping[str, Any]] = (),
    data: Sequence[str] = (),
    unreported: Sequence[Mapping[str, Any]] = (),
    earlier: Mapping[str, dict[str, Mask]] | None = None,
) -> Saved:
    """The state to checkpoint after `update`, on the CPU, so that training may go on before it is saved."""
    rows = {name: row.cpu() for name, row in agent.rows().items()}
    return Saved(update, rows, dict(masks), agent.counts(), details, data, unreported, earlier or {}).to("cpu")


def save(storage: Path, stack: Stack, state: Saved) -> None:
    """Commit every member's state and drop all its checkpoints but this one and the one before."""
    for member, trial in enumerate(stack.trials):
        tensors = {name: row[member].clone() for name, row in state.rows.items()}
        tensors |= {f"mask/{name}": pack_bits(mask, member) for name, mask in state.masks.items()}
        for which, masks in state.earlier.items():
            tensors |= {f"{which}/{name}": pack_bits(mask, member) for name, mask in masks.items()}
        content = dump_tensors(tensors)
        head: dict[str, Any] = {"trial": trial.key, "update": state.update, "counts": state.counts}
        head |= {"details": state.details[member]} if state.details else {}
        head |= {"data": state.data[member]} if state.data else {}
        head |= {"unreported": state.unreported[member]} if state.unreported and state.unreported[member] else {}
        head["sha256"] = hashed(head, content)
        write(tensor_file(storage, trial.key, state.update), content, below=storage)
        write(head_file(storage, trial.key, state.update), json.dumps(head).encode(), below=storage)
        _tidy(storage, trial, state.update)


def _tidy(storage: Path, trial: Trial, newest: int) -> None:
    """Keep the newest two checkpoints up to update `newest`, and intact ones ahead of it; half-written and damaged ones go.

    Intact ones ahead were written by another attempt, which got further while this one was held up."""
    kept = [f"{update:09d}" for update in [u for u in updates(storage, trial.key) if u <= newest][:KEEP]]
    kept += [f"{update:09d}" for update in updates(storage, trial.key) if update > newest and _read(storage, trial, update)]
    for path in sorted(trial_files.checkpoints(storage, trial.key).iterdir()):  # the head goes before the tensors that it vouches for
        if OURS.fullmatch(path.name) and path.stem not in kept and path.is_file():
            path.unlink(missing_ok=True)


def tidy(storage: Path, stack: Stack, newest: int) -> None:
    """Tidy as `save` does after update `newest`: a process killed after its last write has not got that far."""
    for trial in stack.trials:
        _tidy(storage, trial, newest)


def committed(storage: Path, trial: Trial) -> list[int]:
    """The updates of a trial's whole checkpoints, newest first; a torn or altered one is left out."""
    return [update for update in updates(storage, trial.key) if _read(storage, trial, update) is not None]


def newest(storage: Path, stack: Stack, specs: Mapping[str, MLP]) -> Saved | None:
    """The newest state that all members of the stack have and that fits their networks, or None."""
    needs = _needs(stack.lead, specs)
    common = set.intersection(*(set(updates(storage, trial.key)) for trial in stack.trials))
    for update in sorted(common, reverse=True):
        entries = [_read(storage, trial, update) for trial in stack.trials]
        members = [entry for entry in entries if entry is not None and _fits(*entry, stack.lead, needs)]
        if len(members) < len(stack):
            continue
        tensors = [tensor for _, tensor in members]
        rows = {name: torch.stack([t[name] for t in tensors]) for name in tensors[0] if name.partition("/")[0] not in ("mask", *EARLIER)}
        masks = {name: unpack_bits(spec, [t[f"mask/{name}"] for t in tensors]) for name, spec in specs.items()}
        earlier = {
            which: {name: unpack_bits(spec, [t[f"{which}/{name}"] for t in tensors]) for name, spec in specs.items()}
            for which in EARLIER
            if all(f"{which}/{name}" in t for t in tensors for name in specs)
        }
        details = [head["details"] for head, _ in members if "details" in head]
        data = [str(head.get("data", "")) for head, _ in members]
        unreported = [head.get("unreported", {}) for head, _ in members]
        whole = details if len(details) == len(stack) else ()
        return Saved(update, rows, masks, members[0][0]["counts"], whole, data, unreported, earlier)
    return None


def _read(storage: Path, trial: Trial, update: int) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """Head and tensors of a checkpoint, or None unless both are whole and belong to the trial."""
    try:
        content = tensor_file(storage, trial.key, update).read_bytes()
        head = vouched(head_file(storage, trial.key, update).read_bytes(), content, trial.key, update)
        return (head, load_tensors(content)) if head else None
    except (OSError, ValueError, SafetensorError):
        return None


def _needs(trial: Trial, specs: Mapping[str, MLP]) -> Needs:
    """What a checkpoint of the trial must hold: rows of parameters, moments and targets, and packed masks."""
    targets = plugins.load("algorithms", trial.algorithm).TARGETS
    rows = [f"{part}/{name}" for part in ("online", "adam.first", "adam.second") for name in specs]
    rows += [f"target/{name}" for name in specs if name in targets]
    traits = traits_of(trial.pruner)
    rows += [f"latent/{name}" for name in specs if traits.remembers]
    needs: Needs = {name: (torch.float32, (specs[name.partition("/")[2]].row,)) for name in rows}
    for which in ("mask", "first") if traits.grows or traits.rescores else ("mask",):
        needs |= {f"{which}/{name}": (torch.uint8, (-(-sum(spec.weights_per_layer) // 8),)) for name, spec in specs.items()}
    return needs


def _fits(head: Mapping[str, Any], tensors: Mapping[str, Tensor], trial: Trial, needs: Needs) -> bool:
    """Whether tensors and counts are those of the trial's networks. Numbers may be infinite or NaN: a member's are, once it has diverged,
    and its stack-mates go on."""
    counts, details = head.get("counts"), head.get("details", {})
    if not isinstance(counts, dict) or not isinstance(details, dict) or head["update"] > trial.updates:
        return False
    if {f"online/{name}" for name in counts} != {name for name in needs if name.startswith("online/")}:
        return False
    if not all(type(count) is int and count >= 0 for count in counts.values()):
        return False
    found = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    reported = {name.replace("first/", "reported/", 1): form for name, form in needs.items() if name.startswith("first/")}
    return found in (needs, needs | reported)
