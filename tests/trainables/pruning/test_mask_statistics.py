"""What a mask is said to be, on masks whose answer is counted by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from service.storage import paths
from tests.stacks import World, small_trial
from tests.trainables.tensors.test_mask import hand_made
from trainables import plugins
from trainables.errors import UserError
from trainables.pruning.mask_changes import change
from trainables.pruning.mask_report import report_on
from trainables.pruning.mask_statistics import describe, jaccard, main, metrics, quantiles, read_masks, warnings
from trainables.tensors.mask import Mask, ones
from trainables.tensors.mlp import MLP
from trainables.training import files_of_trial

SPEC = MLP((2, 3, 2, 1))


def test_a_hand_made_mask() -> None:
    """Kept: 2 of 6, 3 of 6, 1 of 2 weights. On a path: input 0 -> unit 0 -> unit 0 -> output."""
    (found,) = describe(SPEC, hand_made(), ["height", "speed"])
    assert found["layers"] == [
        {"weights": 6, "kept": 2, "density": 2 / 6, "effective_density": 1 / 6, "units": 3, "live_units": 1},
        {"weights": 6, "kept": 3, "density": 3 / 6, "effective_density": 1 / 6, "units": 2, "live_units": 1},
        {"weights": 2, "kept": 1, "density": 1 / 2, "effective_density": 1 / 2, "units": 1, "live_units": 1},
    ]
    assert (found["kept"], found["density"], found["effective_density"]) == (6, 6 / 14, 3 / 14)
    assert (found["live_inputs"], found["unseen_inputs"]) == (1, ["speed"])
    assert (found["live_units"], found["fewest_live_units"], found["outputs_without_a_path"]) == (2, 1, [])
    assert found["parameters"] == {"dense": 14 + 6, "nominal": 6 + 6, "effective": 3 + 3, "compact": 3 + 3}
    assert found["bytes"] == {"dense": 80, "nominal": 48 + 2, "effective": 24 + 2, "compact": 24}
    assert found["flops"] == {"dense": 28, "nominal": 12, "effective": 6, "compact": 6}


def test_twin_copies_are_counted_together_and_compact_is_what_their_live_units_need() -> None:
    two = [torch.cat([layer, torch.ones_like(layer)], dim=1) for layer in hand_made()]
    (found,) = describe(MLP((2, 3, 2, 1), copies=2), two)
    assert [layer["kept"] for layer in found["layers"]] == [8, 9, 3]
    assert found["live_units"] == (1 + 1) + (3 + 2)
    assert found["live_inputs"] == 2
    assert found["parameters"]["compact"] == (1 + 1 + 1) + 3 + (6 + 6 + 2) + 6
    assert found["unseen_inputs"] == []


def test_a_compact_network_holds_the_product_of_live_units() -> None:
    mask = [torch.ones(1, 1, 3, 2), torch.tensor([[[[1.0, 0, 0], [0, 1, 0]]]]), torch.ones(1, 1, 1, 2)]
    (found,) = describe(SPEC, mask)
    assert found["parameters"]["effective"] == 4 + 2 + 2 + (2 + 2 + 1)
    assert found["parameters"]["compact"] == 2 * 2 + 2 * 2 + 2 + (2 + 2 + 1)


@pytest.mark.parametrize("algorithm", plugins.names("algorithms"))
def test_a_dense_network_has_as_many_parameters_as_it_trains(algorithm: str) -> None:
    world = World([small_trial(algorithm)]).start()
    for name, spec in world.agent.specs.items():
        (found,) = describe(spec, world.masks[name])
        assert set(found["parameters"].values()) == {spec.used}, name


def test_gains_and_shifts_go_with_their_units_and_extras_stay() -> None:
    """Two of five hidden units are live, and the output has neither gain nor shift."""
    (found,) = describe(MLP((2, 3, 2, 1), norm="after", extra={"log_std": 7}), hand_made())
    assert found["parameters"] == {"dense": 20 + 10 + 7, "nominal": 12 + 10 + 7, "effective": 6 + 4 + 7, "compact": 6 + 4 + 7}
    assert found["bytes"]["compact"] == 4 * 17


def test_few_metrics_leave_for_mlflow() -> None:
    (about,) = describe(SPEC, hand_made())
    assert metrics({"actor": about}) == pytest.approx(
        {"mask/density/actor": 6 / 14, "mask/effective_density/actor": 3 / 14, "mask/live_units/actor": 2, "mask/live_inputs/actor": 1}
    )


def wide(first: int, outputs: int = 2) -> Mask:
    """4 -> 16 -> 2: units up to `first` are wired from every input to the first `outputs` outputs."""
    one, two = torch.zeros(1, 1, 16, 4), torch.zeros(1, 1, 2, 16)
    one[:, :, :first], two[:, :, :outputs, :first] = 1, 1
    return [one, two]


@pytest.mark.parametrize(
    ("mask", "says"),
    [
        (wide(16), []),
        (wide(8), []),
        (wide(7), ["actor: hidden layer actor.0 has 7 live units left"]),
        (wide(16, 1), ["actor: no path leads to outputs [1], which are constants: no kept weight of layer actor.1 leads there"]),
    ],
)
def test_a_fragile_network_is_warned_about(mask: Mask, says: list[str]) -> None:
    (about,) = describe(MLP((4, 16, 2)), mask)
    assert warnings({"actor": about}) == says


def without(spec: MLP, *removed: tuple[int, Any]) -> Mask:
    """The mask that keeps all but the weights at an index [C, out, in] of each layer named."""
    mask = ones(spec, 1)
    for layer, index in removed:
        mask[layer][0][index] = 0
    return mask


CHAIN, TWINS, RESIDUAL = MLP((4, 4, 4, 2)), MLP((4, 4, 4, 1), copies=2), MLP((4, 4, 4, 2)).built_as("simba")


@pytest.mark.parametrize(
    ("spec", "removed", "outputs", "layer"),
    [
        (CHAIN, [(0, ...)], [0, 1], "q.0"),
        (CHAIN, [(1, ...)], [0, 1], "q.1"),
        (CHAIN, [(2, ...)], [0, 1], "q.2"),
        (CHAIN, [(1, ...), (2, ...)], [0, 1], "q.2"),  # seen from the outputs
        (CHAIN, [(0, np.s_[:, 2:]), (1, np.s_[:, :, :2])], [0, 1], "q.0"),  # no layer is empty
        (CHAIN, [(1, np.s_[:, :2]), (2, np.s_[:, 1, 2:])], [1], "q.1"),  # the other output's weights go on
        (CHAIN, [(1, np.s_[:, :2]), (2, np.s_[:, 1, 2:]), (2, np.s_[:, 0])], [0, 1], "q.1 or q.2"),
        (TWINS, [(1, 1)], [0], "q.1"),  # of the second critic
        (RESIDUAL, [(0, ...), (1, ...), (2, ...)], [0, 1], "q.0"),
        (RESIDUAL, [(1, ...), (2, ...), (3, np.s_[:, 1])], [1], "q.3"),
    ],
)
def test_a_network_without_a_path_is_warned_about_by_the_layer_where_it_ends(
    spec: MLP, removed: list[tuple[int, Any]], outputs: list[int], layer: str
) -> None:
    (about,) = describe(spec, without(spec, *removed))
    assert warnings({"q": about})[0] == (
        f"q: no path leads to outputs {outputs}, which are constants: no kept weight of layer {layer} leads there"
    )


def test_a_change_of_masks_that_leaves_no_path_is_reported_with_its_layer() -> None:
    """RigL keeps each layer's number of weights, here none; beside a member that has some."""
    world = World([small_trial("td3_bc", "rigl", 0.5, seed, pruning={"delta": 5}) for seed in range(2)]).start()
    world.masks["critic"][1][0].zero_()
    masks = change(world.agent, world.stack, world.masks, {0: 0.3, 1: 0.3}, "dense", 5, world.data.draw)
    broken, whole = report_on(masks, world.agent, 5, (), {}, "dense").warnings
    assert broken[0] == "critic: no path leads to outputs [0], which are constants: no kept weight of layer critic.1 leads there"
    assert not any("constants" in line for line in whole)


def test_narrow_layers_are_not_fragile_for_being_narrow() -> None:
    spec = MLP((3, 4, 4, 1), copies=2)
    (about,) = describe(spec, ones(spec, 1))
    assert warnings({"critic": about}) == []


def test_a_unit_of_a_residual_stream_lives_without_a_weight_of_the_next_block() -> None:
    spec = MLP((2, 4, 4, 1)).built_as("simba")
    mask = ones(spec, 1)
    mask[1].zero_()
    mask[2].zero_()
    (about,) = describe(spec, mask)
    assert [layer["live_units"] for layer in about["layers"]] == [4, 0, 4, 1]
    for what in ("parameters", "flops"):
        assert about[what]["compact"] >= about[what]["effective"]


def test_weights_that_lie_on_no_path_are_warned_about() -> None:
    mask = wide(8)
    mask[0][:, :, 8:] = 1
    mask[1][:, :, 0, :8] = 0
    (about,) = describe(MLP((4, 16, 2)), mask)
    assert warnings({"actor": about})[0] == (
        "actor: no path leads to outputs [0], which are constants: no kept weight of layer actor.1 leads there"
    )
    mask[1][:, :, :, 1:8] = 0
    (about,) = describe(MLP((4, 16, 2)), mask)
    assert warnings({"actor": about})[-1] == "actor: 92 % of the kept weights lie on no path"


def test_quantiles_are_those_of_the_finite_scores() -> None:
    scores = torch.tensor([4.0, 0, 1, 2, 3, -torch.inf])
    assert quantiles(scores) == [0, 1, 2, 3, 4, 4]
    assert quantiles(torch.tensor([-torch.inf])) == []


def test_jaccard_counts_common_over_all() -> None:
    a, b = torch.tensor([1.0, 1, 0, 0]), torch.tensor([1.0, 0, 1, 0])
    assert jaccard([a], [b]) == 1 / 3
    assert jaccard([a, b], [b, b]) == 3 / 5
    assert jaccard([a], [a]) == jaccard([0 * a], [0 * a]) == 1


def test_the_command_prints_the_overlap_of_trials(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = World([small_trial("td3_bc", pruner, 0.5, seed) for seed, pruner in ((0, "snip"), (1, "snip"), (0, "random_erk"))]).start()
    files_of_trial.write_masks(tmp_path, world.stack, world.masks, [{}, {}, {}])
    files = [paths.masks(tmp_path, trial.key) for trial in world.stack.trials]
    for member, file in enumerate(files):
        for name, mask in read_masks(file).items():
            assert all(torch.equal(read[0], layer[member]) for read, layer in zip(mask, world.masks[name], strict=True))
    assert main([str(file) for file in files]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    own = [[layer[k : k + 1] for layer in world.masks["critic"]] for k in range(3)]
    assert lines[0].endswith(f"critic {jaccard(own[0], own[1]):.3f}")
    assert lines[1].endswith(f"critic {jaccard(own[0], own[2]):.3f}")


def saved(file: Path, shapes: Any) -> Path:
    """A mask of eight weights, which are said to have `shapes`."""
    save_file({"actor": torch.tensor([255], dtype=torch.uint8)}, file, {"shapes": json.dumps(shapes)})
    return file


@pytest.mark.parametrize("shapes", [{"other": [[1, 2, 4]]}, [[1, 2, 4]], {"actor": [[2, 4]]}, {"actor": [[1, 9, 9]]}])
def test_masks_are_refused_where_their_shapes_are_not_theirs(shapes: Any, tmp_path: Path) -> None:
    (read,) = read_masks(saved(tmp_path / "masks", {"actor": [[1, 2, 4]]}))["actor"]
    assert read.shape == (1, 1, 2, 4)
    saved(tmp_path / "masks", shapes)
    with pytest.raises(UserError, match=r"is not a trial's masks\.safetensors"):
        read_masks(tmp_path / "masks")


def test_the_command_refuses_what_it_cannot_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x").write_text("nothing")
    for given, says in (([], "two or more"), ([str(tmp_path / "x")] * 2, "is not a trial's masks.safetensors"), (["a", "b"], "a is not")):
        assert main(given) == 2
        err = capsys.readouterr().err
        assert says in err
        assert err.count("\n") == 1
