from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import minari
import numpy as np
import pytest

from tests.faults.support.harness import LONG
from trainables import environments
from trainables.datasets import local
from trainables.datasets.collect import policy, tiers
from trainables.datasets.collect.__main__ import main
from trainables.datasets.collect.record import record
from trainables.datasets.collect.ship import ship
from trainables.datasets.table import load_table
from trainables.errors import UserError

ROOT = Path(__file__).parents[3]
HOPPER = "winnow/hopper/medium-expert-v0"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setenv("WINNOW_CACHE", str(tmp_path / "cache"))
    return tmp_path / "minari"


def leftovers(root: Path) -> list[Path]:
    return [path for path in root.iterdir() if path.name.startswith(".")]


# --- what is shipped ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", policy.families())
def test_the_shipped_files_hold_every_snapshot_that_a_tier_plays(family: str) -> None:
    card, policies = policy.card(family), policy.load(family)
    assert (policy.FOLDER / f"{family}.safetensors").stat().st_size < 1_000_000
    played = {segment.snapshot for tier in tiers.TIERS for segment in tiers.segments(tier, card, 100_000)} - {None}
    assert played == set(policies)
    assert environments.family_of(card["environment"]) == family
    assert card["settings"]["seed"] >= 0
    assert card["curve"][-1]["steps"] == card["trained_steps"]
    score = {tier: card["tiers"][tier]["returns"]["sampled"]["normalized"] for tier in ("random", "medium", "expert")}
    assert score["random"] < score["medium"] < score["expert"]


def test_there_are_policies_for_the_three_environments() -> None:
    assert {"halfcheetah", "hopper", "walker2d"} <= set(policy.families())


@pytest.mark.parametrize("family", policy.families())
@pytest.mark.parametrize("transitions", [1, 7, 100_000])
def test_the_segments_of_every_tier_add_up(family: str, transitions: int) -> None:
    card = policy.card(family)
    for tier in tiers.TIERS:
        assert sum(segment.transitions for segment in tiers.segments(tier, card, transitions)) == transitions
    replay = tiers.segments("medium-replay", card, 100_000)
    start, medium = card["settings"].get("learning_starts", 0), card["tiers"]["medium"]["snapshot"]
    assert sum(segment.transitions for segment in replay if segment.snapshot is None) == round(100_000 * start / medium)
    shown = [segment.snapshot for segment in replay if segment.snapshot is not None]
    assert (replay[0].snapshot is None) == (start > 0)  # the learner's random start comes first
    assert shown == sorted(set(shown))  # then the order of training
    assert shown[-1] == medium


def test_the_numpy_policy_is_a_squashed_gaussian() -> None:
    rng = np.random.default_rng(0)
    sizes = [("Dense_0", 4, 8), ("Dense_1", 8, 2), ("Dense_2", 8, 2)]
    tensors = {f"00000010/{name}/kernel": rng.normal(size=(a, b)) for name, a, b in sizes}
    tensors |= {f"00000010/{name}/bias": rng.normal(size=b) for name, _, b in sizes}
    actor = policy.Policy.from_tensors(tensors)
    observations, noise = rng.normal(size=(5, 4)).astype(np.float32), rng.normal(size=(5, 2)).astype(np.float32)
    w = {name.removeprefix("00000010/"): value for name, value in tensors.items()}
    x = np.maximum(observations @ w["Dense_0/kernel"] + w["Dense_0/bias"], 0)
    mean, log_std = x @ w["Dense_1/kernel"] + w["Dense_1/bias"], x @ w["Dense_2/kernel"] + w["Dense_2/bias"]
    np.testing.assert_allclose(actor.act(observations), np.tanh(mean), atol=1e-5)
    np.testing.assert_allclose(actor.act(observations, noise), np.tanh(mean + np.exp(np.clip(log_std, -20, 2)) * noise), atol=1e-5)


def test_ppos_gaussian_is_clipped_and_does_not_depend_on_the_observation() -> None:
    rng = np.random.default_rng(0)
    w = {
        f"params/Dense_{i}/{n}": rng.normal(size=s)
        for i, (a, b) in enumerate([(4, 8), (8, 2)])
        for n, s in (("kernel", (a, b)), ("bias", b))
    }
    actor = policy.Policy.from_tensors(w | {"log_std": np.array([-1.0, 0.5])})
    observations, noise = rng.normal(size=(50, 4)).astype(np.float32), rng.normal(size=(50, 2)).astype(np.float32)
    mean = np.maximum(observations @ w["params/Dense_0/kernel"] + w["params/Dense_0/bias"], 0) @ w["params/Dense_1/kernel"]
    mean = mean + w["params/Dense_1/bias"]
    np.testing.assert_allclose(actor.act(observations), np.clip(mean, -1, 1), atol=1e-5)
    np.testing.assert_allclose(actor.act(observations, noise), np.clip(mean + np.exp([-1.0, 0.5]) * noise, -1, 1), atol=1e-5)
    assert (np.abs(actor.act(observations)) == 1).any()


# --- recording ---------------------------------------------------------------------------------------------------------------


def test_two_recordings_have_the_same_content_and_another_seed_has_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = []
    for name, seed in [("one", 0), ("two", 0), ("three", 1)]:
        monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / name))
        record(HOPPER, 1500, seed)
        hashes.append(load_table(HOPPER).hash)
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_recording_is_the_episodes_it_says(place: Path) -> None:
    """Played again with gymnasium's own wrappers from the recorded seeds and actions, the data come out again."""
    record(HOPPER, 1500)
    data = minari.load_dataset(HOPPER)
    assert data.total_steps == 1500
    about: dict[str, Any] = data.storage.metadata
    assert about["behaviour"]["tier"] == "medium-expert"
    assert [segment["transitions"] for segment in about["behaviour"]["segments"]] == [750, 750]
    assert any(line.startswith("mujoco==") for line in about["requirements"])
    env = environments.make("Hopper-v5")
    kinds = set()
    for episode, extra in zip(data.iterate_episodes(), data.storage.get_episode_metadata(range(data.total_episodes)), strict=True):
        assert episode.observations.dtype == np.float32
        observation, _ = env.reset(seed=extra["seed"])
        np.testing.assert_array_equal(episode.observations[0], observation.astype(np.float32))
        for t, action in enumerate(episode.actions):
            observation, reward, terminated, _, _ = env.step(action)
            np.testing.assert_array_equal(episode.observations[t + 1], observation.astype(np.float32))
            assert episode.rewards[t] == np.float32(reward)
            assert episode.terminations[t] == terminated
        assert not episode.terminations[:-1].any()
        assert not episode.truncations[:-1].any()
        assert episode.terminations[-1] != episode.truncations[-1]
        kinds.add("terminated" if episode.terminations[-1] else "cut")
    assert "cut" in kinds  # at the end of each segment
    env.close()
    table = load_table(HOPPER)
    assert table.note == ""
    assert table.reference.normalize(3234.3) == pytest.approx(100)


def test_the_random_tier_is_uniform_and_the_others_are_sampled() -> None:
    record("winnow/hopper/random-v0", 2000)
    actions = np.asarray(load_table("winnow/hopper/random-v0").rows)[:, 11:14]
    assert np.abs(actions.mean(axis=0)).max() < 0.05
    np.testing.assert_allclose(actions.std(axis=0), 1 / np.sqrt(3), rtol=0.05)
    record("winnow/hopper/expert-v0", 500)
    rows = np.asarray(load_table("winnow/hopper/expert-v0").rows)
    expert = policy.load("hopper")[policy.card("hopper")["tiers"]["expert"]["snapshot"]]
    mode = expert.act(rows[:, :11])
    assert np.abs(rows[:, 11:14] - mode).mean() > 1e-3
    assert np.corrcoef(rows[:, 11:14].ravel(), mode.ravel())[0, 1] > 0.5


def test_a_dataset_is_kept_unless_forced(place: Path) -> None:
    folder = record(HOPPER, 300)
    before = load_table(HOPPER).hash
    stamp = (folder / "data" / "main_data.hdf5").stat().st_mtime_ns
    record(HOPPER, 400, seed=5)
    assert (folder / "data" / "main_data.hdf5").stat().st_mtime_ns == stamp
    record(HOPPER, 400, seed=5, force=True)
    assert len(load_table(HOPPER)) == 400
    assert load_table(HOPPER).hash != before
    assert leftovers(place) == []


def test_a_recording_that_fails_leaves_nothing_and_keeps_the_old_one(place: Path) -> None:
    def fail(done: int, total: int) -> None:
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        record(HOPPER, 300, progress=fail)
    assert not local.exists(HOPPER)
    assert leftovers(place) == []
    record(HOPPER, 300)
    before = load_table(HOPPER).hash
    with pytest.raises(RuntimeError, match="stopped"):
        record(HOPPER, 300, seed=1, force=True, progress=fail)
    assert load_table(HOPPER).hash == before


def test_a_disk_that_is_nearly_full_ends_a_recording_in_one_line(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it is full: then HDF5 would end the process by a signal."""
    free = iter([1 << 30, 1 << 20])
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=next(free)))
    with pytest.raises(UserError, match=rf"dataset '{HOPPER}' cannot be written below .*No space left on device"):
        record(HOPPER, 2500)
    assert not local.exists(HOPPER)
    assert leftovers(place) == []


def test_a_killed_recording_is_never_found(place: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "trainables.datasets.collect", "record", HOPPER, "--transitions", "1000000"],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + LONG
    while not list(place.glob(".writing-*/new/data/main_data.hdf5")):
        assert child.poll() is None, "it has ended"
        assert time.monotonic() < until
        time.sleep(0.05)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert leftovers(place) != []  # it was writing
    assert local.local_datasets() == []
    assert not local.exists(HOPPER)
    record(HOPPER, 300)
    assert local.local_datasets() == [HOPPER]
    assert len(load_table(HOPPER)) == 300
    assert leftovers(place) != [], "somebody may still be writing it"
    for path in (left for scratch in place.glob(".writing-*") for left in (scratch, *scratch.rglob("*"))):
        os.utime(path, (time.time() - 25 * 3600,) * 2)
    record(HOPPER, 300, force=True)
    assert leftovers(place) == []


def test_recording_imports_neither_torch_nor_a_learners_library() -> None:
    program = (
        "import sys; from trainables.datasets.collect.__main__ import main\n"
        f"main(['record', {HOPPER!r}, '--transitions', '50'])\n"
        "print(*sorted({'torch', 'jax', 'sbx', 'stable_baselines3'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.splitlines()[1] == ""


# --- the commands ------------------------------------------------------------------------------------------------------------


def test_the_commands_record_and_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["record", HOPPER, "--transitions", "200"]) == 0
    assert "recorded, 200 transitions" in capsys.readouterr().out
    assert main(["record", HOPPER]) == 0
    kept = capsys.readouterr().out
    assert "kept, 200 transitions" in kept
    assert kept.endswith("; recorded with --transitions 200 --seed 0, not 100000 and 0: --force replaces it\n")
    assert main(["record", HOPPER, "--transitions", "200"]) == 0
    assert "--force" not in capsys.readouterr().out
    assert main(["list"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert list(lines) == tiers.all_ids()
    assert lines[HOPPER].split()[1] == "here"
    assert lines["winnow/hopper/random-v0"].split()[1] == "-"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["record"], "no dataset given"),
        (["record", "winnow/hopper/best-v0"], "winnow/hopper/expert-v0"),
        (["record", "winnow/humanoid/expert-v0"], "winnow/hopper/expert-v0"),
        (["record", "mujoco/hopper/expert-v0"], "winnow/hopper/expert-v0"),
        (["record", HOPPER, "winnow/hopper/best-v0"], "winnow/hopper/best-v0"),
        (["record", HOPPER, "--transitions", "0"], "transitions 0"),
        (["record", HOPPER, "--seed", "-1"], "seed -1"),
        (["ship", "/nowhere"], "/nowhere"),
    ],
)
def test_bad_input_is_one_line_and_records_nothing(
    arguments: list[str], said: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert said in captured.err
    assert not place.exists()


def test_training_without_its_extra_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "sbx", None)  # as if it were not installed
    assert main(["train", "Hopper-v5", "--to", str(tmp_path / "run")]) == 2
    assert "winnow-rl[collect]" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


# --- shipping ----------------------------------------------------------------------------------------------------------------


def write_run(folder: Path, snapshots: int) -> Path:
    """A training's folder as `train` leaves it, with actors of random weights that push harder from one to the next."""
    folder.mkdir()
    settings = {"env": "Hopper-v5", "algorithm": "TQC", "library": "sbx-rl 0", "learning_starts": 10_000, "seed": 3}
    (folder / "settings.json").write_text(json.dumps(settings))
    lines = []
    for i in range(1, snapshots + 1):
        rng = np.random.default_rng(i)
        tensors = {}
        for layer, (a, b) in enumerate([(11, 16), (16, 16), (16, 3), (16, 3)]):
            tensors[f"params/Dense_{layer}/kernel"] = rng.normal(size=(a, b)).astype(np.float32) * 0.1 * i
            tensors[f"params/Dense_{layer}/bias"] = np.zeros(b, np.float32)
        np.savez(folder / f"actor-{20_000 * i:08d}.npz", **tensors)
        lines.append(json.dumps({"steps": 20_000 * i, "returns": [10.0 * i, 20.0 * i]}))
    (folder / "curve.jsonl").write_text("\n".join([*lines, '{"steps": 99']))  # the last line is still being written
    return folder


def test_shipping_chooses_measures_and_writes_what_recording_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "run", 30)
    monkeypatch.setattr(policy, "FOLDER", tmp_path / "policies")
    path = ship(run)
    assert path == tmp_path / "policies" / "hopper.json"
    card = json.loads(path.read_text())
    expert, medium = card["tiers"]["expert"], card["tiers"]["medium"]
    assert medium["snapshot"] < expert["snapshot"]
    replay = card["tiers"]["medium-replay"]["snapshots"]
    assert replay[-1] == medium["snapshot"]
    assert len(replay) <= 18
    assert len(card["curve"]) == 30
    assert set(policy.load("hopper")) == {*replay, medium["snapshot"], expert["snapshot"]}
    assert sorted(os.listdir(tmp_path / "policies")) == ["hopper.json", "hopper.safetensors"]
    # what is written is what was measured: the shipped policy has the return that the card tells
    from trainables.simulation.evaluator import Evaluator

    actor = policy.load("hopper")[expert["snapshot"]]
    again = Evaluator("Hopper-v5", [[1_000_000 + i for i in range(20)]]).run(lambda o: actor.act(o))
    told = expert["returns"]["deterministic"]
    assert (round(float(again.mean()), 2), round(float(again.std()), 2)) == (told["mean"], told["std"])
    record("winnow/hopper/medium-replay-v0", 400)
    assert len(load_table("winnow/hopper/medium-replay-v0")) == 400


def test_a_run_with_too_little_in_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least 2"):
        ship(write_run(tmp_path / "run", 1), tmp_path / "policies")
    assert not (tmp_path / "policies").exists()
