from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import h5py
import numpy as np
import pytest
from minari.data_collector import EpisodeBuffer
from minari.dataset.minari_storage import MinariStorage

from tests.stacks import made_up_table
from trainables.datasets import local
from trainables.datasets.__main__ import main
from trainables.datasets.table import load_table
from trainables.datasets.table_evaluator import evaluator_of
from trainables.errors import UserError

ROOT = Path(__file__).parents[3]
O, A = 11, 3  # noqa: E741 - the shape legend's letters, Hopper's sizes
Make = Callable[..., Path]


def episode(steps: int, end: str, seed: int = 0) -> EpisodeBuffer:
    """Random numbers; `end` is the flag that the last step carries: termination, truncation or neither."""
    rng = np.random.default_rng([seed, steps])
    last = np.arange(steps) == steps - 1
    return EpisodeBuffer(
        observations=rng.normal(size=(steps + 1, O)).astype(np.float32),
        actions=rng.uniform(-1, 1, (steps, A)).astype(np.float32),
        rewards=rng.normal(size=steps).astype(np.float32),
        terminations=last & (end == "termination"),
        truncations=last & (end == "truncation"),
    )


TRAPS = [
    episode(5, "termination", 1),
    episode(4, "truncation", 2),
    episode(3, "neither", 3),
    episode(1, "termination", 4),
    episode(1, "neither", 5),
]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Write a real Minari dataset below a fresh root; returns its folder."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setenv("WINNOW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def write(
        dataset: str = "test/hopper/small-v0",
        episodes: list[EpisodeBuffer] | None = None,
        environment: str | None = "Hopper-v5",
        space: Any = None,
        action_space: Any = None,
        data_format: str = "hdf5",
        **metadata: Any,
    ) -> Path:
        folder = local.folder(dataset)
        (folder / "data").mkdir(parents=True)
        storage = MinariStorage.new(
            folder / "data",
            observation_space=space or gymnasium.spaces.Box(-np.inf, np.inf, (O,), np.float32),
            action_space=action_space or gymnasium.spaces.Box(-1, 1, (A,), np.float32),
            env_spec=gymnasium.spec(environment) if environment else None,
            data_format=data_format,
        )
        storage.update_metadata({"dataset_id": dataset, "minari_version": "0.5.4", **metadata})
        storage.update_episodes(TRAPS if episodes is None else episodes)
        return folder

    return write


def edit(folder: Path, **changed: Any) -> None:
    path = folder / "data" / "metadata.json"
    value = json.loads(path.read_text()) | changed
    path.write_text(json.dumps({name: v for name, v in value.items() if v is not None}))


def split(table: Any) -> list[Any]:
    return np.split(np.asarray(table.rows), np.cumsum([O, A, 1, O]), axis=1)


@pytest.mark.parametrize("data_format", ["hdf5", "arrow"])
def test_rows_are_the_transitions_with_all_ends_right(make: Make, data_format: str) -> None:
    make(data_format=data_format)
    table = load_table("test/hopper/small-v0")
    observations, actions, rewards, after, terminal = split(table)
    assert table.rows.shape == (14, 2 * O + A + 2)
    assert table.rows.dtype == np.float32
    np.testing.assert_array_equal(observations, np.concatenate([np.asarray(e.observations)[:-1] for e in TRAPS]))
    np.testing.assert_array_equal(after, np.concatenate([np.asarray(e.observations)[1:] for e in TRAPS]))
    np.testing.assert_array_equal(actions, np.concatenate([np.asarray(e.actions) for e in TRAPS]))
    np.testing.assert_array_equal(rewards[:, 0], np.concatenate([e.rewards for e in TRAPS]))
    # 1 at the two terminations only: a truncation, and an end without any flag, are bootstrapped through
    np.testing.assert_array_equal(np.flatnonzero(terminal), [4, 12])
    assert set(np.unique(terminal)) == {0.0, 1.0}
    # no row pairs an observation with one of the next episode
    ends = np.cumsum(table.episode_lengths) - 1
    assert table.episode_lengths.tolist() == [5, 4, 3, 1, 1]
    assert all(not np.array_equal(after[i], observations[i + 1]) for i in ends[:-1])
    np.testing.assert_allclose(table.episode_returns, [np.sum(e.rewards) for e in TRAPS], rtol=1e-6)
    np.testing.assert_allclose(table.mean, observations.mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(table.std, observations.std(axis=0), rtol=1e-5)
    assert (table.observation_size, table.action_size, table.horizon, table.environment) == (O, A, 1000, "Hopper-v5")
    assert table.action_low.tolist() == [-1] * A
    assert table.action_high.tolist() == [1] * A


@pytest.mark.parametrize("data_format", ["arrow", "parquet"])
def test_infos_and_very_long_episodes_do_not_matter(make: Make, data_format: str) -> None:
    """Minari's own reader fails at the infos, numbers alone, and takes an episode of several record batches for several episodes."""
    steps = 140_000  # a batch has 131,072 rows
    ones, ends = np.ones(steps, np.float32), np.arange(steps) == steps - 1
    observations = np.arange((steps + 1) * O, dtype=np.float32).reshape(-1, O)
    infos = {"success": np.zeros(steps + 1, np.bool_), "state": {"x": np.zeros(steps + 1)}}
    long = EpisodeBuffer(
        observations=observations, actions=np.ones((steps, A), np.float32), rewards=ones, terminations=ends, truncations=~ends, infos=infos
    )
    make(data_format=data_format, episodes=[long, *TRAPS])
    table = load_table("test/hopper/small-v0")
    assert table.episode_lengths.tolist() == [steps, *(len(e.rewards) for e in TRAPS if len(e.rewards))]
    np.testing.assert_array_equal(table.rows[:steps, :O], observations[:-1])
    np.testing.assert_array_equal(table.rows[:steps, -1], ends)


def test_float64_data_becomes_float32(make: Make) -> None:
    one = episode(6, "truncation")
    wide = EpisodeBuffer(
        observations=np.asarray(one.observations, np.float64) + 1e-12,
        actions=one.actions,
        rewards=np.asarray(one.rewards, np.float64),
        terminations=one.terminations,
        truncations=one.truncations,
    )
    make(episodes=[wide], space=gymnasium.spaces.Box(-np.inf, np.inf, (O,), np.float64))
    np.testing.assert_array_equal(split(load_table("test/hopper/small-v0"))[0], np.asarray(one.observations)[:-1])


def test_the_reference_is_the_metadatas_else_the_environments(make: Make) -> None:
    make("test/hopper/own-v0", ref_min_score=10.0, ref_max_score=20.0)
    make("test/hopper/none-v0")
    own, none = load_table("test/hopper/own-v0"), load_table("test/hopper/none-v0")
    assert own.reference.normalize(15) == 50
    assert "metadata" in own.reference.source
    assert (none.reference.random, none.reference.expert) == (-20.272305, 3234.3)
    assert "hopper.py" in none.reference.source
    assert own.hash != none.hash  # scores on them differ
    edit(local.folder("test/hopper/own-v0"), ref_min_score=20.0, ref_max_score=20.0)
    assert "hopper.py" in load_table("test/hopper/own-v0").reference.source, "a scale without a length is none"


def test_no_reference_at_all_leaves_the_returns(make: Make) -> None:
    make("test/reacher/x-v0", environment="Reacher-v5")
    table = load_table("test/reacher/x-v0")
    assert not table.reference.known
    assert np.isnan(table.reference.normalize(table.episode_returns)).all()
    assert table.reference.source == "none known"
    assert table.in_brief()["normalized_score"] is None, "programs read JSON, which has no nan"


def test_the_hash_is_of_the_content(make: Make) -> None:
    first = make("test/hopper/a-v0")
    make("test/hopper/b-v0")
    a, b = load_table("test/hopper/a-v0"), load_table("test/hopper/b-v0")
    assert a.hash == b.hash  # another id, other files, another time: the same content
    os.utime(first / "data" / "main_data.hdf5", ns=(1, 1))
    assert load_table("test/hopper/a-v0").hash == a.hash
    edit(first, env_spec=gymnasium.spec("Hopper-v4").to_json())
    assert load_table("test/hopper/a-v0").hash != a.hash
    edit(first, env_spec=json.dumps(json.loads(gymnasium.spec("Hopper-v5").to_json()) | {"max_episode_steps": 500}))
    assert load_table("test/hopper/a-v0").hash != a.hash, "episodes of half the length have other returns"
    make("test/hopper/c-v0", episodes=[*TRAPS[:-1], episode(1, "neither", 6)])
    assert load_table("test/hopper/c-v0").hash != a.hash

    # the same rows cut into episodes elsewhere have other returns
    def constant(steps: int) -> EpisodeBuffer:
        flags = np.zeros(steps, np.bool_)
        zeros = np.zeros((steps + 1, O), np.float32)
        return EpisodeBuffer(None, None, None, zeros, zeros[1:, :A], np.ones(steps, np.float32), flags, flags)

    make("test/hopper/whole-v0", episodes=[constant(3)])
    make("test/hopper/parts-v0", episodes=[constant(1)] * 3)
    assert load_table("test/hopper/whole-v0").hash != load_table("test/hopper/parts-v0").hash


def test_a_hash_is_not_known_any_more_once_a_projects_reference_returns_are_others(make: Make, tmp_path: Path) -> None:
    make("test/reacher/x-v0", environment="Reacher-v5")
    project = tmp_path / "project"
    (project / "environments").mkdir(parents=True)
    (project / "winnow.toml").touch()
    program = (
        "from trainables.datasets.known_hashes import known_hash\nknown = known_hash('test/reacher/x-v0')\n"
        "from trainables.datasets.table import load_table\nprint(known == load_table('test/reacher/x-v0').hash, bool(known))"
    )

    def known(expert: float) -> str:
        (project / "environments" / "mine.py").write_text(f"IDS, RANDOM_RETURN, EXPERT_RETURN = ('Reacher-v5',), -40.0, {expert}\n")
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, "-c", program], cwd=project, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    # of another length: Python takes a file of the same length, written in the same second, for the one that it has compiled
    assert [known(-4), known(-4), known(-30), known(-30)] == ["False False", "True True", "False False", "True True"]


def test_the_table_is_prepared_once_and_shared(make: Make, tmp_path: Path) -> None:
    folder = make()
    first = load_table("test/hopper/small-v0")
    assert isinstance(first.rows, np.memmap)
    stored = next((tmp_path / "cache").glob("*.npy"))
    before = stored.stat().st_mtime_ns
    again = load_table("test/hopper/small-v0")
    assert stored.stat().st_mtime_ns == before
    assert again.hash == first.hash
    again.rows[:] = 0  # copy on write: private to whoever writes
    assert np.asarray(load_table("test/hopper/small-v0").rows).any()
    # rewritten data are seen
    (folder / "data" / "main_data.hdf5").unlink()
    (folder / "data" / "metadata.json").unlink()
    folder.joinpath("data").rmdir()
    folder.rmdir()
    make(episodes=[episode(7, "truncation", 9)])
    assert len(load_table("test/hopper/small-v0")) == 7


def test_a_torn_cache_is_prepared_again(make: Make, tmp_path: Path) -> None:
    make()
    good = np.array(load_table("test/hopper/small-v0").rows)
    stored = next((tmp_path / "cache").glob("*.npy"))
    stored.write_bytes(stored.read_bytes()[:-8])
    np.testing.assert_array_equal(load_table("test/hopper/small-v0").rows, good)
    next((tmp_path / "cache").glob("*.npz")).write_bytes(b"PK torn")
    np.testing.assert_array_equal(load_table("test/hopper/small-v0").rows, good)


def test_two_processes_may_prepare_at_once(make: Make, tmp_path: Path) -> None:
    make(episodes=[episode(400, "truncation", i) for i in range(20)])
    program = "from trainables.datasets.table import load_table; t = load_table('test/hopper/small-v0'); print(t.hash, float(t.rows.sum()))"
    children = [subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = {child.communicate()[0] for child in children}
    table = load_table("test/hopper/small-v0")
    assert said == {f"{table.hash} {float(table.rows.sum())}\n"}
    assert [path for path in (tmp_path / "cache").rglob("*") if path.name.startswith(".")] == []  # no scratch is left


def test_opening_a_prepared_table_imports_neither_minari_nor_gymnasium_nor_torch(make: Make) -> None:
    make()
    load_table("test/hopper/small-v0")
    program = (
        "import sys; from trainables.datasets import local\n"
        "assert local.local_datasets() == ['test/hopper/small-v0'] and local.exists('test/hopper/small-v0')\n"
        "print(*sorted({'numpy', 'h5py', 'minari', 'gymnasium', 'torch'} & set(sys.modules)))\n"
        "from trainables.datasets.table import load_table; load_table('test/hopper/small-v0')\n"
        "print(*sorted({'h5py', 'minari', 'gymnasium', 'torch'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "\n\n", "")


def refused(dataset: str = "test/hopper/small-v0") -> str:
    with pytest.raises(UserError) as caught:
        load_table(dataset)
    said = str(caught.value)
    assert "\n" not in said
    assert dataset in said
    return said


def test_a_missing_dataset_says_what_there_is_and_what_to_do(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    make("test/hopper/small-v0")
    make("test/walker/other-v0")
    said = refused("test/hopper/smal-v0")
    assert "test/hopper/small-v0, test/walker/other-v0" in said
    assert "minari download test/hopper/smal-v0" in said
    assert "record it: winnow datasets collect winnow/halfcheetah/expert-v0" in refused("winnow/halfcheetah/expert-v0")
    assert local.local_datasets() == ["test/hopper/small-v0", "test/walker/other-v0"]
    assert not [path for path in local.root().iterdir() if path.name.startswith(".")]


def test_linked_datasets_are_listed_and_loops_end(make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A link to a dataset, to a folder of datasets, and links that lead back, to the root and to themselves."""
    top, folder = tmp_path / "minari", make("test/hopper/small-v0")
    (top / "linked").mkdir()
    (top / "linked" / "one-v0").symlink_to(folder)
    (top / "all").symlink_to(folder.parent)
    (top / "test" / "loop").symlink_to(top)
    (top / "self").symlink_to(top / "self")
    assert local.local_datasets() == ["all/small-v0", "linked/one-v0", "test/hopper/small-v0"]
    assert main(["list"]) == 0
    assert "linked/one-v0" in capsys.readouterr().out
    assert load_table("linked/one-v0").hash == load_table("test/hopper/small-v0").hash


def test_the_home_folder_may_be_written_as_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MINARI_DATASETS_PATH", "~/data")
    assert local.root() == tmp_path / "data"


BARE = """
import gymnasium, numpy as np

class Bare(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (11,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (3,), np.float32)

    def __init__(self{more}):
        pass

    def reset(self, *, seed=None, options=None):
        return np.zeros(11, np.float32), {{}}

    def step(self, action):
        return np.zeros(11, np.float32), 0.0, False, False, {{}}
"""


@pytest.mark.parametrize(("more", "says"), [("", ""), (", size", "cannot be made: TypeError: .*'size'")], ids=["none", "one too many"])
def test_an_environment_that_takes_other_arguments_is_made_or_one_line(
    make: Make, more: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / f"bare{len(more)}.py").write_text(BARE.format(more=more))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("WINNOW_IMPORT", "")  # --import adds to it
    gymnasium.register(f"Bare{len(more)}-v0", entry_point=f"bare{len(more)}:Bare", max_episode_steps=5)
    make("test/bare/small-v0", environment=f"Bare{len(more)}-v0")
    assert main(["check", "test/bare/small-v0", "--import", f"bare{len(more)}"]) == (2 if says else 0)
    output = capsys.readouterr()
    assert output.err.count("\n") == bool(says)
    assert re.search(says, output.err)


@pytest.mark.parametrize("name", ["../../etc-v0", "/etc-v0", "hopper", "a//b-v0", "a/../b-v0", "", "a b-v0", ".hidden/x-v0"])
def test_a_malformed_id_never_becomes_a_path(make: Make, name: str) -> None:
    assert not local.exists(name)
    with pytest.raises(UserError, match="not a Minari id"):
        load_table(name)


def test_the_search_of_the_hub_is_bounded(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainables.datasets.minari_store.SEARCH_SECONDS", 0.2)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert "no answer from the hub" in refused("nobody/nothing-v0")


def replaced(one: EpisodeBuffer, **changed: Any) -> EpisodeBuffer:
    return EpisodeBuffer(**({n: getattr(one, n) for n in ("observations", "actions", "rewards", "terminations", "truncations")} | changed))


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (replaced(TRAPS[0], observations=np.asarray(TRAPS[0].observations)[:-1]), r"shapes.*\(5, 11\)"),
        (replaced(TRAPS[0], observations=np.zeros((6, O + 1), np.float32)), r"shapes.*\(6, 12\)"),
        (replaced(TRAPS[0], actions=np.zeros((4, A), np.float32)), r"shapes.*\(4, 3\)"),
        (replaced(TRAPS[0], rewards=np.full(5, np.nan, np.float32)), "not finite"),
        (replaced(TRAPS[0], actions=np.full((5, A), np.inf, np.float32)), "not finite"),
        (replaced(TRAPS[0], rewards=np.full(5, 1e39)), "beyond float32"),
    ],
)
def test_bad_data_is_refused(make: Make, tmp_path: Path, bad: EpisodeBuffer, said: str) -> None:
    make(episodes=[TRAPS[1], bad])
    with pytest.raises(UserError, match=f"episode 1.*{said}"):
        load_table("test/hopper/small-v0")
    assert list((tmp_path / "cache").glob("*.npy")) == list((tmp_path / "cache").glob(".*")) == []


def test_an_empty_dataset_is_refused(make: Make) -> None:
    make(episodes=[])
    assert "empty" in refused()


def test_other_spaces_are_refused(make: Make) -> None:
    make("test/hopper/discrete-v0", action_space=gymnasium.spaces.Discrete(3), episodes=[])
    edit(local.folder("test/hopper/discrete-v0"), total_steps=1, total_episodes=1)
    assert "Discrete" in refused("test/hopper/discrete-v0")
    make("test/hopper/whole-v0", action_space=gymnasium.spaces.Box(-2, 2, (A,), np.int64), episodes=[])
    edit(local.folder("test/hopper/whole-v0"), total_steps=1, total_episodes=1)
    assert refused("test/hopper/whole-v0").endswith("its actions are int64; only those of floating-point numbers can be trained on")
    make("test/hopper/parts-v0", space=gymnasium.spaces.MultiBinary(O), episodes=[])
    edit(local.folder("test/hopper/parts-v0"), total_steps=1, total_episodes=1)
    assert refused("test/hopper/parts-v0").count("dataset 'test/hopper/parts-v0'") == 1, "a space that can be is not called damaged"
    make("test/hopper/unbounded-v0", action_space=gymnasium.spaces.Box(-np.inf, np.inf, (A,), np.float32))
    assert "not bounded" in refused("test/hopper/unbounded-v0")


DATA_FILES = {"hdf5": "main_data.hdf5", "arrow": "1/part-0.arrow", "parquet": "1/part-0.parquet"}


@pytest.mark.parametrize("data_format", DATA_FILES)
def test_damaged_files_are_refused(make: Make, data_format: str) -> None:
    data = make(data_format=data_format) / "data" / DATA_FILES[data_format]
    data.write_bytes(data.read_bytes()[:300])
    said = refused()
    assert "cannot be read" in said
    assert re.search("; download it where there is a network: minari download [^ ]+ --force$", said), said
    data.unlink()
    assert "cannot be read" in refused()


@pytest.mark.parametrize("data_format", DATA_FILES)
@pytest.mark.parametrize("field", ["observations", "actions", "rewards", "terminations"])
def test_a_missing_field_is_named(make: Make, data_format: str, field: str) -> None:
    import pyarrow.feather
    import pyarrow.parquet

    data = make(data_format=data_format) / "data" / DATA_FILES[data_format]
    if data_format == "hdf5":
        with h5py.File(data, "a") as file:
            del file[f"episode_1/{field}"]
    elif data_format == "arrow":
        pyarrow.feather.write_feather(pyarrow.feather.read_table(data).drop_columns(field), data, compression="uncompressed")
    else:
        pyarrow.parquet.write_table(pyarrow.parquet.read_table(data, partitioning=None).drop_columns(field), data)
    assert re.search(f"cannot be read .*{field}", refused())


BOX = {"type": "Box", "dtype": "float32", "shape": [O], "low": [-1.0] * O, "high": [1.0] * O}


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("total_steps", None, "metadata.json cannot be read .*total_steps"),
        ("total_episodes", "many", "metadata.json cannot be read .*many"),
        ("observation_space", "{", "metadata.json cannot be read"),
        ("observation_space", json.dumps({"type": "Box"}), "its observation space .* has no shape"),
        ("observation_space", json.dumps(BOX | {"low": [0.0] * 3}), "its observation space .* shape"),
        ("observation_space", json.dumps({"type": "Dict", "subspaces": {"a": {"type": "Box"}}}), "observation space .* has no low"),
        ("observation_space", json.dumps([1]), "observation_space is not a JSON object"),
        ("action_space", json.dumps({"type": "Box", "shape": [A]}), "its action space .* has no low"),
        ("env_spec", "{", "env_spec in its metadata is not the JSON of an EnvSpec"),
        ("env_spec", json.dumps({"id": "Hopper-v5", "max_episode_steps": "long"}), "env_spec .*its max_episode_steps is 'long'"),
        ("env_spec", json.dumps({"id": "Hopper-v5", "kwargs": [1]}), r"env_spec .*its kwargs is \[1\]"),
        ("env_spec", json.dumps({"id": 5}), "env_spec .*its id is 5"),
        ("env_spec", None, "names no environment"),
    ],
)
def test_metadata_with_missing_or_wrong_fields_is_one_line(make: Make, field: str, value: Any, said: str) -> None:
    edit(make(), **{field: value})
    assert re.search(said, refused())


def test_metadata_that_is_torn_is_refused(make: Make) -> None:
    (make() / "data" / "metadata.json").write_text('{"total_steps": 3')
    assert "metadata.json cannot be read" in refused()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"total_steps": 13}, "more than the 13"),
        ({"total_steps": 15}, "has 14 transitions, its metadata 15"),
        ({"total_episodes": 6}, "cannot be read"),
    ],
)
def test_metadata_that_contradicts_the_data_is_refused(make: Make, changed: dict[str, int], said: str) -> None:
    edit(make(), **changed)
    assert said in refused()


def test_a_dataset_is_evaluated_in_the_environment_it_was_recorded_in(make: Make) -> None:
    """Its settings are part of its hash, reach the evaluator, and keep the fast path away, which knows the defaults only."""
    folder = make()
    spec = json.loads(gymnasium.spec("Hopper-v5").to_json())
    plain = load_table("test/hopper/small-v0")
    edit(folder, env_spec=json.dumps(spec | {"kwargs": {"render_mode": "rgb_array", "forward_reward_weight": 2.0}}))
    doubled = load_table("test/hopper/small-v0")
    assert doubled.environment == 'Hopper-v5 {"forward_reward_weight": 2.0}'
    assert doubled.hash != plain.hash
    assert not doubled.reference.known, "the family's constants are of the default rewards"

    found = {}
    for table in (plain, doubled):
        evaluator = evaluator_of(table, [[0, 1]])
        found[table.environment] = evaluator.run(lambda seen: np.ones((*seen.shape[:2], A)))
        evaluator.close()
    env = gymnasium.make("Hopper-v5", forward_reward_weight=2.0)
    for episode, seed in enumerate((0, 1)):
        total, over = 0.0, False
        env.reset(seed=seed)
        while not over:
            _, reward, terminated, truncated, _ = env.step(np.ones(A, np.float32))
            total, over = total + float(reward), terminated or truncated
        assert found[doubled.environment][0, episode] == pytest.approx(total, rel=1e-6)
    assert (found[doubled.environment] != found[plain.environment]).all()


def test_settings_of_an_environment_that_are_defaults_or_pictures_say_nothing(make: Make) -> None:
    folder = make()
    plain = load_table("test/hopper/small-v0")
    spec = json.loads(gymnasium.spec("Hopper-v5").to_json())
    edit(folder, env_spec=json.dumps(spec | {"kwargs": {"render_mode": "rgb_array"}}))
    assert load_table("test/hopper/small-v0").environment == "Hopper-v5"
    assert load_table("test/hopper/small-v0").hash == plain.hash
    edit(folder, env_spec=json.dumps(spec | {"kwargs": {"forward_rewards": 2.0}}))
    with pytest.raises(
        UserError,
        match=r"^dataset '.*': environment 'Hopper-v5' cannot be made with the settings {'forward_rewards': 2.0}: .*forward_rewards",
    ):
        evaluator_of(load_table("test/hopper/small-v0"), [[0]])
    edit(folder, env_spec=None)
    assert "env_spec" in refused()


def test_spaces_that_the_metadata_leave_out_are_the_environments(make: Make) -> None:
    edit(make(), observation_space=None, action_space=None)
    assert load_table("test/hopper/small-v0").action_high.tolist() == [1] * A


def test_another_mujoco_than_the_recorded_one_is_said(make: Make) -> None:
    folder = make(requirements=["mujoco==3.0.0"])
    assert "recorded with mujoco 3.0.0" in load_table("test/hopper/small-v0").note
    from importlib.metadata import version

    edit(folder, requirements=[f"mujoco=={version('mujoco')}"])
    assert load_table("test/hopper/small-v0").note == ""


def test_a_cache_that_cannot_be_written_is_said(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("WINNOW_CACHE", str(tmp_path / "file"))
    assert "WINNOW_CACHE" in refused()


def test_the_digest_names_the_file_it_is_of(make: Make, tmp_path: Path) -> None:
    make()
    table = load_table("test/hopper/small-v0")
    expected = hashlib.sha256(np.ascontiguousarray(table.rows).tobytes() + table.episode_lengths.tobytes()).hexdigest()
    assert [path.stem for path in (tmp_path / "cache").glob("*.npy")] == [expected]


def test_a_cut_keeps_whole_episodes_that_the_seed_chooses() -> None:
    table = replace(made_up_table(), episode_lengths=np.full(10, 50), episode_returns=np.arange(10, dtype=np.float32))
    cuts = [table.cut(160, seed) for seed in range(6)]
    for cut in cuts:
        assert (len(cut), len(cut.episode_lengths)) == (150, 3)
        episodes = [cut.rows[start : start + 50] for start in range(0, 150, 50)]
        for rows, number in zip(episodes, cut.episode_returns, strict=True):
            assert np.array_equal(rows, table.rows[50 * int(number) : 50 * int(number) + 50])
        assert np.allclose(cut.mean, cut.rows[:, :5].mean(0), atol=1e-5)
        assert np.allclose(cut.std, cut.rows[:, :5].std(0), atol=1e-5)
    assert len({tuple(cut.episode_returns) for cut in cuts}) > 3
    assert np.array_equal(table.cut(160, 0).rows, cuts[0].rows)
    assert table.cut(0, 1) is table
    assert [len(table.cut(transitions, 0)) for transitions in (149, 150, 151)] == [100, 150, 150]
    assert len(table.cut(50, 0)) == 50
    with pytest.raises(UserError, match="transitions 49 of 'test/made-up-v0' are fewer than the 50 of an episode; whole ones are taken"):
        table.cut(49, 0)
    with pytest.raises(UserError, match="transitions 500 of 'test/made-up-v0' cut nothing off: it has 500; transitions=all takes all"):
        table.cut(500, 0)
