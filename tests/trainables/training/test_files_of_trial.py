from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from tests.stacks import World, small_trial
from trainables.storage import trial_files
from trainables.tensors.mask import unpack_bits
from trainables.training import files_of_trial


def test_the_mask_artifact_is_one_bit_per_weight_with_shapes(tmp_path: Path) -> None:
    world = World([small_trial("td3_bc", "snip", 0.6), small_trial("td3_bc", seed=1)]).start()
    files_of_trial.write_masks(tmp_path, world.stack, world.masks, [{}, {}, {}])
    for member, trial in enumerate(world.stack.trials):
        path = trial_files.masks(tmp_path, trial.key)
        tensors = load_file(path)
        with safe_open(path, "pt") as file:
            shapes = json.loads(file.metadata()["shapes"])
        for name, mask in world.masks.items():
            spec = world.agent.specs[name]
            assert tensors[name].dtype == torch.uint8
            assert tensors[name].numel() == -(-sum(spec.weights_per_layer) // 8)
            assert shapes[name] == [list(layer.shape[1:]) for layer in mask]
            for found, wanted in zip(unpack_bits(spec, [tensors[name]]), mask, strict=True):
                assert torch.equal(found[0], wanted[member])
