"""`submit --slurm` with a SLURM of this host (support/slurm.py) that runs the scripts: time limits, requeues, dead nodes, scancel."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from service.ledger import manifest

from ..conftest import EVERY, QUICK, Fresh, Record, arguments
from ..support import slurm
from ..support.harness import LONG, PATIENT, wait_for
from ..support.invariants import attempts, check, redone, twin_of
from ..support.nursery import INJECT, ROOT, Nursery
from ..support.slurm import Task

PLANTED = "hunter2hunter2"
SECRETS = {name: f"{PLANTED}{number}" for number, name in enumerate(("AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_TOKEN", "RAY_AUTH_TOKEN"))}
FINAL = ("CANCELLED", "COMPLETED", "FAILED")


@dataclass
class Cluster:
    """The user's side: commands with the cluster's programs in PATH, and what the tasks left."""

    folder: Path
    environment: dict[str, str]

    @property
    def home(self) -> Path:
        return self.folder / "slurm"

    def winnow(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "service", *words]
        return subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False, timeout=LONG)

    def program(self, *words: str) -> str:
        return subprocess.run(words, env=self.environment, capture_output=True, text=True, check=True).stdout

    def submit(self, storage: Path, *more: str, faults: tuple[str, ...] = (), **settings: str) -> list[Task]:
        """The small sweep; `faults` and a secret are in the private file that the tasks read."""
        private = self.folder / "private"
        private.write_text(f'FAULTS="{" ".join(faults)}"\nAWS_SECRET_ACCESS_KEY={PLANTED}9\n')
        private.chmod(0o600)
        words = arguments(storage, **settings)[1:]
        done = self.winnow("submit", *words, "--slurm", "--env-file=private", "--time=60", "--logs=slurm-logs", *more)
        assert done.returncode == 0, done.stderr
        return slurm.tasks(self.home)

    def log(self, task: Task) -> str:
        return (self.folder / "slurm-logs" / f"winnow-smoke-{task.job}_{task.number}.log").read_text()


@pytest.fixture
def cluster(tmp_path: Path, environment: dict[str, str]) -> Iterator[Cluster]:
    made = Cluster(tmp_path, environment | SECRETS)
    # A login shell that names somebody else's Ray, which no task may join.
    slurm.install(tmp_path / "bin", made.home, PATIENT | {"PYTHONPATH": str(INJECT), "RAY_ADDRESS": "127.0.0.1:1"})
    made.environment |= {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    yield made
    for task in slurm.tasks(made.home):
        task.order("cancelled")
    ended(made)


def ended(cluster: Cluster) -> None:
    wait_for(lambda: all(task.state in FINAL for task in slurm.tasks(cluster.home)))


def at_work(storage: Path, since: int = 0) -> bool:
    """Whether an attempt that began after `since` (ns) has made some updates."""
    return any(each.last - each.first >= 5 for each in attempts(storage / "work") if each.first >= 0 and each.began > since)


def requeue(cluster: Cluster, task: Task, storage: Path, name: str = "smoke") -> None:
    """Its time is nearly up as soon as its newest start has trained something."""
    starts: list[int] = wait_for(lambda: task.starts)
    # An earlier start has given back what it had.
    wait_for(lambda: task.state in FINAL or (manifest.read(storage, name).keys_in("leased") and at_work(storage, starts[-1])))
    task.near_limit()
    wait_for(lambda: task.state in FINAL or len(task.starts) > len(starts))
    assert task.state not in FINAL, cluster.log(task)


def test_trials_survive_three_requeues_and_equal_the_twin(
    cluster: Cluster, nursery: Nursery, fresh: Fresh, record: Record, tmp_path: Path
) -> None:
    storage, undisturbed, until = fresh(), fresh(), tmp_path / "wait"
    assert nursery.run(*arguments(undisturbed, updates="300"), faults=QUICK).code == 0
    until.touch()
    (task,) = cluster.submit(storage, faults=(*QUICK, "no_ray", f"slow_while={until}", f"work={storage / 'work'}"), updates="300")
    for _ in range(3):
        requeue(cluster, task, storage)
    until.unlink()
    ended(cluster)
    assert (task.state, task.code, len(task.starts)) == ("COMPLETED", 0, 4), cluster.log(task)
    assert check(storage, twin_of(undisturbed), tracking=None) == []
    assert redone(storage / "work") == 0, "the warning leaves time to commit"
    for line in ("limit reached (SIGUSR1: the job's time is nearly up)", "this task is requeued and continues from its checkpoints"):
        assert cluster.log(task).count(line) == 3
    left = "".join(path.read_text() for path in (*cluster.home.rglob("*"), *(cluster.folder / "slurm-logs").iterdir()) if path.is_file())
    assert PLANTED not in left, "no secret of the environment or of the private file is in the script, in SLURM or in a log"
    record("SLURM's time limit, and requeued", kills=3, redone=redone(storage / "work"))


def test_a_warning_that_comes_before_the_driver_is_not_lost(cluster: Cluster, fresh: Fresh, tmp_path: Path) -> None:
    """While the task's first start is still in its --setup."""
    storage, until = fresh(), tmp_path / "wait"
    until.touch()
    wait = f"touch {tmp_path / 'begun'}; while [ -e {until} ]; do sleep 0.05; done"
    (task,) = cluster.submit(storage, f"--setup={wait}", faults=(*QUICK, "no_ray", "news_at_once"))
    wait_for((tmp_path / "begun").exists)
    task.near_limit()
    wait_for(lambda: not (task.folder / "limit").exists())  # sent
    until.unlink()
    ended(cluster)
    assert (task.state, task.code, len(task.starts)) == ("COMPLETED", 0, 2), cluster.log(task)


@pytest.mark.slow_faults
def test_two_tasks_share_a_sweep_and_a_node_fails_under_one(
    cluster: Cluster, nursery: Nursery, fresh: Fresh, record: Record, tmp_path: Path
) -> None:
    storage, undisturbed, until = fresh(), fresh(), tmp_path / "wait"
    until.touch()
    settings = {"updates": "120", "seeds": "0-3"}
    assert nursery.run(*arguments(undisturbed, **settings), faults=QUICK).code == 0
    faults = (*QUICK, "no_ray", f"slow_while={until}", f"work={storage / 'work'}")
    whole, part = cluster.submit(storage, "--tasks=2", faults=faults, **settings)
    names = ("smoke", "smoke.part1")
    wait_for(lambda: part.state in FINAL or all(manifest.read(storage, name).keys_in("leased") for name in names))
    wait_for(lambda: part.state in FINAL or at_work(storage))
    part.node_fails()
    until.unlink()
    ended(cluster)
    ends = [(task.state, task.code, len(task.starts)) for task in (whole, part)]
    assert ends == [("COMPLETED", 0, 1), ("COMPLETED", 0, 2)], cluster.log(part)
    assert check(storage, twin_of(undisturbed), tracking=None) == []
    assert manifest.read(storage, "smoke.part1").entries, "the part has trained some of it"
    record("two tasks of SLURM's, SIGKILL for one", redone=redone(storage / "work"))


def test_the_tasks_of_a_script_run_here_to_debug_it(cluster: Cluster, nursery: Nursery, fresh: Fresh) -> None:
    """Without SLURM, whose programs are not asked; what is wrong with the script is on the screen, and in the exit code."""
    storage, undisturbed = fresh(), fresh()
    settings = {"updates": "60", "seeds": "0-3"}
    assert nursery.run(*arguments(undisturbed, **settings), faults=QUICK).code == 0
    words = ["submit", *arguments(storage, **settings)[1:], "--slurm", "--local", "--tasks=2", "--time=60", "--logs=slurm-logs"]
    wrong = cluster.winnow(*words, "--setup=echo to the screen; no-such-program || exit 3")
    assert wrong.returncode == 3
    assert wrong.stdout.count("to the screen") == 2, "once for each task"
    assert "no-such-program" in wrong.stderr
    cluster.environment |= {"FAULTS": " ".join((*QUICK, "no_ray")), "PYTHONPATH": f"{INJECT}{os.pathsep}{ROOT}"}
    done = cluster.winnow(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert check(storage, twin_of(undisturbed), tracking=None) == []
    assert slurm.tasks(cluster.home) == []


def test_scancel_ends_a_task_for_good_and_its_trials_are_kept(cluster: Cluster, fresh: Fresh, tmp_path: Path) -> None:
    storage, until = fresh(), tmp_path / "wait"
    until.touch()
    (task,) = cluster.submit(storage, faults=(*QUICK, "no_ray", f"slow_while={until}", f"work={storage / 'work'}"), updates="2000")
    wait_for(lambda: task.state in FINAL or at_work(storage))
    second = cluster.winnow("submit", "smoke", f"--storage={storage}", "--slurm")
    assert (second.returncode, second.stderr) == (
        2, f"error: SLURM has job {task.job} of sweep 'smoke' already, and one trains it; `scancel {task.job}` ends it\n"
    )  # fmt: skip
    cluster.program("scancel", str(task.job))
    ended(cluster)
    assert (task.state, len(task.starts)) == ("CANCELLED", 1)
    assert "interrupted (SIGTERM)" in cluster.log(task)
    assert "requeued" not in cluster.log(task)
    assert manifest.read(storage, "smoke").keys_in("leased") == []


@pytest.mark.slow_faults
@pytest.mark.parametrize("ray", [False, True], ids=["in the driver", "a Ray per task"])
def test_a_hundred_trials(ray: bool, cluster: Cluster, nursery: Nursery, fresh: Fresh, record: Record, tmp_path: Path) -> None:
    storage, undisturbed, until = fresh(), fresh(), tmp_path / "wait"
    until.touch()
    settings = {"updates": "300", "seeds": "0-49"}
    assert nursery.run(*arguments(undisturbed, EVERY, 10, **settings), faults=QUICK).code == 0
    faults = (*QUICK, *(() if ray else ("no_ray",)), f"slow_while={until}", f"work={storage / 'work'}")
    both = cluster.submit(storage, "--tasks=2", "--stack-size=10", faults=faults, **settings)
    for _ in range(3):
        for task, name in zip(both, ("smoke", "smoke.part1"), strict=True):
            requeue(cluster, task, storage, name)
    until.unlink()
    ended(cluster)
    assert [(task.state, task.code, len(task.starts)) for task in both] == [("COMPLETED", 0, 4)] * 2, cluster.log(both[0])
    twin = twin_of(undisturbed)
    assert len(twin.states) == 100
    assert check(storage, twin, tracking=None) == []
    assert redone(storage / "work") == 0
    record("SLURM's time limit for two tasks, 100 trials", kills=6, redone=redone(storage / "work"))
