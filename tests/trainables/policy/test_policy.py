"""The policy without torch: every format acts as the algorithm does in torch."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from service.storage import paths
from tests.conftest import HOPPER
from trainables import plugins
from trainables.agent import Agent
from trainables.datasets.scaling import Scaling, normalizes
from trainables.datasets.table import load_table
from trainables.errors import UserError
from trainables.native import build
from trainables.policy import forward
from trainables.policy.onnx_export import to_onnx
from trainables.policy.policy import FORMATS, SCALINGS, Policy, compact, load_policy, save_policy
from trainables.run import run_stack
from trainables.training import checkpoint
from trainables.trial import TRAINING_CHOICES, Stack, Trial

Array = npt.NDArray[np.float32]
SPARSE = "td3_bc"
OF_NETWORKS = [(algorithm, network) for algorithm in ("bc", "cql", "fql", "td3_bc") for network in TRAINING_CHOICES["network"][1:]]


def trial_of(algorithm: str, network: str = "mlp") -> Trial:
    """Short, pruned, 32 units wide so that some die."""
    hyper = {name: (32,) * len(value) for name, value in plugins.hyper_defaults(algorithm).items() if isinstance(value, tuple)}
    more = {"updates": 30, "evaluations": 1, "episodes": 1, "hyper": hyper | {"batch_size": 32}}
    return Trial(dataset=HOPPER, algorithm=algorithm, pruner="snip", sparsity=0.9, network=network, **more)


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory, hopper_folder: Path) -> Path:
    """What a finished trial of every algorithm leaves."""
    folder = tmp_path_factory.mktemp("policies")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(hopper_folder))
        for trial in [trial_of(algorithm) for algorithm in plugins.names("algorithms")] + [trial_of(*case) for case in OF_NETWORKS]:
            list(run_stack(Stack((trial,)), folder))
    return folder


def in_torch(storage: Path, trial: Trial, observations: Array) -> tuple[Agent, Array]:
    """The agent of the last checkpoint, and its actions [B, A] by the algorithm's own `act` with the reference execution."""
    stack, table, module = Stack((trial,)), load_table(HOPPER), plugins.load("algorithms", trial.algorithm)
    agent = Agent(module, stack, table.observation_size, table.action_size)
    saved = checkpoint.newest(storage, stack, agent.specs)
    assert saved is not None
    agent.build("dense", {name: saved.rows[f"online/{name}"] for name in agent.specs}, saved.masks)
    scaling = Scaling(table, normalizes(module, trial.network))
    with torch.no_grad():
        action = module.act(agent, scaling.observation(torch.from_numpy(observations)[None]))[0].numpy()
    return agent, scaling.action(action)


def states() -> Array:
    table = load_table(HOPPER)
    return np.array(table.rows[:, : table.observation_size])


@pytest.mark.parametrize(("algorithm", "network"), [*((a, "mlp") for a in plugins.names("algorithms")), *OF_NETWORKS])
def test_every_format_acts_as_the_algorithm_does_in_torch(algorithm: str, network: str, storage: Path, hopper: str, tmp_path: Path) -> None:
    observations, near = states(), 1e-6 if network == "mlp" else 1e-5
    agent, wanted = in_torch(storage, trial_of(algorithm, network), observations)
    folder = paths.trial(storage, trial_of(algorithm, network).key)
    actor = agent.specs["actor"]
    if actor.sizes[0] != observations.shape[1]:
        with pytest.raises(UserError, match=f"{algorithm}'s"):
            load_policy(folder)
        return
    policy = load_policy(folder)
    assert policy.about["trial"]["algorithm"] == algorithm
    assert policy.about["environment"] == "Hopper-v5"
    assert policy.network == network
    assert np.ptp(wanted, axis=0).min() > 1e-2, "the states ask for different actions"
    for format in FORMATS:
        save_policy(policy, tmp_path / format, format)
        found = load_policy(tmp_path / format)
        assert (found.format, found.about) == (format, policy.about)
        for acting in (policy.to(format), found):
            actions = acting(observations)
            assert actions.dtype == np.float32
            np.testing.assert_allclose(actions, wanted, rtol=0, atol=near, err_msg=format)
            np.testing.assert_allclose(acting(observations[3].astype(np.float64)), wanted[3], rtol=0, atol=near)
            assert acting(observations[:0]).shape == (0, 3)
    to_onnx(policy.to("compact"), tmp_path / "policy.onnx")
    np.testing.assert_allclose(run_onnx(tmp_path / "policy.onnx", observations), wanted, rtol=0, atol=near)


def run_onnx(path: Path, observations: Array) -> Array:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["action"], {"observation": observations})[0]


def test_dead_units_are_left_out(storage: Path, hopper: str) -> None:
    policy = load_policy(paths.trial(storage, trial_of(SPARSE).key))
    small = policy.to("compact")
    assert policy.sizes == (11, 32, 32, 3)
    assert small.sizes[1] < 32
    assert small.sizes[2] < 32
    for below, above in itertools.pairwise(small.layers):
        assert below[0].any(1).all()
        assert above[0].any(0).all()
    assert small.to("csr").sizes == small.sizes
    assert policy.sizes == (11, 32, 32, 3), "the policy itself stays as it was"


def test_constant_units_become_biases_layer_after_layer() -> None:
    """By hand: of the first layer's 4 units, 0 lives, 1 is constant 2, 2 is constant 0 (its bias is negative), 3 leads nowhere.
    Unit 1 of the second layer then sees constants only: max(3 x 2 - 1, 0) = 5, and unit 0 gets 10 x 2 on its bias."""
    first = np.array([[1, 1], [0, 0], [0, 0], [1, 1]], np.float32), np.array([0.5, 2, -2, 0], np.float32)
    second = np.array([[1, 10, 7, 0], [0, 3, 7, 0], [5, 0, 0, 0]], np.float32), np.array([1, -1, 0], np.float32)
    last = np.array([[2, 4, 0]], np.float32), np.array([-1], np.float32)
    found = compact((first, second, last))
    wanted = [([[1, 1]], [0.5]), ([[1]], [21]), ([[2]], [19])]
    assert [(weight.tolist(), bias.tolist()) for weight, bias in found] == wanted


def halfcheetah(density: float, output: str = "tanh", sizes: tuple[int, ...] = (17, 256, 256, 6)) -> Policy:
    """Random weights, a uniformly random mask, scalings that are not the identity."""
    draw = np.random.default_rng(0)
    layers = []
    for n_in, n_out in itertools.pairwise(sizes):
        weight = draw.uniform(-1, 1, (n_out, n_in)) / np.sqrt(density * n_in) * (draw.random((n_out, n_in)) < density)
        layers.append((weight.astype(np.float32), draw.uniform(-0.1, 0.1, n_out).astype(np.float32)))
    lengths = [sizes[0], sizes[0], sizes[-1], sizes[-1]]
    scaling = {name: draw.uniform(0.5, 1.5, length).astype(np.float32) for name, length in zip(SCALINGS, lengths, strict=True)}
    return Policy(tuple(layers), output, scaling, {"environment": "HalfCheetah-v5"})


def by_the_book(policy: Policy, observations: Array) -> npt.NDArray[np.float64]:
    x = observations.astype(np.float64) * policy.scaling["observation_scale"] + policy.scaling["observation_shift"]
    for index, (weight, bias) in enumerate(policy.layers):
        x = x @ weight.T.astype(np.float64) + bias
        x = np.maximum(x, 0) if index < len(policy.layers) - 1 else x
    action = np.tanh(x) if policy.output == "tanh" else x.clip(-1, 1)
    return (action - policy.scaling["action_shift"]) / policy.scaling["action_scale"]


@pytest.mark.parametrize("batch", [1, 7, 64, 65, 200])
@pytest.mark.parametrize("output", ["tanh", "clip"])
def test_the_formats_against_float64(batch: int, output: str, tmp_path: Path) -> None:
    observations = np.random.default_rng(1).normal(size=(batch, 17)).astype(np.float32)
    policy = halfcheetah(0.05, output)
    wanted = by_the_book(policy, observations)
    for format in FORMATS:
        np.testing.assert_allclose(policy.to(format)(observations), wanted, rtol=0, atol=3e-6)
    to_onnx(policy, tmp_path / "onnx")
    np.testing.assert_allclose(run_onnx(tmp_path / "onnx", observations), wanted, rtol=0, atol=3e-6)
    backwards = observations[::-1]  # not contiguous
    np.testing.assert_allclose(policy.to("csr")(backwards), wanted[::-1], rtol=0, atol=3e-6)


def test_the_kernels_compute_csr_here() -> None:
    assert build.available()
    assert isinstance(halfcheetah(0.05).to("csr")._forward, forward.Kept)


def test_a_file_of_a_halfcheetah_actor_at_95_percent_has_at_most_30_kilobytes(tmp_path: Path) -> None:
    policy = halfcheetah(0.05)
    sizes = {}
    for format in FORMATS:
        save_policy(policy, tmp_path / format, format)
        sizes[format] = (tmp_path / format).stat().st_size
    assert sizes["csr"] <= 30_000
    assert sizes["csr"] < sizes["compact"] / 5 <= sizes["dense"] / 5
    for (weight, bias), (w, b) in zip(compact(policy.layers), load_policy(tmp_path / "csr").layers, strict=True):
        np.testing.assert_array_equal(weight, w)
        np.testing.assert_array_equal(bias, b)


def test_more_columns_than_a_byte_counts(tmp_path: Path) -> None:
    policy = halfcheetah(0.5, sizes=(3, 700, 2))
    save_policy(policy, tmp_path / "p", "csr")
    observations = np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(load_policy(tmp_path / "p")(observations), policy.to("csr")(observations))


PROGRAM = """
import sys
sys.modules["torch"] = None
import numpy as np
from trainables.policy.policy import load_policy
policy = load_policy(sys.argv[1])
np.save(sys.argv[2], policy(np.ones((5, 17))))
print(type(policy._forward).__name__)
"""


@pytest.mark.parametrize(("compiler", "way"), [("cc", "Kept"), ("no-such-cc", "Dense")])
def test_neither_torch_nor_a_compiler_is_needed(compiler: str, way: str, tmp_path: Path) -> None:
    policy = halfcheetah(0.05)
    save_policy(policy, tmp_path / "p", "csr")
    environment = os.environ | {"CC": compiler} | ({"WINNOW_CACHE": str(tmp_path)} if way == "Dense" else {})
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "p"), str(tmp_path / "a.npy")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == way
    np.testing.assert_allclose(np.load(tmp_path / "a.npy"), policy(np.ones((5, 17))), rtol=0, atol=1e-6)


def test_what_cannot_be_loaded_is_said(storage: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no policy at .*nowhere"):
        load_policy(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no policy at"):
        load_policy(tmp_path)
    source = paths.trial(storage, trial_of(SPARSE).key)
    content = (source / "policy.safetensors").read_bytes()
    (tmp_path / "policy.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"no policy at .*policy\.json"):
        load_policy(tmp_path)
    (tmp_path / "policy.safetensors").write_bytes(content[:-7])
    with pytest.raises(UserError, match="is not a policy"):
        load_policy(tmp_path)
    with pytest.raises(UserError, match="no policy format 'sparse'; there are: dense, compact, csr"):
        halfcheetah(1).to("sparse")
    with pytest.raises(UserError, match="cannot write"):
        save_policy(halfcheetah(1), tmp_path / "missing" / "p")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"others": {"decoder": [9, 3]}}, "bc's policy is more than a network from 11 observations to 3 actions"),
        ({"sizes": [14, 32, 32, 3]}, "bc's policy is more than a network"),
        ({"sizes": [11, 32, 32, 4]}, "bc's policy is more than a network"),
    ],
)
def test_policies_that_are_no_plain_network_are_refused(change: dict[str, Any], said: str, storage: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    source = paths.trial(storage, trial_of("bc").key)
    save_file(load_file(source / "policy.safetensors"), tmp_path / "policy.safetensors")
    (tmp_path / "policy.json").write_text(json.dumps(json.loads((source / "policy.json").read_text()) | change))
    with pytest.raises(UserError, match=said):
        load_policy(tmp_path)


@pytest.mark.parametrize("change", ["none", "act", "norm before"])
def test_a_policy_of_somebody_elses_algorithm_is_compared_with_what_it_does(
    change: str, hopper: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bc = plugins.load("algorithms", "bc")
    actor, usual = bc.networks(11, 3, bc.Hyper())["actor"], bc.act
    ships, load = plugins.ships, plugins.load
    monkeypatch.setattr(plugins, "ships", lambda folder, name: name != "bc" and ships(folder, name))
    monkeypatch.setattr(plugins, "load", lambda folder, name: bc if name == "bc" else load(folder, name))
    trial = trial_of("bc")
    hidden = trial.hyper["hidden"]
    if change == "act":
        monkeypatch.setattr(bc, "act", lambda agent, seen: 0.9 * usual(agent, seen))
    elif change == "norm before":
        normed = replace(actor, sizes=(11, *hidden, 3), norm="before")
        monkeypatch.setattr(bc, "networks", lambda *sizes: {"actor": normed})
    list(run_stack(Stack((trial,)), tmp_path))
    folder = paths.policy(tmp_path, trial.key).parent
    if change == "none":
        probe = json.loads((folder / "policy.json").read_text())["probe"]
        policy = load_policy(folder)
        np.testing.assert_allclose(policy(probe["observations"]), probe["actions"], atol=1e-5)
        assert np.abs(probe["actions"]).max() > 0.01
        assert "probe" not in policy.about
    else:
        with pytest.raises(UserError, match=r"bc's policy is not its actor's network alone: .* apart"):
            load_policy(folder)


@pytest.mark.parametrize("shape", [(), (16,), (2, 18), (1, 2, 17)])
def test_an_observation_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"an observation \[17\] or a batch \[B, 17\]"):
        halfcheetah(1)(np.zeros(shape))


def test_without_the_package_onnx_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match=r"winnow-rl\[export\]"):
        to_onnx(halfcheetah(1), tmp_path / "p.onnx")
    assert list(tmp_path.iterdir()) == []
