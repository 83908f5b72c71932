"""What the calls of `winnow` refuse, in one line as the commands do, and what they take."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import winnow
from search_spaces.sweep import Sweep, override
from tests.winnow.conftest import Winnow
from trainables.errors import UserError
from winnow import given

DATASET = "test/hopper/random-v0"
REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "a sweep's object": (
        lambda: winnow.plan(winnow.Sweep(datasets=("a/b-v0",), algorithms=("bc",), pruners=("dense",))),
        "the path of its file, such as ./mine.py",
    ),  # type: ignore[arg-type]
    "no sweep": (lambda: winnow.plan(None), "a sweep is given by its name or the path of its file"),  # type: ignore[arg-type]
    "a path to nothing": (lambda: winnow.plan(Path("nope.py")), "no sweep 'nope.py'"),  # type: ignore[arg-type]
    "settings in a list": (lambda: winnow.plan("smoke", ["seeds=0"]), "settings ['seeds=0'] are not a dict, such as"),  # type: ignore[arg-type]
    "settings within one": (lambda: winnow.plan("smoke", {"hyper": {"alpha": 1}}), 'such as "hyper.alpha": 2.5'),
    "no value": (lambda: winnow.plan("smoke", {"seeds": ()}), "the grid is empty: seeds has no value"),
    "a name that would be two": (
        lambda: winnow.plan("smoke", {"datasets": ("a/b-v0,c",)}),
        "datasets 'a/b-v0,c' is not one value: it is empty, or has a comma or spaces around it",
    ),
    "an empty name": (lambda: winnow.plan("smoke", {"pruners": ("snip", "")}), "pruners '' is not one value"),
    "no number": (lambda: winnow.plan("smoke", {"seeds": None}), "seeds 'None' is not an integer, such as 20000, 20k or 2e4"),
    "an option's text": (lambda: winnow.plan("smoke", stack_size="3"), "stack_size = '3' is not an integer"),
    "an option's truth": (lambda: winnow.plan("smoke", stack_size=True), "stack_size = True is not an integer"),
    "an option's range": (lambda: winnow.plan("smoke", stack_size=0), "--stack-size 0 is less than 1"),
    "a flag's number": (lambda: winnow.plan("smoke", fresh=1), "fresh = 1 is not a boolean"),
    "a near flag": (lambda: winnow.plan("smoke", retry_fail=True), "did you mean 'retry_failed'?"),
    "a near option": (lambda: winnow.plan("smoke", stacksize=1), "did you mean 'stack_size'?"),
    "one module": (lambda: winnow.plan("smoke", imports="my_envs"), "imports = 'my_envs' is not a list of modules, such as"),
    "a module's name": (lambda: winnow.plan("smoke", imports=["my-envs"]), "--import 'my-envs' is not the name of a module"),
    "a storage's number": (lambda: winnow.plan("smoke", storage=3), "storage 3 is neither a folder nor s3://bucket/prefix"),  # type: ignore[arg-type]
    "progress": (lambda: winnow.run("smoke", progress="no"), "progress 'no' is neither True nor False, nor a function"),  # type: ignore[arg-type]
    "no sweeps": (lambda: winnow.results(), "no sweep given; give at least one, e.g. winnow.results('quickstart')"),
    "an unknown sweep": (lambda: winnow.curves("smokey"), "no sweep 'smokey' in sqlite:///"),
    "a style": (lambda: winnow.report("smoke", style="papers"), "no style 'papers'; there are: paper, slides; did you mean 'paper'?"),  # type: ignore[arg-type]
    "no dataset": (lambda: winnow.trial(None), "dataset None is not a string"),  # type: ignore[arg-type]
    "a name of D4RL's": (lambda: winnow.trial("hopper-medium-v2"), "take winnow/hopper/medium-v0, recorded here"),
    "a share in percent": (lambda: winnow.trial(DATASET, "bc", "snip", 95), "sparsity 95 is outside [0, 1)"),
    "several seeds": (lambda: winnow.trial(DATASET, seed=(0, 1)), "seed (0, 1) is not an integer >= 0"),
    "hyperparameters": (lambda: winnow.trial(DATASET, hyper="alpha=1"), "hyper 'alpha=1' is not a dict, such as"),
    "a near field": (lambda: winnow.trial(DATASET, sparsities=0.5), "did you mean 'sparsity'?"),
    "no policy": (lambda: winnow.load_policy("nowhere"), "no policy at 'nowhere'"),
}


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_a_wrong_call_is_one_line_and_writes_nothing(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call, says = REFUSED[case]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WINNOW_STORAGE", str(tmp_path / "storage"))
    with pytest.raises(UserError) as told:
        call()
    assert says in str(told.value)
    assert "\n" not in str(told.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "seeds",
    [(0, 1, 2), [0, 1, 2], "0-2", "0,1,2", range(3), {0, 1, 2}, np.arange(3), (i for i in range(3))],
    ids=lambda seeds: type(seeds).__name__,
)
def test_values_may_come_as_python_has_them(seeds: object, tmp_path: Path) -> None:
    plan = winnow.plan("smoke", {"seeds": seeds, "updates": 2e3, "pruners": "dense"}, storage=tmp_path / "storage")
    assert sorted(trial.seed for trial in plan.trials) == [0, 1, 2]
    assert {trial.updates for trial in plan.trials} == {2000}


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("hyper.hidden", (16,), (16,)),
        ("hyper.hidden", (16, 16), (16, 16)),
        ("hyper.hidden", ((16, 16),), ((16, 16),)),
        ("hyper.hidden", ((16, 16), (8,)), ((16, 16), (8,))),
        ("hyper.hidden", [np.array([16, 16]), [np.int64(8)]], ((16, 16), (8,))),
        ("hyper.hidden", "16,16", (16, 16)),
        ("hyper.alpha", 2.5, 2.5),
        ("hyper.alpha", (2.5,), (2.5,)),
        ("hyper.alpha", np.float64(2.5), 2.5),
        ("hyper.alpha", (), ()),
        ("hyper.alpha", ("a,b",), ("a,b",)),
        ("hyper.alpha", ("it's 4k", '"'), ("it's 4k", '"')),
        ("pruning.delta", (10, 20), (10, 20)),
        ("sparsity_of.actor", [0.5, np.float64(0.1 + 0.2)], (0.5, 0.1 + 0.2)),
    ],
)
def test_what_is_typed_for_a_setting_gives_it_back(name: str, value: object, kept: object) -> None:
    mapping, _, key = name.partition(".")
    found = getattr(override(Sweep(datasets=("a/b-v0",)), given.overrides({name: value})), mapping)[key]
    assert found == kept
    assert type(found) is type(kept)


def test_a_layer_in_a_tuple_trains_networks_of_one_layer(tmp_path: Path) -> None:
    plan = winnow.plan("smoke", {"hyper.hidden": (16,)}, storage=tmp_path / "storage")
    assert {trial.hyper["hidden"] for trial in plan.trials} == {(16,)}


def test_what_else_a_run_can_be_asked_is_what_the_command_takes(tmp_path: Path) -> None:
    asked = {"retry_failed": True, "fresh": True, "new_data": True, "same_code": True}
    plan = winnow.plan("smoke", storage=tmp_path / "storage", stack_size=2, study_storage="sqlite:///studies.db", **asked)
    assert plan.settings.words() == [
        "--stack-size=2", "--retry-failed", "--fresh", "--new-data", "--same-code", "--study-storage=sqlite:///studies.db"
    ]  # fmt: skip
    assert {trial.fresh for trial in plan.trials} == {"smoke"}


def test_a_sweeps_path_may_be_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINNOW_FILES", "")
    monkeypatch.setattr(sys, "path", [*sys.path])
    file = tmp_path / "mine_of_a_path.py"
    file.write_text('from winnow import Sweep\n\nSWEEP = Sweep(datasets=("a/b-v0",), algorithms=("bc",), pruners=("dense",))\n')
    assert len(winnow.plan(file, storage=tmp_path / "storage").trials) == 1
    del sys.modules[file.stem]


SESSION = """
import os
from pathlib import Path

import winnow
from service.storage import paths

def pruners(sweep="first"):
    return sorted({trial.pruner for trial in winnow.plan(sweep).trials})

def replace(file, old, new):
    text = Path(file).read_text()
    assert old in text
    Path(file).write_text(text.replace(old, new))

assert pruners() == ["dense", "snip", "steepest"]
Path("pruners/flat.py").write_text(Path("pruners/steepest.py").read_text())
replace("sweeps/first.py", '"steepest"', '"flat"')
assert pruners() == ["dense", "flat", "snip"], "a new plug-in and a changed sweep"
replace("algorithms/rewarded_bc.py", "temperature: float = 20.0", "temperature: float = 10.0")
(changed, *_) = [t for t in winnow.plan("first").trials if t.algorithm == "rewarded_bc"]
assert changed.hyper_values()["temperature"] == 10.0, "a changed algorithm"
Path("more.py").write_text(Path("sweeps/first.py").read_text())
assert pruners("./more.py") == ["dense", "flat", "snip"]
replace("more.py", '"flat", ', "")
assert pruners("./more.py") == ["dense", "snip"], "a changed file"
Path("more.py").rename("sweeps/more.py")
assert pruners("more") == ["dense", "snip"], "a moved file"
replace("winnow.toml", 'storage = "storage"', 'storage = "other"')
winnow.plan("first")
assert paths.root(None) == Path("other").absolute(), "a changed setting"
os.chdir("../second")
assert pruners() == ["dense", "snip", "steepest"], "another project"
assert paths.root(None) == Path("storage").absolute()
os.chdir("/")
try:
    winnow.plan("first")
except winnow.UserError as error:
    assert str(error).startswith("no sweep 'first'"), error
"""


def test_a_notebook_outlives_the_files_of_its_project(project: Path, winnow: Winnow) -> None:
    """What is edited, added, moved or chosen between two calls counts in the next one."""
    (project / "session.py").write_text(SESSION)
    assert winnow("init", str(project.parent / "second")).returncode == 0
    ran = winnow(module="session", folder=project)
    assert ran.returncode == 0, ran.stderr
