from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from trainables.datasets import local
from trainables.datasets.__main__ import main
from trainables.datasets.table import load_table

O, A = 11, 3  # noqa: E741 - the shape legend's letters, Hopper's sizes
NAME = "d4rl/hopper/test-v2"
LENGTHS = [(5, "terminal"), (4, "timeout"), (1, "timeout"), (1, "terminal"), (3, "unfinished")]
Write = Callable[..., Path]


def content() -> dict[str, np.ndarray]:
    """Five episodes in D4RL's layout, with fields that training does not need; the last episode is cut off by the end of the file."""
    rng = np.random.default_rng(0)
    parts: dict[str, list[np.ndarray]] = {"observations": [], "next_observations": [], "terminals": [], "timeouts": []}
    for steps, end in LENGTHS:
        states = rng.normal(size=(steps + 1, O)).astype(np.float32)
        last = np.arange(steps) == steps - 1
        parts["observations"].append(states[:-1])
        parts["next_observations"].append(states[1:])
        parts["terminals"].append(last & (end == "terminal"))
        parts["timeouts"].append(last & (end == "timeout"))
    found = {name: np.concatenate(values) for name, values in parts.items()}
    rows = len(found["terminals"])
    found |= {"actions": rng.uniform(-1, 1, (rows, A)).astype(np.float32), "rewards": rng.normal(size=rows).astype(np.float32)}
    return found | {"infos/qpos": rng.normal(size=(rows, 6))}


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write a D4RL file with fields changed (None: left out); returns its path."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setenv("WINNOW_CACHE", str(tmp_path / "cache"))

    def made(**changed: Any) -> Path:
        path = tmp_path / "hopper.hdf5"
        with h5py.File(path, "w") as file:
            for name, value in (content() | changed).items():
                if value is not None:
                    file[name] = value
        return path

    return made


def take(file: Path, *more: str) -> int:
    return main(["import", str(file), "--environment", "Hopper-v4", "--name", NAME, *more])


def columns() -> tuple[np.ndarray, ...]:
    found: tuple[np.ndarray, ...] = tuple(np.split(np.asarray(load_table(NAME).rows), np.cumsum([O, A, 1, O]), axis=1))
    return found


def test_every_transition_is_the_files(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    assert take(write()) == 0
    wanted, table = content(), load_table(NAME)
    observations, actions, rewards, after, terminal = columns()
    np.testing.assert_array_equal(observations, wanted["observations"])
    np.testing.assert_array_equal(after, wanted["next_observations"])
    np.testing.assert_array_equal(actions, wanted["actions"])
    np.testing.assert_array_equal(rewards[:, 0], wanted["rewards"])
    np.testing.assert_array_equal(terminal[:, 0], wanted["terminals"])
    assert table.episode_lengths.tolist() == [5, 4, 1, 1, 3]
    assert (table.environment, table.reference.expert) == ("Hopper-v4", 3234.3)
    assert "14 transitions in 5 episodes of Hopper-v4" in capsys.readouterr().out


def test_without_next_observations_they_are_derived_and_the_last_of_an_episode_goes(write: Write) -> None:
    """A terminal's next observation is not bootstrapped from, so terminal rows stay: without them no failure would be seen."""
    assert take(write(next_observations=None)) == 0
    wanted = content()
    keep = np.ones(14, bool)
    keep[[8, 9, 13]] = False  # the last rows of the timeouts and of the unfinished episode
    observations, _, rewards, after, terminal = columns()
    np.testing.assert_array_equal(observations, wanted["observations"][keep])
    np.testing.assert_array_equal(rewards[:, 0], wanted["rewards"][keep])
    np.testing.assert_array_equal(np.flatnonzero(terminal), [4, 8])
    inside = terminal[:, 0] == 0
    np.testing.assert_array_equal(after[inside], wanted["next_observations"][keep][inside])
    assert load_table(NAME).episode_lengths.tolist() == [5, 3, 1, 2]


def test_without_timeouts_episodes_end_where_the_next_observation_is_another(write: Write) -> None:
    assert take(write(timeouts=None)) == 0
    assert load_table(NAME).episode_lengths.tolist() == [5, 4, 1, 1, 3]
    np.testing.assert_array_equal(columns()[3], content()["next_observations"])


def test_without_both_episodes_end_at_the_time_limit(write: Write) -> None:
    rng = np.random.default_rng(0)
    rows = 2300
    flat = {"observations": rng.normal(size=(rows, O)), "actions": np.zeros((rows, A)), "rewards": np.ones((rows, 1))}
    assert take(write(**flat, terminals=np.zeros((rows, 1), np.uint8), timeouts=None, next_observations=None)) == 0
    assert load_table(NAME).episode_lengths.tolist() == [999, 999, 299]  # Hopper's limit is 1000


def test_a_row_that_continues_nothing_starts_an_episode(write: Write) -> None:
    after = content()["next_observations"].copy()
    after[1] += 1  # D4RL's sets have such rows
    assert take(write(next_observations=after)) == 0
    assert load_table(NAME).episode_lengths.tolist() == [2, 3, 4, 1, 1, 3]
    np.testing.assert_array_equal(columns()[3], after)


def broken(field: str, row: int, value: float) -> np.ndarray:
    changed = content()[field].astype(np.float32)
    changed[row] = value
    return changed


def test_a_file_of_an_environment_with_settings_is_evaluated_in_it(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """D4RL's Ant observes contact forces: 111 numbers, where gymnasium's Ant-v4 by default has 27."""
    rows, rng = len(content()["rewards"]), np.random.default_rng(0)
    file = write(observations=rng.normal(size=(rows, 111)), actions=rng.uniform(-1, 1, (rows, 8)), next_observations=None)
    ant = ["import", str(file), "--environment", "Ant-v4", "--name", NAME]
    assert main(ant) == 2
    assert "observations are of 111 numbers, those of Ant-v4 of (27,)" in capsys.readouterr().err
    assert main([*ant, "--environment-kwargs", '{"use_contact_forces": true}']) == 0
    table = load_table(NAME)
    assert (table.environment, table.observation_size) == ('Ant-v4 {"use_contact_forces": true}', 111)
    assert table.reference.expert == 3879.7
    assert main(["check", NAME]) == 0
    for bad in ("[1]", "{", "use_contact_forces=true"):
        capsys.readouterr()
        assert main([*ant, "--environment-kwargs", bad]) == 2
        assert capsys.readouterr().err.startswith(f"error: settings {bad!r} of the environment Ant-v4 are not a JSON object such as")


def test_a_field_that_is_a_group_is_named(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(**{"observations": None, "observations/x": np.zeros(3), "timeouts": None, "timeouts/y": np.zeros(3)})
    assert take(file) == 2
    error = capsys.readouterr().err
    assert error == f"error: {file} is not a D4RL file: an HDF5 group, not an array, is its observations, timeouts\n"
    assert not local.exists(NAME)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"rewards": None, "terminals": None}, "it has no rewards, terminals; it has: actions, infos, next_observations"),
        ({"rewards": np.zeros(13), "timeouts": np.zeros(12)}, "observations has 14 rows, but rewards 13, timeouts 12"),
        ({"actions": np.zeros(14)}, r"actions has the shape \(14,\); \[N, n\] is wanted"),
        ({"next_observations": np.zeros((14, 5))}, r"next_observations has the shape \(14, 5\), observations \(14, 11\)"),
        ({"rewards": broken("rewards", 3, np.nan)}, "rewards holds 1 of 14 values that are not finite .*in row 3"),
        ({"observations": broken("observations", 2, np.inf)}, "observations holds 11 of 154 values that are not finite .*row 2"),
        (
            {"observations": content()["observations"].astype(np.float64) + 1e300},
            "observations holds 154 of 154 values that are not finite .*row 0",
        ),
        ({"terminals": broken("terminals", 6, 0.5)}, "terminals holds 1 of 14 values that are neither 0 nor 1, the first in row 6"),
        ({"rewards": np.array(["x"] * 14, dtype="S1")}, "rewards is of type"),
        ({"actions": np.zeros((14, 2))}, r"actions are of 2 numbers, those of Hopper-v4 of \(3,\)"),
        ({"actions": broken("actions", 0, 1.5)}, "1 of 14 actions lie outside Hopper-v4's box"),
        ({name: value[:0] for name, value in content().items()}, "holds no transition"),
    ],
)
def test_a_bad_file_is_named_field_by_field_and_nothing_is_written(
    write: Write, capsys: pytest.CaptureFixture[str], changed: dict[str, Any], said: str
) -> None:
    assert take(write(**changed)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert re.search(said, error)
    assert not local.root().exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["import", "nowhere.hdf5", "--environment", "Hopper-v4", "--name", NAME], "no file 'nowhere.hdf5'"),
        (["import", __file__, "--environment", "Hopper-v4", "--name", NAME], "cannot be read as HDF5"),
        (["import", __file__, "--environment", "Hoper-v4", "--name", NAME], "no environment 'Hoper-v4'"),
        (["import", __file__, "--environment", "Hopper-v4", "--name", "medium"], "is not a Minari id"),
        (["import", __file__, "--environment", "Hopper-v4", "--name", "winnow/hopper/medium-v0"], "are recorded here"),
        (["check", "d4rl/hopper/absent-v0"], "no dataset 'd4rl/hopper/absent-v0'"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("trainables.datasets.minari_store.SEARCH_SECONDS", 0.1)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_what_is_there_stays_unless_forced_and_is_listed_and_checked(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    file = write()
    assert main(["list"]) == 0
    assert "no dataset in" in capsys.readouterr().out
    assert take(file) == 0
    before = load_table(NAME).hash
    assert take(write(rewards=np.ones(14))) == 2
    assert "--force replaces it" in capsys.readouterr().err
    assert load_table(NAME).hash == before
    assert take(file, "--force") == 0
    assert load_table(NAME).hash != before
    capsys.readouterr()
    assert main(["list"]) == 0
    assert capsys.readouterr().out.split()[:6] == [NAME, "14", "transitions", "5", "episodes", "Hopper-v4"]
    assert main(["check", NAME]) == 0
    assert load_table(NAME).hash[:12] in capsys.readouterr().out


def test_a_folder_that_is_no_dataset_is_in_nobodys_way(write: Write) -> None:
    """As another tool may have left it when it was killed."""
    left = local.folder(NAME) / "data" / "main_data.hdf5"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half of it")
    assert take(write()) == 0
    assert len(load_table(NAME)) == 14


@pytest.mark.parametrize(("there", "name"), [(NAME, f"{NAME}/y-v0"), (f"{NAME}/y-v0", NAME)])
def test_a_dataset_inside_another_would_be_lost_with_it(there: str, name: str, write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["import", str(write()), "--environment", "Hopper-v4", "--force", "--name"]
    assert main([*given, there]) == 0
    assert main([*given, name]) == 2
    assert f"dataset {name!r} would " in capsys.readouterr().err
    assert local.local_datasets() == [there]
