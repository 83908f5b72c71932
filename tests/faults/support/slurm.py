"""A SLURM of one host, as far as a batch script meets it: `sbatch`, `squeue`, `scancel` and `scontrol requeue`, which run the scripts.

`install(bin, home)` puts the four programs into a folder for PATH; `home` is their controller's memory: one folder per task. A task's time
limit comes when the test says so (`Task.near_limit`): the warning of --signal goes to the batch shell alone and, the notice later, SIGKILL
to all processes of the task. A requeued task starts again from the script's first line, with SLURM_RESTART_COUNT one higher. Only what the
script says of --export=NONE reaches it: of the environment of `sbatch` nothing, of `profile.json` (a login shell's) all.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("sbatch", "squeue", "scancel", "scontrol")
LOOK = 0.05
KILL_WAIT = 30.0  # seconds between SIGTERM and SIGKILL, as in slurm.conf


@dataclass(frozen=True)
class Task:
    """One task of a job array; its state is in files, so that every program sees it."""

    home: Path
    job: int
    number: int

    @property
    def folder(self) -> Path:
        return self.home / f"{self.job}_{self.number}"

    @property
    def state(self) -> str:
        return (self.folder / "state").read_text()

    @property
    def starts(self) -> list[int]:
        """When it has started, each time (monotonic ns)."""
        return [int(line) for line in (self.folder / "starts").read_text().splitlines()]

    @property
    def code(self) -> int:
        return int((self.folder / "code").read_text())

    def order(self, name: str) -> None:
        (self.folder / name).touch()

    def near_limit(self) -> None:
        """Its time is up but for the notice."""
        self.order("limit")

    def node_fails(self) -> None:
        """All of it dies at once; with --requeue it starts again."""
        self.order("failed")

    def write(self, name: str, text: str) -> None:
        (self.folder / f".{name}").write_text(text)
        (self.folder / f".{name}").rename(self.folder / name)


def install(folder: Path, home: Path, profile: dict[str, str]) -> None:
    """The programs, and what a login shell of the user sets."""
    folder.mkdir(parents=True)
    home.mkdir(parents=True)
    (home / "profile.json").write_text(json.dumps(profile | {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}))
    for name in PROGRAMS:
        call = shlex.join([sys.executable, str(Path(__file__)), str(home), name])
        (folder / name).write_text(f'#!/bin/sh\nexec env -u PYTHONPATH {call} "$@"\n')
        (folder / name).chmod(0o755)


def tasks(home: Path, job: str = "") -> list[Task]:
    """Of all jobs, of `7`, or the one task `7_2`."""
    found = [Task(home, *map(int, path.name.split("_"))) for path in home.iterdir() if re.fullmatch(r"\d+_\d+", path.name)]
    return sorted((t for t in found if job in ("", str(t.job), t.folder.name)), key=lambda task: (task.job, task.number))


def sbatch(home: Path, arguments: list[str]) -> int:
    *_, file = arguments
    text = Path(file).read_text()
    said = options(text)
    if "export" not in said or said["export"] != "NONE":
        print("this SLURM wants --export=NONE", file=sys.stderr)
        return 1
    if said.get("account") == "nobody":
        print("sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified", file=sys.stderr)
        return 1
    job = 1 + max((task.job for task in tasks(home)), default=100)
    first, last, _ = re.fullmatch(r"(\d+)-(\d+)(%\d+)?", said["array"]).groups()  # type: ignore[union-attr]
    for number in range(int(first), int(last) + 1):
        task = Task(home, job, number)
        task.folder.mkdir()
        (task.folder / "script").write_text(text)
        (task.folder / "starts").touch()
        task.write("state", "PENDING")
        command = [sys.executable, __file__, str(home), "slurmd", str(job), str(number)]
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    print(job if "--parsable" in arguments else f"Submitted batch job {job}")
    return 0


def squeue(home: Path, arguments: list[str]) -> int:
    names = [word.removeprefix("--name=") for word in arguments if word.startswith("--name=")]
    for task in tasks(home):
        if task.state in ("PENDING", "RUNNING") and options((task.folder / "script").read_text())["job-name"] in names:
            print(task.job if "--format=%F" in arguments else 1000 * task.job + task.number)  # %A: each task has an id of its own
    return 0


def scancel(home: Path, arguments: list[str]) -> int:
    for task in tasks(home, arguments[0]):
        task.order("cancelled")
    return 0


def scontrol(home: Path, arguments: list[str]) -> int:
    verb, job = arguments
    found = tasks(home, job)
    if verb != "requeue" or not found or "requeue" not in options((found[0].folder / "script").read_text()):
        print("slurm_requeue error: Requested operation is presently disabled", file=sys.stderr)
        return 1
    for task in found:
        task.order("requeued")
    return 0


def options(script: str) -> dict[str, str]:
    """What the #SBATCH lines say, which end with the first command."""
    found: dict[str, str] = {}
    for line in script.splitlines():
        if line.startswith("#SBATCH --"):
            name, _, value = line.removeprefix("#SBATCH --").partition("=")
            found[name] = value
        elif line.strip() and not line.startswith("#"):
            break
    return found


def slurmd(home: Path, arguments: list[str]) -> int:
    """Run a task until it ends and is not requeued."""
    task = Task(home, *map(int, arguments))
    while _attempt(task):
        pass
    return 0


def _attempt(task: Task) -> bool:
    """One start of the script; returns whether it goes back to the queue."""
    said, restarts = options((task.folder / "script").read_text()), len(task.starts)
    with (task.folder / "starts").open("a") as file:
        file.write(f"{time.monotonic_ns()}\n")
    log = said["output"].replace("%x", said["job-name"]).replace("%A", str(task.job)).replace("%a", str(task.number))
    given = {
        "SLURM_JOB_ID": str(1000 * task.job + task.number), "SLURM_ARRAY_JOB_ID": str(task.job), "SLURM_ARRAY_TASK_ID": str(task.number),
        "SLURM_RESTART_COUNT": str(restarts), "SLURM_CPUS_ON_NODE": said.get("cpus-per-task", "1"), "SLURM_EXPORT_ENV": "NONE",
    }  # fmt: skip
    given |= {name: os.environ[name] for name in ("HOME", "USER") if name in os.environ} | json.loads(
        (task.home / "profile.json").read_text()
    )
    with Path(log).open("a" if said.get("open-mode") == "append" else "w") as out:
        shell = subprocess.Popen(
            ["bash", str(task.folder / "script")], env=given, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )
    task.write("state", "RUNNING")
    _, number, notice = re.fullmatch(r"(B:)([A-Z0-9]+)@(\d+)", said["signal"]).groups()  # type: ignore[union-attr]
    kill_at = float("inf")
    while shell.poll() is None:
        time.sleep(LOOK)
        if _taken(task, "limit"):
            os.kill(shell.pid, signal.Signals[f"SIG{number}"])
            kill_at = time.monotonic() + float(notice)
        if any((task.folder / order).exists() for order in ("cancelled", "requeued")) and not (task.folder / "asked").exists():
            task.order("asked")
            _signal(shell.pid, signal.SIGTERM)
            kill_at = time.monotonic() + KILL_WAIT
        if (task.folder / "failed").exists() or time.monotonic() > kill_at:
            _signal(shell.pid, signal.SIGKILL)
            break
    code = shell.wait()
    task.write("code", str(code))
    _taken(task, "asked")
    again = _taken(task, "requeued") or (_taken(task, "failed") and "requeue" in said)
    again = again and not (task.folder / "cancelled").exists()
    task.write(
        "state", "PENDING" if again else "CANCELLED" if (task.folder / "cancelled").exists() else "COMPLETED" if not code else "FAILED"
    )
    return again


def _taken(task: Task, order: str) -> bool:
    """Whether there is such an order, which is then done."""
    there = (task.folder / order).exists()
    (task.folder / order).unlink(missing_ok=True)
    return there


def _signal(root: int, number: int) -> None:
    """To all processes of a task: the shell and what is below it, as a control group holds them."""
    for pid in [*_below(root), root]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _below(root: int) -> Iterator[int]:
    children: dict[int, list[int]] = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                children.setdefault(int((path / "stat").read_text().rpartition(")")[2].split()[1]), []).append(int(path.name))
    left = [root]
    while left:
        found = children.get(left.pop(), [])
        yield from found
        left += found


if __name__ == "__main__":
    sys.exit(globals()[sys.argv[2]](Path(sys.argv[1]), sys.argv[3:]))
