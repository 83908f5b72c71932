"""Every bad input ends with one line on stderr, exit code 2, and nothing written or started."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path

import pytest

from service.__main__ import main

CASES = {
    "sweep": (["quickstar"], "no sweep 'quickstar'; there are: claim, methods, methods_controls, mujoco_sparsity, quickstart"),
    "path for a sweep": (["../secret"], "no sweep '../secret'"),
    "D4RL's name": (
        ["smoke", "--set=datasets=hopper-medium-v2"],
        "dataset 'hopper-medium-v2' is D4RL's name for it, which Minari does not know; take winnow/hopper/medium-v0, recorded here, or "
        "mujoco/hopper/medium-v0 of Minari's hub, or D4RL's file itself: winnow datasets import FILE --environment Hopper-v4 "
        "--name d4rl/hopper/medium-v2",
    ),
    "another of D4RL's names": (
        ["smoke", "--set=datasets=antmaze-umaze-diverse-v0"],
        "take D4RL's file itself: winnow datasets import FILE --environment ID --name d4rl/antmaze/umaze-diverse-v0",
    ),
    "pruner": (["smoke", "--set", "pruners=snap"], "no pruner 'snap'; there are: dense, "),
    "algorithm": (["smoke", "--set", "algorithms=sac"], "no algorithm 'sac'; there are: awac, bc, "),
    "sparsity": (["smoke", "--set", "sparsities=1"], "sparsity 1.0 is outside [0, 1)"),
    "negative sparsity": (["smoke", "--set", "sparsities=-0.5"], "sparsity -0.5 is outside [0, 1)"),
    "sparsity in percent": (["smoke", "--set", "sparsities=95"], "sparsity 95.0 is outside [0, 1)"),
    "empty grid": (["smoke", "--set", "seeds="], "the grid is empty: seeds has no value"),
    "override": (["smoke", "--set", "sed=1"], "no override 'sed'; there are: datasets, algorithms"),
    "override's type": (["smoke", "--set", "updates=many"], "updates 'many' is not an integer"),
    "hyperparameter": (["smoke", "--set", "hyper.alpha=1"], "no hyperparameter of bc 'alpha'; there are: "),
    "setting's range": (
        ["smoke", "--set=pruners=rigl", "--set=pruning.delta=20", "--set=pruning.zeta=1.5"],
        "rigl's zeta 1.5 is outside (0, 1]",
    ),
    "setting without effect": (
        ["smoke", "--set=pruners=imp", "--set=pruning.rounds=10000000"],
        "imp's rounds 10000000 is outside [1, updates)",
    ),
    "setting of another pruner": (["smoke", "--set=pruners=gmp", "--set=pruning.delta=100"], "no setting of gmp 'delta'; there are: none"),
    "structure": (["smoke", "--set=structure=3:4"], "no structure '3:4'; there are: none, units, fan_in, 2:4, 1:4"),
    "structure's sparsity": (["smoke", "--set=structure=2:4", "--set=sparsities=0.9"], "structure '2:4' removes 0.5 of the weights"),
    "steps of no target": (["smoke", "--set=pruners=rlx2", "--set=pruning.n_step=5"], "pruning.n_step 5 does not apply to rlx2 with bc"),
    "structure of a small network": (["smoke", "--set=structure=units", "--set=pruners=small_dense"], "does not apply to small_dense"),
    "structure and scope": (["smoke", "--set=structure=units", "--set=scope=layer"], "structure 'units' takes the place of scope 'layer'"),
    "initialization": (["smoke", "--set=initialization=he"], "no initialization 'he'; there are: torch, xavier"),
    "timeouts": (["smoke", "--set=timeouts=bootstrap,done"], "no timeouts 'done'; there are: bootstrap, terminal"),
    "transitions": (["smoke", "--set=transitions=-1"], "transitions -1 is not an integer >= 0"),
    "protocol": (["smoke", "--set=protocol=papers"], "no protocol 'papers'; there are: authors"),
    "protocol's algorithm": (["smoke", "--set=protocol=authors", "--set=algorithms=cql"], "protocol 'authors' has no cql; it has: bc, iql"),
    "tickets stopped early": (
        ["td3bc_adaptive", "--set=pruners=imp", "--set=search.objective=score", "--set=search.stop=asha"],
        "pruner 'imp' restarts its training several times: search.stop 'asha'",
    ),
    "objective": (["td3bc_adaptive", "--set", "search.objective=speed"], "no objective of a search 'speed'; there are: score, pareto"),
    "stop": (["td3bc_adaptive", "--set", "search.stop=median"], "stop 'median' goes with the objective 'score' only"),
    "budget of a search": (["td3bc_adaptive", "--set", "search.suggestions=0"], "suggestions 0 of a search is not an integer >= 1"),
    "field of a search": (["td3bc_adaptive", "--set", "search.stopp=asha"], "no override 'search.stopp'; there are: datasets, algorithms"),
    "search of a grid": (["smoke", "--set", "search.stop=asha"], "no override 'search.stop'; there are: datasets, algorithms"),
    "pruner of a search": (["td3bc_adaptive", "--set", "pruners=snap"], "no pruner 'snap'; there are: dense, "),
    "limit": (["smoke", "--max-hours=soon"], "--max-hours 'soon' is not a positive number of hours"),
    "limit's range": (["smoke", "--max-core-hours=-1"], "--max-core-hours -1 is not a positive number of hours"),
    "weight": (["smoke", "--weight=much"], "--weight 'much' is not a number in (0, 1000]"),
    "weight's range": (["smoke", "--weight=0"], "--weight 0 is outside (0, 1000]"),
    "time of day": (["smoke", "--until=7am"], "--until '7am' is not a time of day from 00:00 to 23:59, e.g. 07:00 or 07:00+02:00"),
    "dataset's form": (["smoke", "--set", "datasets=hopper"], "dataset 'hopper' is not a Minari id"),
    "dataset of ours": (
        ["smoke", "--set", "datasets=winnow/ant/expert-v0"],
        "'winnow/ant/expert-v0'; there are: winnow/halfcheetah/random-v0",
    ),
}


def only_line(said: str) -> str:
    """The one line on stderr, apart from what a slow machine says that it waits for."""
    (line,) = [line for line in said.splitlines() if not line.endswith(" ...")]
    return line


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, hopper: str):
    """Run a command that must be refused; returns its one line."""

    def check(arguments: list[str]) -> str:
        monkeypatch.chdir(tmp_path)
        before = sorted(tmp_path.rglob("*"))
        code = main([*arguments, "--storage", str(tmp_path / "storage")])
        shown = capsys.readouterr()
        assert code == 2
        assert not shown.out
        line = only_line(shown.err)
        assert line.startswith("error: ")
        assert sorted(tmp_path.rglob("*")) == before
        return line

    return check


@pytest.mark.parametrize("command", ["plan", "run"])
@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_told_in_one_line(command: str, case: str, refused) -> None:
    arguments, says = CASES[case]
    assert says in refused([command, *arguments])


@pytest.mark.parametrize("command", ["status", "sync", "results"])
def test_a_sweep_that_was_never_run_has_no_state(command: str, refused) -> None:
    assert "sweep 'smoke' has not been run in " in refused([command, "smoke"])
    assert "no sweep 'smok'; there are: " in refused([command, "smok"])


@pytest.fixture
def damaged(tmp_path: Path, hopper_folder: Path, monkeypatch: pytest.MonkeyPatch, hopper: str) -> Path:
    """A copy of the small dataset that may be damaged; its data folder."""
    folder = tmp_path / "minari"
    shutil.copytree(hopper_folder / hopper, folder / hopper)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder))
    return folder / hopper / "data"


def test_an_unreadable_dataset_is_told_before_anything_starts(damaged: Path, hopper: str, refused) -> None:
    file = damaged / "main_data.hdf5"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert f"dataset '{hopper}'" in refused(["run", "smoke", "--set", f"datasets={hopper}"])


def test_a_dataset_of_another_environments_shapes_is_told_before_anything_starts(damaged: Path, hopper: str, refused) -> None:
    metadata = json.loads((damaged / "metadata.json").read_text())
    spec = json.loads(metadata["env_spec"])
    spec["id"] = "HalfCheetah-v5"
    other = dict.fromkeys(("env_spec", "eval_env_spec"), json.dumps(spec))
    (damaged / "metadata.json").write_text(json.dumps(metadata | other))
    said = refused(["run", "smoke", "--set", f"datasets={hopper}"])
    assert "observations and actions of (11, 3) numbers, HalfCheetah-v5 of (17, 6)" in said


WRONG = {
    "run": "missing: sweep; `winnow run --help` has more",
    "rn smoke": "no command 'rn'; there are: archive, ",
    "stauts smoke": "; did you mean 'status'?; `winnow --help` has more",
    "run smoke --stack-size 0": "--stack-size: '0' is not an integer above 0, such as 20000, 20k or 2e4; `winnow run --help` has more",
    "run smoke --device tpu": "no device 'tpu'; there are: auto, all, cpu, cuda; `winnow run --help` has more",
    "run smoke --execution spare": "no execution 'spare'; there are: auto, compact, dense, fused, onchip, sparse; did you mean 'sparse'?; ",
    "plan smoke --devce cpu": "no option '--devce'; did you mean '--device'?; `winnow plan --help` has more",
    "plan smoke --sets seeds=0": "no option '--sets'; did you mean '--set'?; ",
    "plan smoke seeds=0": "'seeds=0' is one argument too many; ",
    "plan smoke --set": "--set: expected one argument; ",
    "run smoke --gpu-fraction 2": "--gpu-fraction: '2' is outside (0, 1]; ",
    "run smoke --stalled-after soon": "--stalled-after: 'soon' is not a positive number of seconds; ",
    "datasets chek a/b-v0": "; did you mean 'check'?; `winnow datasets --help` has more",
    "datasets show a/b-v0 --picure x.png": "no option '--picure'; did you mean '--picture'?; `winnow datasets show --help` has more",
}


@pytest.mark.parametrize("words", sorted(WRONG))
def test_a_wrong_command_line_is_one_line_with_the_nearest_name(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(words.split())
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert WRONG[words] in line


def test_no_command_is_answered_by_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([])
    assert end.value.code == 2
    assert "each command has its own --help" in capsys.readouterr().err


def test_a_storage_below_a_file_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], hopper: str) -> None:
    (tmp_path / "file").write_text("")
    assert main(["run", "smoke", "--storage", str(tmp_path / "file" / "storage"), f"--set=datasets={hopper}"]) == 2
    said = only_line(capsys.readouterr().err)
    assert said.startswith("error: ")
    assert str(tmp_path / "file") in said


def test_a_cluster_that_does_not_answer_is_told_before_anything_is_written(refused, hopper: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody answers there
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{taken.getsockname()[1]}")
        assert "does not answer (Connection refused)" in refused(["run", "smoke", f"--set=datasets={hopper}"])


@pytest.mark.parametrize("address", ["127.0.0.1:abc", "127.0.0.1:99999", "[::1", "/x/y", "ray://"])
def test_what_is_no_address_of_a_cluster_is_one_line(address: str, refused, hopper: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    said = refused(["run", "smoke", f"--set=datasets={hopper}"])
    assert f"RAY_ADDRESS '{address}' is not a valid address: HOST:PORT, ray://HOST:PORT, or auto" in said
