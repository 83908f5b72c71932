"""The notebook of examples/, executed, and what its calls refuse."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import winnow
from service.spool.writer import StackSpool
from tests.winnow.conftest import ROOT
from trainables.errors import UserError
from trainables.reports import Checkpointed
from trainables.run import run_stack
from trainables.training.process import set_up_torch
from trainables.trial import Stack, Trial
from winnow import one

NOTEBOOK = ROOT / "examples" / "notebook.ipynb"
PROGRAM = """
import json, sys
from pathlib import Path
from tests.notebook import execute
done = execute(Path(sys.argv[1]), {"winnow/hopper/random-v0": "test/hopper/random-v0"})
Path("done.ipynb").write_text(json.dumps(done))
"""


def test_the_notebook_runs_from_an_empty_folder(tmp_path: Path, hopper: str) -> None:
    command = [sys.executable, "-c", PROGRAM, str(NOTEBOOK)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_"))} | {
        "PYTHONPATH": str(ROOT)
    }
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    executed = json.loads((tmp_path / "done.ipynb").read_text())
    text = json.dumps(executed)
    assert "4 trials, 4 to run" in text
    assert (tmp_path / "storage" / "reports" / "smoke" / "page.html").is_file()
    shown = [cell["outputs"] for cell in executed["cells"] if cell["cell_type"] == "code"]
    stored = [cell["outputs"] for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    assert [[output["output_type"] for output in each] for each in stored] == [[output["output_type"] for output in each] for each in shown]


def test_one_trial_is_a_curve_and_a_policy(tmp_path: Path, hopper: str, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {"updates": 60, "evaluations": 2, "episodes": 1, "seed": 3}
    made = winnow.trial(hopper, "bc", "snip", 0.5, storage=tmp_path, progress=False, **settings)
    assert capsys.readouterr().out == ""
    assert list(made.curve["update"]) == [30, 60]
    assert made.score == made.curve["score"].iloc[-1]
    assert made.trial.seed == 3
    assert "<table" in made._repr_html_()
    assert made.policy()(made.policy().scaling["observation_shift"]).shape == (3,)
    at_once = winnow.trial(hopper, "bc", "snip", 0.5, storage=tmp_path, progress=False, **settings)
    assert at_once.curve.equals(made.curve), "a trial that is finished has the curve that it had"
    lines: list[str] = []
    again = winnow.trial(hopper, "bc", "snip", 0.5, progress=lines.append, **settings)
    assert capsys.readouterr().out == ""
    assert [line.split(":")[0] for line in lines if line.startswith("after")] == ["after 30 updates", "after 60 updates"]
    assert again.curve.equals(made.curve)
    with pytest.raises(UserError, match="no policy was kept"):
        again.policy()


@pytest.mark.parametrize("until", [20, 40, 60])
def test_a_trial_that_a_sweep_has_trained_has_its_curve_and_score(until: int, tmp_path: Path, hopper: str) -> None:
    """To the end or to a checkpoint; they are in its spool, whether or not MLflow has them."""
    settings = {"updates": 60, "evaluations": 3, "episodes": 1, "seed": 4}
    stack = Stack((Trial(dataset=hopper, algorithm="bc", **settings),))
    spool = StackSpool(stack, tmp_path, {hopper: {}}, 20)
    for report in run_stack(stack, tmp_path, checkpoint_every=20):
        spool(report)
        if isinstance(report, Checkpointed) and report.update == until < 60:
            break
    spool.close()
    found = winnow.trial(hopper, "bc", storage=tmp_path, progress=False, **settings)
    alone = winnow.trial(hopper, "bc", progress=False, **settings)
    assert list(alone.curve["update"]) == [20, 40, 60]
    assert found.curve.equals(alone.curve)
    assert found.score == alone.score
    assert winnow.trial(hopper, "bc", storage=tmp_path, progress=False, **settings).curve.equals(alone.curve)


def test_a_trial_that_diverged_in_a_sweep_has_no_score(tmp_path: Path, hopper: str) -> None:
    settings = {"updates": 60, "evaluations": 3, "episodes": 1, "hyper": {"learning_rate": 3e37}}
    stack = Stack((Trial(dataset=hopper, algorithm="bc", **settings),))
    spool = StackSpool(stack, tmp_path, {hopper: {}}, 20)
    for report in run_stack(stack, tmp_path, checkpoint_every=20):
        spool(report)
    spool.close()
    found = winnow.trial(hopper, "bc", storage=tmp_path, progress=False, **settings)
    assert "not finite" in found.diverged
    assert math.isnan(found.score)
    assert len(found.curve) == 0


@pytest.mark.parametrize("nonsense", ["[1]", "[{}]", "{", '"x"', '[{"update": null}]'])
def test_a_curve_that_makes_no_sense_is_left_out(nonsense: str, tmp_path: Path) -> None:
    (folder := tmp_path / "trials" / ("0" * 16)).mkdir(parents=True)
    (folder / one.CURVE).write_text(nonsense)
    assert one._kept(tmp_path, "0" * 16) == []


def test_a_trial_that_diverges_has_no_score_however_often_it_is_asked_for(tmp_path: Path, hopper: str) -> None:
    """What is played after the divergence means nothing, and a call that finds it diverged says so again."""
    settings = {"updates": 60, "evaluations": 3, "episodes": 1, "hyper": {"learning_rate": 3e37}}
    made = [winnow.trial(hopper, "bc", storage=tmp_path, progress=False, **settings) for _ in range(2)]
    for each in made:
        assert "not finite" in each.diverged
        assert math.isnan(each.score)
        assert len(each.curve) == 0
    alone = winnow.trial(hopper, "bc", progress=False, **settings)
    assert alone.diverged == made[0].diverged


def test_torch_is_left_as_it_was(hopper: str) -> None:
    import torch

    torch.set_num_threads(2)
    torch.set_float32_matmul_precision("medium")
    flushed = torch.set_flush_denormal(False)
    try:
        inside = []
        winnow.trial(hopper, "bc", progress=lambda line: inside.append(torch.get_num_threads()), updates=20, evaluations=1, episodes=1)
        assert set(inside) == {1}
        assert (torch.get_num_threads(), torch.get_float32_matmul_precision()) == (2, "medium")
        assert float(torch.tensor(1e-40) * 1) > 0, "denormal numbers are numbers again"
        assert flushed
    finally:
        set_up_torch()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: winnow.trial("a/b-v0", sed=1), "no field of a trial 'sed'; there are: dataset, algorithm"),
        (lambda: winnow.trial("a/b-v0", "td4"), "no algorithm 'td4'"),
        (lambda: winnow.report(), "no sweep given"),
        (lambda: winnow.report("nothing"), "nothing"),
    ],
)
def test_what_cannot_be_is_one_line(call: Callable[[], object], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINNOW_STORAGE", str(tmp_path / "storage"))
    with pytest.raises(UserError, match=says) as refused:
        call()
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "storage").exists()
