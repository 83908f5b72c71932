"""What a sweep knows of its runs: the line that is printed continues one, `resume` finishes all. Without Ray, through the same driver."""

from __future__ import annotations

import os
import re
import shlex
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.__main__ import main
from service.cluster import ray_cluster
from service.driving import session
from service.ledger import manifest
from service.planning.options import TrainingOptions
from service.planning.plan import resume_plan
from service.spool import lines as spool
from service.storage import paths
from tests.faults.support import nursery
from tests.s3 import Server
from trainables.trial import Trial

SMALL = (
    "datasets=test/hopper/random-v0", "pruners=snip", "updates=40", "evaluations=1", "episodes=1", "hyper.hidden=(16, 16)",
    "hyper.batch_size=32",
)  # fmt: skip
SET = [f"--set={setting}" for setting in SMALL]
OPTIONS = ["--device=cpu", "--execution=dense", "--checkpoint-every=10", "--stack-size=1"]


class Cluster:
    """Trains in this process, and notes with which options; `interrupt_after` so many stacks a signal comes."""

    def __init__(self) -> None:
        self.options: list[TrainingOptions] = []
        self.interrupt_after: int | None = None
        self.fail: Callable[[Trial], bool] = lambda trial: False

    def connect(self, options: TrainingOptions, **how: Any) -> Any:
        self.options.append(options)
        return nursery.connect(options)

    def started(self, driver: Any, stack: Any) -> None:
        if self.interrupt_after is not None:
            if self.interrupt_after == 0:
                self.interrupt_after = None
                os.kill(os.getpid(), signal.SIGTERM)
            else:
                self.interrupt_after -= 1


class Idle:
    """Ships nothing: only training and the manifest matter here."""

    trouble, begun, left_alone = "", True, ()

    def __init__(self, ship: object) -> None: ...
    def start(self) -> None: ...
    def check(self, patience: float) -> None: ...
    def finish(self, patience: float, **_: bool) -> bool:
        return True


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, hopper: str) -> Cluster:
    from service.driving.driver import Driver

    made, started = Cluster(), Driver.started
    monkeypatch.setattr(ray_cluster, "connect", made.connect)

    def noticed(driver: Driver, stack: Any) -> None:
        started(driver, stack)
        made.started(driver, stack)

    monkeypatch.setattr(Driver, "started", noticed)
    monkeypatch.setattr(session, "ShipperThread", Idle)
    for show in ("show", "show_search"):
        monkeypatch.setattr(session, show, lambda *_: None)
    for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS", "WINNOW_STORAGE", "WINNOW_STUDY_STORAGE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WINNOW_REVISION", "abc123")
    return made


@pytest.fixture
def interrupted(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that a signal ends after so many stacks; returns the command that it prints."""

    def run(*arguments: str, after: int = 1) -> str:
        cluster.interrupt_after = after
        assert main(arguments) == 130
        (printed,) = re.findall(r"^interrupted \(SIGTERM\); `(.*)` continues from the checkpoints$", capsys.readouterr().out, re.M)
        return printed

    return run


def states(storage: Path, name: str = "smoke") -> dict[str, str]:
    """By the trial's seed."""
    return {f"s{entry.trial.seed}": entry.state for entry in manifest.read(storage, name).entries.values()}


def typed(line: str) -> list[str]:
    """The arguments of a printed command, as a shell would part them."""
    words = shlex.split(line)
    assert words[0] == "winnow"
    return words[1:]


def test_the_line_that_is_printed_continues_exactly_that_work(interrupted: Callable[..., str], tmp_path: Path, cluster: Cluster) -> None:
    storage = tmp_path / "a storage"
    line = interrupted("run", "smoke", *SET, "--set=seeds=3,4", *OPTIONS, f"--storage={storage}")
    assert states(storage) == {"s3": "done", "s4": "planned"}
    assert main(typed(line)) == 0
    assert states(storage) == {"s3": "done", "s4": "done"}
    assert cluster.options[0] == cluster.options[1]
    assert cluster.options[1].checkpoint_every == 10


def test_resume_finishes_what_every_run_has_planned_with_nothing_typed_again(
    interrupted: Callable[..., str], tmp_path: Path, cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    where = f"--storage={tmp_path}"
    interrupted("run", "smoke", *SET, "--set=seeds=3,4", where, after=0)
    interrupted("run", "smoke", *SET, "--set=seeds=5", "--set=sparsities=0.5", *OPTIONS, where, after=0)
    assert states(tmp_path) == {"s3": "planned", "s4": "planned", "s5": "planned"}
    line = interrupted("resume", "smoke", where, "--stack-size=2")
    assert typed(line)[:2] == ["resume", "smoke"], "what was resumed is resumed again"
    assert main(typed(line)) == 0
    assert states(tmp_path) == {"s3": "done", "s4": "done", "s5": "done"}
    shown = capsys.readouterr().out
    assert "smoke: 3 trials of 40 updates, all that its runs have planned" in shown
    assert "seeds       3, 4, 5" in shown
    for options in cluster.options[-2:]:
        assert options == TrainingOptions(device="cpu", execution="dense", checkpoint_every=10, stack_size=2), "stored, but for the typed"
    for entry in manifest.read(tmp_path, "smoke").entries.values():
        checkpoints = [line.update for line in spool.read(paths.spool(tmp_path, entry.trial.key)) if line.line["kind"] == "checkpointed"]
        assert checkpoints[-4:] == [10, 20, 30, 40]
        assert entry.detail["execution"] == "dense"


def test_resume_tries_failed_trials_again_but_not_those_that_diverged(cluster: Cluster, tmp_path: Path) -> None:
    where = f"--storage={tmp_path}"
    wrong = ["--set=seeds=3", "--set=sparsities=0.9999"]  # leaves no path from input to output
    assert main(["run", "smoke", *SET, *wrong, *OPTIONS, where]) == 1
    assert main(["run", "smoke", *SET, "--set=seeds=4", "--set=hyper.learning_rate=1e30", *OPTIONS, where]) == 1
    assert states(tmp_path) == {"s3": "failed", "s4": "diverged"}
    plan = resume_plan("smoke", tmp_path)
    assert [trial.seed for trial in plan.todo] == [3]
    assert main(["resume", "smoke", where]) == 1
    failed, diverged = manifest.read(tmp_path, "smoke").entries.values()
    assert [event.state for event in failed.events] == ["planned", "leased", "failed", "planned", "leased", "failed"]
    assert [event.state for event in diverged.events] == ["planned", "leased", "diverged"]


def test_run_is_the_files_grid_whatever_was_run_before(interrupted: Callable[..., str], cluster: Cluster, tmp_path: Path) -> None:
    where = f"--storage={tmp_path}"
    interrupted("run", "smoke", *SET, "--set=seeds=3", *OPTIONS, where, after=0)
    assert main(["run", "smoke", *SET, "--set=seeds=4", where]) == 0
    assert states(tmp_path) == {"s3": "planned", "s4": "done"}
    assert cluster.options[-1] == TrainingOptions(), "options are those of this run"


def test_a_journal_of_older_code_is_resumed_with_the_defaults(cluster: Cluster, tmp_path: Path) -> None:
    trial = Trial(dataset="test/hopper/random-v0", algorithm="bc", updates=20, evaluations=1, episodes=1, hyper={"hidden": (16, 16)})
    older = manifest.Manifest(tmp_path, "smoke")
    older.plan([trial])
    older.close()
    assert main(["resume", "smoke", f"--storage={tmp_path}"]) == 0
    assert cluster.options == [TrainingOptions()]


def test_a_sweep_that_was_never_run_cannot_be_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["resume", "smoke", f"--storage={tmp_path / 'none'}"]) == 2
    told = f"so there is nothing to resume; `winnow run smoke --storage={tmp_path / 'none'}` starts it\n"
    assert capsys.readouterr().err.endswith(told)
    assert not (tmp_path / "none").exists()


def test_a_search_is_resumed_within_its_own_settings(interrupted: Callable[..., str], cluster: Cluster, tmp_path: Path) -> None:
    settings = [*SET[:1], *SET[2:], "--set=seeds=0", "--set=search.suggestions=3", "--set=search.objective=score"]
    where = f"--storage={tmp_path}"
    database = f"--study-storage=sqlite:///{tmp_path}/studies.db"
    line = interrupted("run", "td3bc_adaptive", *settings, *OPTIONS, where, database)
    assert database in typed(line)
    assert len(manifest.read(tmp_path, "td3bc_adaptive").entries) < 3
    assert main(["resume", "td3bc_adaptive", where]) == 0
    ledger = manifest.read(tmp_path, "td3bc_adaptive")
    assert [entry.state for entry in ledger.entries.values()] == ["done"] * 3
    assert {entry.trial.hyper["hidden"] for entry in ledger.entries.values()} == {(16, 16)}
    assert not paths.study(tmp_path, "td3bc_adaptive").exists(), "the database is known, too"
    assert main(["results", "td3bc_adaptive", *settings, where]) == 0


def test_a_password_is_asked_for_again(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from service.planning.run_settings import RunSettings

    monkeypatch.delenv("WINNOW_STUDY_STORAGE", raising=False)
    settings = RunSettings(study_storage="postgresql://me:secret@studies.example/db")
    manifest.Manifest(tmp_path, "td3bc_adaptive", settings.to_json()).close()
    assert b"secret" not in paths.manifest(tmp_path, "td3bc_adaptive").read_bytes()
    assert main(["resume", "td3bc_adaptive", f"--storage={tmp_path}"]) == 2
    told = capsys.readouterr().err
    assert "the password of --study-storage postgresql://me:***@studies.example/db is not stored; give it again, or" in told


def test_on_s3_too(
    interrupted: Callable[..., str], cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server = Server(tmp_path / "s3.log")
    try:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        where = f"--storage={server.bucket('sweeps')}/here"
        line = interrupted("run", "smoke", *SET, "--set=seeds=3,4", *OPTIONS, where)
        monkeypatch.setenv("WINNOW_CACHE", str(tmp_path / "another host"))
        assert main(typed(line)) == 0
        interrupted("run", "smoke", *SET, "--set=seeds=5", *OPTIONS, where, after=0)
        storage = paths.root(where.partition("=")[2])
        assert states(storage) == {"s3": "done", "s4": "done", "s5": "planned"}
        monkeypatch.setenv("WINNOW_CACHE", str(tmp_path / "a third"))
        assert main(["resume", "smoke", where]) == 0
        assert set(states(paths.root(where.partition("=")[2])).values()) == {"done"}
        assert cluster.options[-1].checkpoint_every == 10
    finally:
        server.end()
