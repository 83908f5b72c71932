"""The command of one trial, in this process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from service.storage import paths
from tests.conftest import HOPPER
from trainables import plugins
from trainables.__main__ import main, parser
from trainables.native import build
from trainables.trial import PLURALS, Trial

SMALL = ["--updates", "20", "--evaluations", "2", "--episodes", "2", "--calibration-size", "32"]
HYPER = ["--hyper", "hidden=(16,16)", "batch_size=16"]
GOOD = ["--dataset", HOPPER, "--algorithm", "td3_bc", "--pruner", "snip", "--sparsity", "0.5", *SMALL, *HYPER]


@pytest.fixture(autouse=True)
def _empty_folder(hopper: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_trial_runs_and_its_scores_are_printed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(GOOD) == 0
    out, err = capsys.readouterr()
    lines = out.strip().splitlines()
    assert lines[0].startswith("td3_bc/hopper-random/snip@50+calibration_size=32/s0: actor.0 keeps ")
    assert "critic.2 keeps" in lines[0]
    scored = [line for line in lines if "normalized score" in line]
    assert [line.split(" updates")[0] for line in scored] == ["after 10", "after 20"]
    assert lines[-1].startswith("finished in 0:")
    assert "execution" in lines[-1]
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == [], "no --storage, nothing written"


def test_several_seeds_are_one_stack_and_the_storage_is_used(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    assert main([*GOOD, "--seed", "3", "4", "--storage", str(storage)]) == 0
    assert "/s3: " in capsys.readouterr().out
    hyper = {"hidden": (16, 16), "batch_size": 16}
    for seed in (3, 4):
        trial = Trial(
            dataset=HOPPER, algorithm="td3_bc", pruner="snip", sparsity=0.5, seed=seed, updates=20, evaluations=2, episodes=2,
            calibration_size=32, hyper=hyper,
        )  # fmt: skip
        assert paths.policy(storage, trial.key).exists()
    assert main([*GOOD, "--seed", "3", "4", "--storage", str(storage)]) == 0
    out = capsys.readouterr().out
    assert "normalized score" not in out, "what is done is not done again"
    assert "finished" in out


def test_what_does_not_fit_in_memory_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*GOOD, "hidden=(1000000,1000000)"]) == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: not enough memory: ")
    assert "bytes" in error
    assert len(error.splitlines()) == 1


def test_a_diverged_trial_is_said_and_is_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*GOOD, "learning_rate=1e30"]) == 1
    assert "td3_bc/hopper-random/snip@50+calibration_size=32/s0 diverged: " in capsys.readouterr().out


def test_without_a_compiler_a_pruned_trial_says_that_it_is_slow(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = Path(os.environ["WINNOW_CACHE"])
    monkeypatch.setenv("WINNOW_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "tables").symlink_to(tables / "tables")
    monkeypatch.setenv("CC", "no-such-cc")
    build.library.cache_clear()
    slow = "pruned weights cost as much as kept ones: no C compiler 'no-such-cc'"
    assert main(GOOD) == 0
    out = capsys.readouterr().out
    assert out.count(slow) == 1
    assert "(dense execution" in out
    for arguments in ([*GOOD, "--execution", "dense"], [value if value != "0.5" else "0.05" for value in GOOD]):
        assert main(arguments) == 0
        assert slow not in capsys.readouterr().out


def changed(name: str, *values: str) -> list[str]:
    """GOOD with the values of an option replaced (or the option added)."""
    given = list(GOOD)
    if name not in given:
        return [*given, name, *values]
    start = given.index(name) + 1
    stop = next((i for i in range(start, len(given)) if given[i].startswith("--")), len(given))
    return given[:start] + list(values) + given[stop:]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["dataset is empty"]),
        (changed("--pruner", "snap"), ["'snap'", *plugins.names("pruners")]),
        (changed("--algorithm", "td4"), ["'td4'", *plugins.names("algorithms")]),
        (changed("--dataset", "winnow/hopper/nowhere-v0"), ["'winnow/hopper/nowhere-v0'", HOPPER]),
        (changed("--dataset", "hopper"), ["'hopper'", "-vN"]),
        (changed("--dataset", "../etc-v0"), ["'../etc-v0'"]),
        (changed("--sparsity", "1.5"), ["1.5", "[0, 1)"]),
        (changed("--sparsity", "0"), ["'snip'", "'dense'"]),
        (changed("--sparsity", "nan"), ["nan", "[0, 1)"]),
        (changed("--pruner", "dense"), ["'dense'", "0.5", "snip"]),
        (changed("--updates", "0"), ["updates 0"]),
        (changed("--evaluations", "21"), ["evaluations 21", "updates 20"]),
        (changed("--seed", "-1"), ["seed -1"]),
        (changed("--seed", "1", "1"), ["twice"]),
        (changed("--hyper", "alfa=1"), ["'alfa'", "alpha", "tau"]),
        (changed("--hyper", "alpha"), ["'alpha'", "="]),
        (changed("--hyper", "alpha=high"), ["alpha=high"]),
        (changed("--hyper", "alpha='1'"), ["alpha '1'", "2.5"]),
        (changed("--hyper", "alpha={[]}"), ["--hyper 'alpha={[]}' is not NAME=NUMBER", "alpha=2.5"]),
        (changed("--hyper", f"alpha={'-' * 5_000}1"), ["is not NAME=NUMBER"]),
        (changed("--hyper", "batch_size=0"), ["batch_size 0"]),
        (changed("--set", "hyper.alpha={{}}"), ["'alpha={{}}' is not NAME=NUMBER"]),
        (changed("--set", "hyper.hidden=[[16]"), ["'hidden=[[16]' is not NAME=NUMBER"]),
        (changed("--set", f"updates={'9' * 5_000}"), ["--updates '999", "is not an integer"]),
        (changed("--set", "sparsity=None"), ["sparsity 'None' is not a number"]),
        (changed("--set", "sparsity=nan"), ["nan", "[0, 1)"]),
        (changed("--execution", "dens"), ["'dens'", "dense"]),
        (changed("--device", "gpu"), ["'gpu'", "cpu"]),
        ([*changed("--pruner", "magnitude"), "--sparsity", "0.97"], ["no path", "actor.1"]),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main([*arguments, "--storage", str(tmp_path / "storage")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    for word in words:
        assert word in err
    assert list(tmp_path.iterdir()) == []


def test_every_option_says_what_it_is_for() -> None:
    assert [action.dest for action in parser()._actions if not action.help] == []


@pytest.mark.parametrize("arguments", [changed("--sparsity", "much"), [*GOOD, "--sparsety", "1"]])
def test_arguments_that_cannot_be_read_are_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "Traceback" not in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_storage_that_cannot_be_written_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert main([*GOOD, "--storage", str(tmp_path / "file")]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert str(tmp_path / "file") in err


def test_numbers_are_typed_as_in_a_sweep(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*changed("--updates", "0.02k"), "--seeds", "3,5", "7-8"]) == 0
    out = capsys.readouterr().out
    assert all(f"/s{seed}" in out for seed in (3, 5, 7, 8))
    assert "after 20 updates" in out
    assert main(changed("--updates", "many")) == 2
    assert "--updates 'many' is not an integer, such as 20000, 20k or 2e4" in capsys.readouterr().err


def test_set_takes_the_words_of_a_sweep_and_means_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*GOOD, "--seed", "0", "1", "--published"]) == 0
    plain = capsys.readouterr().out.splitlines()[:-1]
    words = ["dataset", "algorithm", "pruner", "sparsity", "updates", "evaluations", "episodes", "calibration_size"]
    taken = dict(zip(GOOD[::2], GOOD[1::2], strict=False))
    plural = [f"--set={PLURALS.get(name, name)}={taken['--' + name.replace('_', '-')]}" for name in words]
    others = ["--set=seeds=0-1", "--set=hyper.hidden=(16,16)", "--set=hyper.batch_size=16", "--set=published=1"]
    assert main([*plural, *others]) == 0
    assert capsys.readouterr().out.splitlines()[:-1] == plain
    several = ["--datasets", HOPPER, "--algorithms", "td3_bc", "--pruners", "snip", "--sparsities", "0.5", "--seeds", "0,1"]
    assert main([*several, *SMALL, *HYPER, "--published"]) == 0
    assert capsys.readouterr().out.splitlines()[:-1] == plain


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("seeds", "--set 'seeds' is not of the form name=value"),
        ("pruner=snop", "no pruner 'snop'; there are: "),
        ("puners=snip", "no setting 'puners'; there are: dataset, "),
        ("puners=snip", "did you mean 'pruner'?"),
        ("sparsities=much", "sparsity 'much' is not a number"),
        ("authors=perhaps", "no authors 'perhaps'; there are: true, false"),
        ("updates=many", "--updates 'many' is not an integer"),
    ],
)
def test_a_bad_set_is_told_in_one_line(setting: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*GOOD, "--set", setting]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line


def test_help_shows_one_spelling_and_every_choice(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "--seeds" not in text
    assert "--fresh SWEEP" not in text
    for folder in ("algorithms", "pruners", "execution"):
        assert ", ".join(plugins.names(folder)) in text
    given = parser().parse_args(["--fresh", "quickstart", "--no-tf32", "--device", "auto"])
    assert (given.fresh, given.tf32, given.device) == ("quickstart", False, "auto")
