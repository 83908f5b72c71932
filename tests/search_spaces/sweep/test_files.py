from __future__ import annotations

import pytest

from search_spaces.sweep import expand, load_sweep, sweep_names
from search_spaces.sweep.space import spaces
from trainables.errors import UserError


@pytest.mark.parametrize("name", sweep_names())
def test_every_file_of_the_folder_declares_a_grid(name: str) -> None:
    assert expand(load_sweep(name)) or spaces(load_sweep(name))


def test_the_folder_has_the_sweeps_that_the_documents_name() -> None:
    assert {"quickstart", "smoke", "td3bc_sparsity", "mujoco_sparsity"} <= set(sweep_names())
    assert len(expand(load_sweep("quickstart"))) == 14
    grid = expand(load_sweep("mujoco_sparsity"))
    assert {t.updates for t in grid} == {1_000_000}
    assert len(grid) == 15 * 3 * (1 + 6 * 4) * 5


@pytest.mark.parametrize("name", ["quickstar", "", "../trainables/trial", "sweep", "__init__"])
def test_a_wrong_name_is_answered_with_the_right_ones(name: str) -> None:
    with pytest.raises(UserError, match=r"no sweep .*; there are: .*quickstart"):
        load_sweep(name)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("from search_spaces.sweep import Sweep\nSWEEP = Sweep(dataset='x')", "unexpected keyword"),
        ("SWEEP = 3", "SWEEP is a int"),
        ("SWEEP = (", "never closed"),
        ("", "has no attribute 'SWEEP'"),
    ],
)
def test_a_file_that_declares_no_sweep_is_told(text: str, says: str, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(text)
    monkeypatch.setattr("search_spaces.sweep.files.FOLDER", tmp_path)
    monkeypatch.setattr("search_spaces.__path__", [str(tmp_path)])
    monkeypatch.delitem(__import__("sys").modules, "search_spaces.mine", raising=False)
    with pytest.raises(UserError, match=says):
        load_sweep("mine")
