"""`datasets show`: what is in a dataset, and what a trainer would trip over."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from tests.stacks import made_up_table
from tests.trainables.datasets.cases import BEACON, record, seek
from trainables.datasets.__main__ import main
from trainables.datasets.about.describe import trips
from trainables.datasets.table import Table, names_of

DATASET = "test/show/small-v0"


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))


def test_a_dataset_is_described_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(DATASET, gymnasium.make("Pendulum-v1"), lambda seen: np.float32([2 * np.sign(seen[2])]))
    assert main(["show", DATASET, "--picture", str(tmp_path / "p.png")]) == 0
    text = capsys.readouterr().out
    for wanted in (
        "600 transitions in 3 episodes",
        "played        Pendulum-v1, at most 200 time steps",
        "100 of -138: random torques and value iteration",
        "lengths       200 to 200",
        "ends          0 terminal, 3 at the time limit, 0 cut off before it",
        "share of values at a bound 100.0%",
        "velocity",
        "box -2 to 2",
        "100% of action values are at a bound",
        "only 3 episodes",
    ):
        assert wanted in text
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    counts = [int(line.split()[3].replace(",", "")) for line in text.split("rewards\n")[1].splitlines()[:10]]
    assert sum(counts) == 600
    assert main(["show", DATASET, "--picture", "p.gif"]) == 2
    assert "does not end in one of: .png, .svg, .pdf" in capsys.readouterr().err


def test_dict_observations_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    record(DATASET, gymnasium.make(BEACON), seek, episodes=12)
    assert main(["show", DATASET]) == 0
    text = capsys.readouterr().out
    assert "desired_goal 1" in text
    assert "FlattenObservation" in text
    assert "no reference returns" in text


def changed(table: Table, column: int | slice, value: Any) -> Table:
    rows = np.array(table.rows)
    rows[:, column] = value
    return replace(table, rows=rows)


def test_what_a_trainer_would_trip_over_is_said() -> None:
    table = replace(made_up_table(), episode_lengths=np.full(20, 25), episode_returns=np.zeros(20, np.float32), horizon=25)
    last = np.zeros(500)
    last[24::25] = 1
    table = changed(table, -1, last)

    def said(table: Table) -> str:
        return "\n".join(trips(table, names_of(table)))

    assert said(table) == ""
    assert "20 of 20 episodes stop before the time limit of 30" in said(replace(changed(table, -1, 0), horizon=30))
    assert said(replace(changed(table, -1, 0), horizon=25)) == ""
    assert "1 of 5 observations are constant: observation 3" in said(changed(table, 3, 1.0))
    assert "1 of 2 actions hardly vary (deviation below 0.05 of half the box): action 1" in said(changed(table, 6, 0.01))
    assert "50% of action values are at a bound" in said(changed(table, 5, 2.0))
    assert "every reward is 1" in said(changed(table, 7, 1.0))
    assert "reward_scale" in said(changed(table, 7, np.linspace(0, 500, 500)))
    assert "480 transitions are terminal in the middle" in said(changed(table, -1, 1))
    assert "499 of 500 transitions are copies" in said(replace(table, rows=np.repeat(table.rows[:1], 500, axis=0)))
    assert "only 1 episodes" in said(replace(table, episode_lengths=np.array([500])))
    assert "mujoco" in said(replace(table, note="recorded with mujoco 2"))
