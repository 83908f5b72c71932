"""run_stack on a small real dataset: reports, resuming, damage, divergence."""

from __future__ import annotations

import functools
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import trainables.run
import trainables.training.updates
from service.storage import paths
from tests.conftest import HOPPER
from trainables import execution as executions
from trainables import plugins
from trainables.agent import Agent
from trainables.datasets.minibatches import minibatches_of
from trainables.datasets.table import load_table
from trainables.errors import StoppedError, UserError
from trainables.reports import Checkpointed, Diverged, Evaluated, Finished, Pruned, Report, Trained
from trainables.run import run_stack
from trainables.tensors.mlp import MLP
from trainables.tensors.streams import key_of
from trainables.training import checkpoint
from trainables.training.leave import Leave
from trainables.trial import Stack, Trial

EVERY = 7  # updates between checkpoints: no multiple of the evaluations'
SMALL = {"hidden": (16, 16), "batch_size": 32}
SETTINGS_OF: dict[str, dict[str, Any]] = {"gmp": {}, "imp": {"rounds": 2}}  # of pruners without a `delta`
Whole = tuple[list[Report], dict[str, bytes]]


def trial(seed: int = 0, pruner: str = "snip", sparsity: float = 0.5, algorithm: str = "td3_bc", **more: Any) -> Trial:
    hyper = SMALL | more.pop("hyper", {})
    given: dict[str, Any] = {"dataset": HOPPER, "updates": 30, "evaluations": 3, "episodes": 3, "calibration_size": 64}
    return Trial(**(given | {"algorithm": algorithm, "pruner": pruner, "sparsity": sparsity, "seed": seed, "hyper": hyper} | more))


def run(trials: list[Trial], storage: Path | None = None, execution: str = "dense") -> Iterator[Report]:
    return run_stack(Stack(tuple(trials)), storage, execution=execution, checkpoint_every=EVERY)


def stopped_and_resumed(own: Trial, update: int, storage: Path, execution: str = "auto") -> list[Report]:
    """All reports of a trial that is stopped after the checkpoint of an update, then run again."""
    reports: list[Report] = []
    for report in (first := run([own], storage, execution)):
        reports.append(report)
        if report == Checkpointed(update):
            first.close()
            break
    return reports + list(run([own], storage, execution))


def plain(report: Report, member: int | None = None) -> Any:
    """A report without its times; of one member where asked."""

    def own(values: list[Any]) -> Any:
        return values if member is None else [values[member]]

    match report:
        case Pruned():
            return "pruned", report.update, own(report.statistics), own(report.details), own(report.warnings)
        case Trained():
            return "trained", report.update, own(report.metrics)
        case Evaluated():
            return "evaluated", report.update, own(report.episodes), report.final
        case Finished():
            return "finished", report.update, report.execution
        case _:
            return report


def result(storage: Path, one: Trial) -> dict[str, bytes]:
    """The bytes of all that a trial leaves behind when it is done, its last checkpoint included."""
    folder = paths.trial(storage, one.key)
    names = ["policy.safetensors", "policy.json", "masks.safetensors", f"checkpoints/{one.updates:09d}.safetensors"]
    return {name: (folder / name).read_bytes() for name in names}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, hopper_folder: Path) -> Whole:
    """The reports and results of `trial()`, alone and never interrupted."""
    storage = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(hopper_folder))
        reports = list(run([trial()], storage))
    return reports, result(storage, trial())


pytestmark = pytest.mark.usefixtures("hopper")


def test_reports_come_in_order_and_say_everything(undisturbed: Whole) -> None:
    reports, _ = undisturbed
    one = trial()
    assert [type(r) for r in reports[:2]] == [Pruned, Checkpointed]
    assert isinstance(reports[-1], Finished)
    assert all(a.update <= b.update for a, b in pairwise(reports))
    assert reports[-1].update == one.updates
    assert reports[-1].execution == "dense"
    assert [r.update for r in reports if isinstance(r, Checkpointed)] == [0, 7, 14, 21, 28, 30]
    evaluated = [r for r in reports if isinstance(r, Evaluated)]
    assert [r.update for r in evaluated] == [10, 20, 30] == list(one.evaluation_updates())
    for r in evaluated:
        returns = np.array([member["returns"] for member in r.episodes])
        assert returns.shape == (1, one.episodes)
        assert np.isfinite(returns).all()
        assert np.allclose([member["scores"] for member in r.episodes], 100 * (returns + 20.272305) / (3234.3 + 20.272305), atol=1e-9)
    trained = [r for r in reports if isinstance(r, Trained)]
    assert [r.update for r in trained] == list(range(1, 31))
    assert all(r.updates_per_second > 0 for r in trained)
    assert all(name.startswith("train/") and math.isfinite(v) for r in trained for name, v in r.metrics[0].items())
    losses = {"train/critic_loss", "train/actor_loss"}
    measured = {f"train/{what}/{network}" for what in ("dormant_units", "feature_rank") for network in ("actor", "critic")}
    assert {name for r in trained for name in r.metrics[0]} == losses | measured
    assert [r.update for r in trained if r.metrics[0].keys() & measured] == list(one.evaluation_updates())
    statistics = reports[0].statistics[0]
    assert statistics["mask/density/actor"] == pytest.approx(0.5, abs=1e-3)
    kinds = ("density", "effective_density", "live_units", "live_inputs", "signal")
    assert statistics.keys() == {f"mask/{kind}/{network}" for kind in kinds for network in ("actor", "critic")}, "few"
    assert all(isinstance(value, float) for value in statistics.values())


def test_a_checkpoint_holds_what_was_reported_before_it(tmp_path: Path) -> None:
    """When a report arrives, nothing after it is on disk: who takes reports may store them first."""
    committed: list[int] = []
    for report in run([trial()], tmp_path):
        if isinstance(report, Checkpointed):
            committed.append(report.update)
        found = checkpoint.committed(tmp_path, trial())
        assert max(found, default=-1) == max(committed, default=-1)
    assert paths.policy(tmp_path, trial().key).exists()


def test_without_a_storage_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: Whole) -> None:
    monkeypatch.chdir(tmp_path)
    reports = list(run([trial()]))
    assert list(tmp_path.iterdir()) == []
    assert [plain(r) for r in reports] == [plain(r) for r in undisturbed[0] if not isinstance(r, Checkpointed)]


@pytest.mark.parametrize("cut", [0, 1, 2, 9, 10, 12, 24, -2])
def test_stopped_anywhere_and_resumed_equals_uninterrupted(cut: int, tmp_path: Path, undisturbed: Whole) -> None:
    whole, wanted = undisturbed
    cut %= len(whole)
    first = run([trial()], tmp_path)
    seen = [plain(next(first)) for _ in range(cut)]
    first.close()
    assert seen == [plain(r) for r in whole[:cut]]
    rest = list(run([trial()], tmp_path))

    assert result(tmp_path, trial()) == wanted
    last = max((i for i, r in enumerate(whole[:cut]) if isinstance(r, Checkpointed)), default=-1)
    assert [plain(r) for r in rest] == [plain(r) for r in whole[last + 1 :]], "nothing committed is done or told again, the rest is"


def test_a_finished_trial_is_only_told_to_be_finished(tmp_path: Path, undisturbed: Whole) -> None:
    list(run([trial()], tmp_path))
    (only,) = run([trial()], tmp_path)
    assert isinstance(only, Finished)
    assert result(tmp_path, trial()) == undisturbed[1]


@pytest.mark.parametrize("algorithm", ["bc", "td3_bc", "iql"])
def test_a_trial_goes_on_alone_after_having_been_in_a_stack(algorithm: str, tmp_path: Path) -> None:
    own, mate = trial(0, algorithm=algorithm), trial(1, "random_erk", 0.7, algorithm)
    alone = list(run([own], tmp_path / "alone"))
    for stop_at in (0, 7, 14, 28):
        storage = tmp_path / str(stop_at)
        reports: list[Report] = []
        for report in (together := run([mate, own], storage)):
            reports.append(report)
            if report == Checkpointed(stop_at):
                together.close()
                break
        rest = list(run([own], storage))
        assert result(storage, own) == result(tmp_path / "alone", own)
        assert [plain(r, 1) for r in reports] + [plain(r) for r in rest] == [plain(r) for r in alone]


def test_a_trial_of_the_authors_protocol_on_a_cut_dataset_resumes_as_it_was(tmp_path: Path) -> None:
    given = {"transitions": 200, "initialization": "xavier", "timeouts": "terminal", "hyper": {"gaussian": True}}
    own = trial(0, "snip", 0.8, "bc", **given)
    whole = list(run([own], tmp_path / "whole"))
    assert isinstance(whole[-1], Finished)
    kept = [r.statistics[0] for r in whole if isinstance(r, Pruned)]
    other = [r.statistics[0] for r in run([replace(own, transitions=0)]) if isinstance(r, Pruned)]
    assert kept != other, "the mask is of other data"
    for stop_at in (0, 14):
        stopped_and_resumed(own, stop_at, tmp_path / str(stop_at), "dense")
        assert result(tmp_path / str(stop_at), own) == result(tmp_path / "whole", own)


@pytest.mark.parametrize("pruner", ["rigl", "rlx2", "set", "sparse_reg"])
def test_masks_that_move_stopped_anywhere_and_resumed_equal_uninterrupted(pruner: str, tmp_path: Path) -> None:
    own = trial(0, pruner, 0.8, pruning={"delta": 5})
    whole = list(run([own], tmp_path / "whole", "auto"))
    pruned = [report.statistics[0] for report in whole if isinstance(report, Pruned)]
    assert len(pruned) > 3
    assert (pruned[0]["mask/first_overlap/critic"], pruned[0]["mask/replaced/critic"]) == (1, 0)
    assert all(0 < now["mask/replaced/critic"] < 1 for now in pruned[1:])
    assert 0 < pruned[-1]["mask/first_overlap/critic"] < 1
    assert {now["mask/density/critic"] for now in pruned} == {pruned[0]["mask/density/critic"]}
    for stop_at in (7, 14, 21):
        reports = stopped_and_resumed(own, stop_at, tmp_path / str(stop_at))
        assert [plain(r) for r in reports] == [plain(r) for r in whole]
        assert result(tmp_path / str(stop_at), own) == result(tmp_path / "whole", own)


def test_n_step_targets_that_begin_during_training_reach_the_tapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RLx2's begin at update 15, by when updates are repeated from tapes; without tapes it trains the same policy."""
    own, never = (trial(0, "rlx2", 0.8, pruning={"n_step_from": start, "delta": 10}) for start in (0.5, 1.0))
    for one in (own, never):
        list(run([one], tmp_path / "taped", "sparse"))
    monkeypatch.setattr(trainables.training.updates, "recorder", lambda agent: None)
    list(run([own], tmp_path / "anew", "sparse"))
    reports = stopped_and_resumed(own, 21, tmp_path / "resumed", "sparse")
    assert isinstance(reports[-1], Finished)
    policy = result(tmp_path / "taped", own)["policy.safetensors"]
    assert policy == result(tmp_path / "anew", own)["policy.safetensors"] == result(tmp_path / "resumed", own)["policy.safetensors"]
    assert policy != result(tmp_path / "taped", never)["policy.safetensors"]


@pytest.mark.parametrize(
    ("pruner", "network", "algorithm"),
    [
        ("rigl", "layer_norm", "rebrac"), ("rigl", "simba", "td3_bc"),
        ("set", "layer_norm", "td3_bc"), ("set", "simba", "xql"),
        ("rlx2", "layer_norm", "xql"), ("rlx2", "simba", "rebrac"),
        ("sparse_reg", "layer_norm", "rebrac"), ("sparse_reg", "simba", "xql"),
        ("gmp", "layer_norm", "xql"), ("gmp", "simba", "td3_bc"),
        ("imp", "layer_norm", "td3_bc"), ("imp", "simba", "rebrac"),
        ("rigl", "mlp", "xql"), ("sparse_reg", "mlp", "rebrac"), ("imp", "mlp", "xql"),
    ],
)  # fmt: skip
def test_masks_that_change_in_normalized_sparse_networks_do_so_in_a_stack_as_in_a_trial_that_is_stopped_and_resumed_alone(
    pruner: str, network: str, algorithm: str, tmp_path: Path
) -> None:
    """XQL's value and ReBRAC's critic are normalized in an `mlp`, too."""
    given = {"network": network, "pruning": SETTINGS_OF.get(pruner, {"delta": 5}), "updates": 16, "evaluations": 1, "episodes": 1}
    own, mate = trial(0, pruner, 0.8, algorithm, **given), trial(1, pruner, 0.6, algorithm, **given)
    together = list(run([mate, own], tmp_path / "together", "sparse"))
    assert isinstance(together[-1], Finished)
    assert together[-1].execution == "sparse"
    pruned = [report.details[1]["critic"] for report in together if isinstance(report, Pruned)]
    changed = [report.update for report in together if isinstance(report, Pruned)]
    assert any(0 < update <= 7 for update in changed), "it changes before the stop"
    assert any(update > 7 for update in changed), "and after it"
    assert pruned[-1]["density"] == pytest.approx(0.2, abs=1e-3)
    reports = stopped_and_resumed(own, 7, tmp_path / "alone", "sparse")
    assert [plain(r) for r in reports] == [plain(r, 1) for r in together]
    assert result(tmp_path / "alone", own) == result(tmp_path / "together", own)


Changing = tuple[Trial, list[Any], dict[str, bytes]]


@pytest.fixture(scope="module")
def changing(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Changing]:
    """Of a pruner whose masks change, and an algorithm: a trial, and its reports and result when nothing disturbs it."""

    @functools.cache
    def whole(pruner: str, algorithm: str) -> Changing:
        settings = {"pruning": SETTINGS_OF.get(pruner, {"delta": 10})}
        own, folder = trial(0, pruner, 0.8, algorithm, **settings), tmp_path_factory.mktemp("whole")
        reports = [plain(r) for r in run([own], folder) if not isinstance(r, Checkpointed)]
        return own, reports, result(folder, own)

    return whole


@pytest.mark.parametrize(
    ("pruner", "algorithm"),
    [("rigl", "td3_bc"), ("rlx2", "td3_bc"), ("sparse_reg", "td3_bc"), ("gmp", "td3_bc"), ("imp", "iql")],  # a learning rate that restarts
)
@pytest.mark.parametrize("asked", [8, 9, "in the change", 10])  # masks change ahead of update 10
def test_a_trial_that_leaves_around_a_change_of_its_masks_continues_as_if_it_had_not(
    pruner: str, algorithm: str, asked: int | str, tmp_path: Path, changing: Callable[[str, str], Changing]
) -> None:
    own, whole, wanted = changing(pruner, algorithm)
    leave = Leave()
    with pytest.MonkeyPatch.context() as patch:
        at, change = Agent.at, trainables.run.change

        def ask_at(agent: Agent, update: int) -> None:
            at(agent, update)
            leave.asked |= update == asked

        def ask_in(*arguments: Any) -> Any:
            leave.asked |= asked == "in the change"
            return change(*arguments)

        patch.setattr(Agent, "at", ask_at)
        patch.setattr(trainables.run, "change", ask_in)
        reports, first = [], run_stack(Stack((own,)), tmp_path / "left", execution="dense", checkpoint_every=EVERY, leave=leave)
        with pytest.raises(StoppedError):
            reports += first
    assert 6 < leave.kept == leave.update <= 11
    rest = list(run([own], tmp_path / "left"))
    assert [plain(r) for r in reports + rest if not isinstance(r, Checkpointed)] == whole
    assert result(tmp_path / "left", own) == wanted


@pytest.mark.parametrize(("pruner", "algorithm"), [("gmp", "td3_bc"), ("imp", "td3_bc"), ("imp", "iql")])
def test_gradual_pruning_stopped_anywhere_and_resumed_equals_uninterrupted(pruner: str, algorithm: str, tmp_path: Path) -> None:
    """The mask changes between checkpoints; auto goes from dense to sparse on the way, and IQL's learning rate restarts with IMP."""
    own = trial(0, pruner, 0.9, algorithm)
    whole = list(run([own], tmp_path / "whole", "auto"))
    assert len([r for r in whole if isinstance(r, Pruned)]) > 5
    assert isinstance(whole[-1], Finished)
    last = [r for r in whole if isinstance(r, Pruned)][-1]
    assert last.statistics[0]["mask/density/actor"] == pytest.approx(0.1, abs=1e-3)
    for layer in last.details[0]["actor"]["layers"]:  # |w| of what was left at the last change, from the smallest up
        scores = layer["saliency_quantiles"]
        assert 0 < scores[0] < scores[-1]
        assert scores == sorted(scores)
    for stop_at in (7, 14, 21):
        reports = stopped_and_resumed(own, stop_at, tmp_path / str(stop_at))
        assert [plain(r) for r in reports] == [plain(r) for r in whole]
        assert result(tmp_path / str(stop_at), own) == result(tmp_path / "whole", own)


@pytest.mark.parametrize("updates", [1, 2, 3])
@pytest.mark.parametrize("pruner", ["gmp", "imp"])
def test_gradual_pruning_ends_at_its_density_however_short_the_training(pruner: str, updates: int) -> None:
    pruned = [r for r in run([trial(0, pruner, 0.9, updates=updates, evaluations=1, episodes=1)]) if isinstance(r, Pruned)]
    assert pruned[-1].statistics[0]["mask/density/actor"] == pytest.approx(0.1, abs=1e-3)


@pytest.mark.parametrize("execution", [name for name in executions.CHOICES if name not in ("auto", "fused")])  # a GPU promises no bits
def test_a_stack_tells_of_each_member_what_it_would_tell_alone(execution: str, tmp_path: Path) -> None:
    """Evaluation included, whose batches are small and odd."""
    trials = [
        trial(0, "snip", 0.8), trial(1, "random_erk", 0.85, rescale="layer"), trial(2, "snip", 0.8, hyper={"alpha": 1.0}),
        trial(0, "snip", 0.7, control="shuffle"), trial(0, "snip", 0.7, authors=True, target="effective", allow_disconnected=True),
    ]  # fmt: skip
    together = list(run(trials, tmp_path / "together", execution))
    for member, one in enumerate(trials):
        alone = list(run([one], tmp_path / "alone", execution))
        assert [plain(r, member) for r in together] == [plain(r) for r in alone]
        assert result(tmp_path / "together", one) == result(tmp_path / "alone", one)


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "torn":
        content = content[: len(content) // 2]
    else:
        content[len(content) // 3] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["torn", "flipped"])
@pytest.mark.parametrize("kind", ["json", "safetensors"])
def test_damage_to_the_newest_checkpoint_costs_work_but_nothing_else(how: str, kind: str, tmp_path: Path, undisturbed: Whole) -> None:
    reports = run([trial()], tmp_path)
    while next(reports) != Checkpointed(21):
        pass
    reports.close()
    damage(paths.checkpoints(tmp_path, trial().key) / f"000000021.{kind}", how)
    rest = list(run([trial()], tmp_path))
    assert rest[0].update == 15, "it goes on from the checkpoint before"
    assert result(tmp_path, trial()) == undisturbed[1]


def test_all_checkpoints_damaged_means_from_the_beginning(tmp_path: Path, undisturbed: Whole) -> None:
    reports = run([trial()], tmp_path)
    while next(reports) != Checkpointed(21):
        pass
    reports.close()
    for path in paths.checkpoints(tmp_path, trial().key).iterdir():
        damage(path, "torn")
    assert [plain(r) for r in run([trial()], tmp_path)] == [plain(r) for r in undisturbed[0]]
    assert result(tmp_path, trial()) == undisturbed[1]


def test_a_diverged_member_harms_no_other(tmp_path: Path, undisturbed: Whole) -> None:
    wild = trial(5, hyper={"learning_rate": 1e30})
    reports = list(run([wild, trial()], tmp_path))
    (diverged,) = [r for r in reports if isinstance(r, Diverged)]
    assert diverged.member == 0
    assert 0 < diverged.update < wild.updates
    assert "finite" in diverged.reason
    own = [plain(r, 1) for r in reports if not isinstance(r, Diverged)]
    assert own == [plain(r) for r in undisturbed[0]]
    assert result(tmp_path, trial()) == undisturbed[1]
    after = [r for r in reports if isinstance(r, Evaluated) and r.update >= diverged.update]
    assert after
    assert all(math.isnan(value) for r in after for value in r.episodes[0]["returns"])


def test_a_stack_of_which_all_diverged_ends_at_once(tmp_path: Path) -> None:
    reports = list(run([trial(k, hyper={"learning_rate": 1e30}) for k in (0, 1)], tmp_path))
    assert not any(isinstance(r, Finished) for r in reports)
    assert {r.member for r in reports if isinstance(r, Diverged)} == {0, 1}
    assert reports[-1].update < trial().updates


def play(policy: Path, episodes: str, count: int) -> list[float]:
    """Returns of episodes by a plain reading of a policy's file, with nothing of this project but the seeds."""
    tensors = {name: tensor.double().numpy() for name, tensor in load_file(policy).items()}

    def act(observation: np.ndarray) -> np.ndarray:
        h = tensors["observation_shift"] + tensors["observation_scale"] * observation
        for i in range(2):
            h = np.maximum(tensors[f"weight.{i}"][0] @ h + tensors[f"bias.{i}"][0], 0)
        action = np.tanh(tensors["weight.2"][0] @ h + tensors["bias.2"][0])
        return (action - tensors["action_shift"]) / tensors["action_scale"]

    env = gymnasium.make("Hopper-v5")
    found = []
    for episode in range(count):
        observation, _ = env.reset(seed=key_of(0, f"{episodes}/{episode}")[0])
        total, over = 0.0, False
        while not over:
            observation, reward, terminated, truncated, _ = env.step(act(observation).astype(np.float32))
            total, over = total + float(reward), terminated or truncated
        found.append(total)
    env.close()
    return found


def test_final_episodes_are_others_and_change_nothing_else(tmp_path: Path, undisturbed: Whole) -> None:
    """Five, with three environments at hand."""
    one = trial(final_episodes=5)
    reports = list(run([one], tmp_path))
    (final,) = (report for report in reports if isinstance(report, Evaluated) and report.final)
    assert [plain(report) for report in reports if report is not final] == [plain(report) for report in undisturbed[0]]
    assert reports.index(final) == reports.index(Checkpointed(one.updates)) - 1, "committed with the last checkpoint"
    assert final.episodes[0]["returns"] == pytest.approx(play(paths.policy(tmp_path, one.key), "final", 5), rel=1e-2)
    assert not any(isinstance(report, Evaluated) for report in run([one], tmp_path)), "not played again"


def test_the_policy_file_acts_as_the_agent_did(tmp_path: Path, undisturbed: Whole) -> None:
    """A plain reading of the file repeats the last evaluation."""
    _, files = undisturbed
    for name, content in files.items():
        (tmp_path / Path(name).name).write_bytes(content)
    tensors = load_file(tmp_path / "policy.safetensors")
    about = json.loads((tmp_path / "policy.json").read_text())
    assert about["key"] == trial().key
    assert Trial.from_json(about["trial"]) == trial()
    assert about["environment"] == "Hopper-v5"
    assert about["dataset_hash"] == load_table(HOPPER).hash
    assert about["sizes"] == [11, 16, 16, 3]
    kept = sum(int((tensors[f"weight.{i}"] != 0).sum()) for i in range(3))
    assert kept == round(0.5 * (11 * 16 + 16 * 16 + 16 * 3))
    wanted = [r for r in undisturbed[0] if isinstance(r, Evaluated)][-1].episodes[0]["returns"]
    assert play(tmp_path / "policy.safetensors", "evaluation", trial().episodes) == pytest.approx(wanted, rel=1e-2)


@pytest.mark.parametrize(("algorithm", "states", "normalized"), [("td3_bc", "raw", False), ("sac_n", "normalized", True)])
def test_states_are_seen_as_the_trial_says_in_training_and_by_the_policy(
    algorithm: str, states: str, normalized: bool, tmp_path: Path
) -> None:
    own = trial(algorithm=algorithm, states=states)
    list(run([own], tmp_path))
    table = load_table(HOPPER)
    minibatches = minibatches_of(plugins.load("algorithms", algorithm), Stack((own,)), table)
    wanted = 1 / (table.std + 1e-3) if normalized else np.ones(11)
    policy = load_file(paths.trial(tmp_path, own.key) / "policy.safetensors")
    np.testing.assert_allclose(policy["observation_scale"], wanted, rtol=1e-5)
    np.testing.assert_allclose(minibatches.scale[:11], wanted, rtol=1e-5)
    np.testing.assert_allclose(policy["observation_shift"], -table.mean * wanted if normalized else np.zeros(11), rtol=1e-5)


def test_the_masks_file_and_the_first_report_agree(tmp_path: Path, undisturbed: Whole) -> None:
    reports, files = undisturbed
    (tmp_path / "m").write_bytes(files["masks.safetensors"])
    for name, bits in load_file(tmp_path / "m").items():
        assert int(np.unpackbits(bits.numpy()).sum()) == reports[0].details[0][name]["kept"]


def test_a_fresh_run_builds_each_network_once_per_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent that is trained and the one whose networks are scored: each its actor, critic and their targets."""
    built: Counter[tuple[str, int]] = Counter()  # by execution and inputs: of the actor 11, of the critic 11 + 3
    original = executions.build

    def count(execution: str, spec: MLP, *rows: torch.Tensor) -> executions.Network:
        built[execution, spec.sizes[0]] += 1
        return original(execution, spec, *rows)

    monkeypatch.setattr(executions, "build", count)
    list(run([trial()], execution="compact"))
    assert built == {(execution, inputs): 2 for execution in ("dense", "compact") for inputs in (11, 14)}


def test_a_resumed_run_builds_each_network_once_and_prunes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reports = run([trial()], tmp_path)
    while next(reports) != Checkpointed(7):
        pass
    reports.close()
    built: list[str] = []
    original = executions.build
    monkeypatch.setattr(executions, "build", lambda execution, *given: built.append(execution) or original(execution, *given))
    list(run([trial()], tmp_path, "compact"))
    assert built == ["compact"] * 4


def test_training_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behaviour cloning at 50 % sparsity loses less than a tenth of what constant actions would. The data's own actions are noise: these
    follow from the observations."""
    table = load_table(HOPPER)
    rows, size = table.rows.copy(), table.observation_size
    observations = (rows[:, :size] - table.mean) / (table.std + 1e-3)
    actions = np.tanh(observations @ np.random.default_rng(0).normal(size=(size, table.action_size)) / 2)
    rows[:, size : size + table.action_size] = actions
    monkeypatch.setattr("trainables.run.load_table", lambda _: replace(table, rows=rows))
    reports = list(run([trial(algorithm="bc", pruner="snip", sparsity=0.5, updates=300, evaluations=1, hyper={"learning_rate": 3e-3})]))
    losses = [r.metrics[0]["train/actor_loss"] for r in reports if isinstance(r, Trained)]
    constant = actions.var(axis=0).mean()
    assert losses[-1] < constant / 10 < losses[0]


@pytest.mark.parametrize(
    ("trials", "options", "words"),
    [
        ([replace(trial(), dataset="winnow/hopper/nowhere-v0")], {}, ["no dataset 'winnow/hopper/nowhere-v0'", HOPPER]),
        ([replace(trial(), dataset="hopper")], {}, ["'hopper' is not a Minari id"]),
        ([trial(0, "magnitude", 0.97)], {}, ["no path", "actor.1 keeps 0 of 256"]),
        ([trial()], {"execution": "dens"}, ["no execution 'dens'", "dense"]),
        ([trial()], {"device": "gpu"}, ["no device 'gpu'", "cpu"]),
        ([trial()], {"device": "cuda:99"}, ["no device 'cuda:99'", "cpu"]),
    ],
)
def test_bad_input_is_said_in_one_line_before_anything_is_written(
    trials: list[Trial], options: dict[str, Any], words: list[str], tmp_path: Path
) -> None:
    with pytest.raises(UserError) as caught:
        list(run_stack(Stack(tuple(trials)), tmp_path, **options))
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message
    assert list(tmp_path.iterdir()) == []


def test_a_dataset_that_does_not_fit_its_environment_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = load_table(HOPPER)
    monkeypatch.setattr("trainables.run.load_table", lambda _: replace(table, environment="HalfCheetah-v5"))
    with pytest.raises(UserError, match=r"\(11, 3\) numbers, HalfCheetah-v5 of \(17, 6\)"):
        list(run([trial()], tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_one_thread_is_used() -> None:
    reports = run([trial()])
    next(reports)
    reports.close()
    assert torch.get_num_threads() == 1
