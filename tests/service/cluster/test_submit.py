"""`winnow submit` against a real head of Ray with its job server."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from service.cluster import job
from service.cluster.handed_on import environment
from service.cluster.job import OF_PROJECT, next_id, submit
from service.cluster.sent import describe
from service.ledger import manifest
from service.planning.run_settings import RunSettings
from service.storage import paths, s3
from tests.faults.support.harness import LONG, PATIENT, wait_for
from tests.service.cli.test_bad_input import refused as refused
from tests.service.conftest import ROOT, Command
from trainables.errors import UserError

FOLDER = Path("/tmp") / f"winnow-{os.getpid()}"  # of the head; short: sockets have names of at most 107 characters
TOKEN = "t" * 40
PLANTED = "hunter2hunter2"
SECRETS = {
    "AWS_ACCESS_KEY_ID": f"{PLANTED}0", "AWS_SECRET_ACCESS_KEY": f"{PLANTED}1", "AWS_SESSION_TOKEN": f"{PLANTED}2",
    "MLFLOW_TRACKING_TOKEN": f"{PLANTED}3",
}  # fmt: skip


def free_ports(count: int) -> list[int]:
    import socket

    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture(scope="module")
def head(service: Command, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the job server of a Ray head of our own, which wants a token; ended by its process group."""
    token = tmp_path_factory.mktemp("token") / "token"
    token.write_text(TOKEN)
    service.environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}  # type: ignore[attr-defined]
    # A job's `python` is the first in the head's PATH.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    given = PATIENT | SECRETS | {"PATH": path, "RAY_worker_niceness": "0"}  # 15: beside other work, its workers would hardly begin
    environment = service.environment | given  # type: ignore[attr-defined]
    for _ in range(8):  # `ray start` gives up after 30 seconds, which no setting changes
        gcs, dashboard, agent, client, metrics = free_ports(5)
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats", "--num-cpus=2",
                   "--node-ip-address=127.0.0.1", f"--port={gcs}", f"--dashboard-port={dashboard}", "--dashboard-host=127.0.0.1",
                   f"--dashboard-agent-listen-port={agent}", f"--ray-client-server-port={client}", f"--metrics-export-port={metrics}",
                   f"--temp-dir={FOLDER}"]  # fmt: skip
        log, address = token.with_name("log"), f"http://127.0.0.1:{dashboard}"
        with log.open("w") as out:
            process = subprocess.Popen(command, env=environment, start_new_session=True, stdout=out, stderr=subprocess.STDOUT)
        try:
            wait_for(lambda process=process, address=address: process.poll() is not None or answers(address), every=0.2)
            if process.poll() is None:
                yield address
                return
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            shutil.rmtree(FOLDER, ignore_errors=True)
    raise AssertionError(log.read_text())


def answers(address: str) -> bool:
    try:
        return bool(ask(f"{address}/api/version", 2))
    except OSError:
        return False


def ask(url: str, patience: float = 30) -> bytes:
    """What the job server answers to who has its token."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {TOKEN}"})
    with urllib.request.urlopen(request, timeout=patience) as answer:
        return bytes(answer.read())


def test_a_sweep_is_submitted_followed_and_submitted_again(head: str, service: Command, storage: Path) -> None:
    small = ("--set=datasets=test/hopper/random-v0", "--set=pruners=dense", "--set=seeds=0", "--device=cpu")
    done = service("submit", "smoke", *small, "--address", head, "--follow")
    assert done.returncode == 0, done.stdout + done.stderr
    said, submitted, end, *rest = done.stdout.splitlines()
    assert said.startswith(f"sends {ROOT}: ")
    assert [line for line in done.stderr.splitlines() if not line.rstrip("0123456789 s").endswith("...")] == [], "nothing of Ray's"
    assert "benchmarks, docker, docs, " in said
    assert submitted == f"winnow-smoke-a1 submitted; its output: ray job logs --address {head} -f winnow-smoke-a1"
    assert end == f"end it: ray job stop --address {head} winnow-smoke-a1"
    assert rest
    assert "smoke: 1 trials of 200 updates" in done.stdout, "the driver's output"
    assert done.stdout.endswith("winnow-smoke-a1: SUCCEEDED\n")
    assert TOKEN not in done.stdout + done.stderr
    assert "warning" not in done.stdout, "this cluster asks for a token"
    shown = b"".join(
        ask(f"{head}/api/{page}") for page in ("jobs/", "v0/actors?detail=1", "v0/workers?detail=1", "v0/runtime_envs?detail=1")
    )
    assert b"Trainable" in shown
    assert PLANTED.encode() not in shown
    written = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert any(path.name.startswith("runtime_env_agent") for path in written)
    assert [path for path in written if any(secret in path.read_bytes() for secret in (PLANTED.encode(), TOKEN.encode()))] == []
    ledger = manifest.read(storage, "smoke")
    (entry,) = ledger.entries.values()
    assert entry.state == "done"
    by = ledger.asked_by(entry)
    assert (by["user"], by["type"]) == (getpass.getuser(), "JOB")
    assert by["name"].startswith("winnow submit smoke --set=datasets=test/hopper/random-v0"), "who submitted it, not who ran it"
    again = service("submit", "smoke", *small, "--address", head)
    assert "\nwinnow-smoke-a2 submitted; " in again.stdout, again.stderr
    assert len(again.stdout.splitlines()) == 3


def test_a_limit_is_no_failure_of_rays_job(head: str, service: Command, tmp_path: Path) -> None:
    long = ("--set=datasets=test/hopper/random-v0", "--set=pruners=dense", "--set=seeds=8", "--set=updates=1000000", "--device=cpu")
    later = f"{datetime.now() + timedelta(hours=12):%H:%M}"
    given = ("--max-core-hours=1e-9", f"--until={later}", "--address", head)
    submitted = service("submit", "smoke", *long, *given, WINNOW_STORAGE=str(tmp_path))
    assert submitted.returncode == 0, submitted.stderr
    (limits,) = [line for line in submitted.stdout.splitlines() if line.startswith("limits: ")]
    assert re.fullmatch(rf"limits: until {later}[+-]\d\d:\d\d to(day|morrow), in .*; 1e-09 core-hours", limits)
    id, until = submitted.stdout.splitlines()[-2].split()[0], time.monotonic() + LONG
    while (job := dict(json.loads(ask(f"{head}/api/jobs/{id}"))))["status"] in ("PENDING", "RUNNING"):
        assert time.monotonic() < until, job
        time.sleep(0.2)
    log = json.loads(ask(f"{head}/api/jobs/{id}/logs"))["logs"]
    assert job["status"] == "STOPPED", log
    assert "limit reached (--max-core-hours=1e-09)" in log.splitlines()[-1]


def test_a_deliberate_stop_is_no_failure_of_rays_job(head: str, service: Command, tmp_path: Path) -> None:
    storage = tmp_path / "storage"  # of its own: whatever other jobs of this head do
    long = ("--set=datasets=test/hopper/random-v0", "--set=pruners=dense", "--set=seeds=7", "--set=updates=1000000", "--device=cpu")
    submitted = service("submit", "smoke", *long, "--address", head, WINNOW_STORAGE=str(storage))
    assert submitted.returncode == 0, submitted.stderr
    id = submitted.stdout.splitlines()[1].split()[0]

    def job() -> dict[str, Any]:
        return dict(json.loads(ask(f"{head}/api/jobs/{id}")))

    until = time.monotonic() + LONG
    while not any(entry.state == "leased" and entry.trial.seed == 7 for entry in manifest.read(storage, "smoke").entries.values()):
        assert job()["status"] in ("PENDING", "RUNNING"), job()
        assert time.monotonic() < until
        time.sleep(0.2)
    stopped = service("stop", "smoke", WINNOW_STORAGE=str(storage))
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    assert "has left; " in stopped.stdout
    until = time.monotonic() + LONG
    while job()["status"] in ("PENDING", "RUNNING"):
        assert time.monotonic() < until, job()
        time.sleep(0.2)
    assert job()["status"] == "STOPPED", job()
    log = json.loads(ask(f"{head}/api/jobs/{id}/logs"))["logs"]
    last = log.splitlines()[-1]
    assert "` continues from the checkpoints" in last or last.startswith("left at once")  # where this machine is too busy for more


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A new project; the plug-ins of its sweep are in it and nowhere else."""
    subprocess.run([sys.executable, "-m", "winnow", "init", str(tmp_path / "mine")], cwd=ROOT, check=True, capture_output=True)
    for name in ("storage/trials/x", ".venv/bin/python", "pruners/__pycache__/steepest.pyc"):
        (tmp_path / "mine" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / name).write_bytes(bytes(1000))
    return tmp_path / "mine"


SAY = "from service.cluster import job, sent; from trainables import project; project.apply(); print(sent.describe(job.shipped()))"


def sends(project: Path, environment: dict[str, str]) -> str:
    """What `submit` says that it sends, as soon as the job server has answered."""
    command = [sys.executable, "-c", SAY]
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=True, timeout=LONG).stdout


def submitted(project: Path, environment: dict[str, str], *more: str) -> subprocess.CompletedProcess[str]:
    small = ("--set=datasets=test/hopper/random-v0", "--set=algorithms=rewarded_bc", "--set=pruners=steepest", "--set=seeds=0",
             "--set=updates=20", "--set=episodes=1", "--device=cpu")  # fmt: skip
    command = [sys.executable, "-m", "winnow", "submit", "first", *small, *more]
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False, timeout=LONG)


def test_a_project_is_sent_with_its_plug_ins(head: str, service: Command, storage: Path, project: Path) -> None:
    environment = service.environment | {"PYTHONPATH": str(ROOT)}  # type: ignore[attr-defined]
    done = submitted(project, environment, "--address", head, "--follow")
    assert done.returncode == 0, done.stdout + done.stderr
    sent = f"sends {project}: 5 files, 0.0 MB; left out: .venv, storage"
    assert done.stdout.startswith(f"{sent}\nwinnow-first-a1 submitted; its output: ray job logs ")
    assert list(FOLDER.rglob("py_modules_files/*/service/__main__.py")), "the code came along"
    command = [sys.executable, "-m", "winnow", "status", "first", "--json"]
    status = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=True, timeout=LONG)
    assert json.loads(status.stdout)["counts"] == {"done": 1}
    assert "steepest" in (storage / "sweeps" / "first" / "results.txt").read_text()


def test_folders_that_the_settings_name_stay_and_names_of_ours_are_refused(project: Path, service: Command) -> None:
    (project / "winnow.toml").write_text('storage = "results"\ndatasets = "data/minari"\ncache = "/elsewhere"\n')
    for name in ("results/trials", "data/minari/x", "data/y"):
        (project / name).mkdir(parents=True)
    environment = service.environment | {"PYTHONPATH": str(ROOT)}  # type: ignore[attr-defined]
    for name in ("WINNOW_STORAGE", "WINNOW_CACHE", "MINARI_DATASETS_PATH"):
        environment.pop(name, None)
    assert sends(project, environment).endswith("left out: .venv, data/minari, results, storage\n")
    (project / "service").mkdir()
    done = submitted(project, environment, "--address", "http://127.0.0.1:9")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: {project}/service has the name of a package of Winnow's, and the cluster could take it for that; rename it\n"
    )


def sparse_file(path: Path, megabytes: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        file.truncate(megabytes * 1_000_000)


def test_a_project_that_is_too_large_is_refused_with_what_to_exclude(service: Command, project: Path) -> None:
    environment = service.environment | {"PYTHONPATH": str(ROOT)}  # type: ignore[attr-defined]
    for name, megabytes in (("runs/a/one.bin", 60), ("runs/a/two.bin", 50), ("runs/log.txt", 2), ("weights.bin", 90), ("small.bin", 5)):
        sparse_file(project / name, megabytes)
    done = submitted(project, environment, "--address", "http://127.0.0.1:9")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: {project} holds 207 MB, and Ray's job server takes 100; "
        f"a line for each in {project}/.rayignore excludes /runs/a (110 MB)\n"
    )
    (project / ".gitignore").write_text("one.bin\n")
    done = submitted(project, environment, "--address", "http://127.0.0.1:9")
    assert done.stderr.endswith("/.rayignore excludes /weights.bin (90 MB)\n")
    (project / ".rayignore").write_text("/weights.bin\n")
    left_out = "left out: .venv, runs/a/one.bin, storage, weights.bin"
    assert sends(project, environment) == f"sends {project}: 10 files, 57.0 MB; {left_out}\n"


def test_what_is_sent_is_what_ray_counts(project: Path) -> None:
    from ray._private.runtime_env.packaging import _dir_travel, _get_excludes

    (project / ".gitignore").write_text("*.bin\n/outputs/\n")
    (project / "sweeps" / ".rayignore").write_text("old*\n")
    for name in ("a.bin", "outputs/b.txt", "sweeps/old.py", "sweeps/deep/older/x.py", "sweeps/deep/new.py", "outputs.py"):
        sparse_file(project / name, 1)
    (project / "linked").symlink_to(project / "sweeps" / "deep")
    (project / "round").symlink_to(project / "nowhere")
    seen: list[Path] = []
    excludes = [*OF_PROJECT, "/elsewhere"]
    _dir_travel(project, [_get_excludes(project, excludes)], seen.append, include_gitignore=True)
    sent = describe({"working_dir": str(project), "excludes": excludes})
    files = [path for path in seen if path.is_file()]
    size = sum(path.stat().st_size for path in files) / 1e6
    assert sent.startswith(f"sends {project}: {len(files)} files, {size:.1f} MB; left out: .venv, a.bin, outputs, storage, sweeps/")


def test_a_clone_that_is_too_large_is_refused_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("service.cluster.job.ROOT", tmp_path)
    monkeypatch.setattr("trainables.project.root", lambda: None)
    (tmp_path / "pyproject.toml").touch()
    sparse_file(tmp_path / "tests" / "is_not_sent.bin", 200)
    sparse_file(tmp_path / "notebooks" / "data.h5", 120)
    with pytest.raises(UserError, match=rf"a line for each in {tmp_path}/.rayignore excludes /notebooks/data.h5 \(120 MB\)$"):
        submit("smoke", RunSettings(), address="http://127.0.0.1:9")


def test_without_a_job_server_it_says_so(refused) -> None:
    said = refused(["submit", "smoke", "--address", "http://127.0.0.1:9"])
    assert "no job server of Ray at http://127.0.0.1:9" in said
    assert "give --address" in said


def test_a_bad_grid_is_refused_before_anything_is_submitted(refused) -> None:
    assert "no pruner 'snap'" in refused(["submit", "smoke", "--set", "pruners=snap", "--address", "http://127.0.0.1:9"])


def test_an_attempt_has_a_number_that_was_never_used() -> None:
    assert next_id("smoke", []) == "winnow-smoke-a1"
    taken = ["winnow-smoke-a2", "winnow-smoke-a10", "winnow-smoke_x-a30", "raysubmit_4LamX", "winnow-smoke-a11x"]
    assert next_id("smoke", taken) == "winnow-smoke-a11"


def test_a_secret_is_not_put_where_rays_page_shows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:geheim@mlflow.example")
    with pytest.raises(UserError, match="holds a secret, which Ray's page would show") as error:
        environment()
    assert "geheim" not in str(error.value)
    for address in (
        "https://geheim@mlflow.example",
        "https://mlflow.example/?password=geheim",
        "https://mlflow.example/?a=1&api_key=geheim",
    ):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        with pytest.raises(UserError, match="MLFLOW_TRACKING_URI holds a secret"):
            environment()
        with pytest.raises(UserError, match="holds a secret") as error:
            submit("smoke", RunSettings(), address)
        assert "geheim" not in str(error.value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example")
    monkeypatch.setenv("WINNOW_STUDY_STORAGE", "postgresql://me:geheim@studies.example/db")
    with pytest.raises(UserError, match="WINNOW_STUDY_STORAGE holds a secret"):
        environment()
    with pytest.raises(UserError, match="--study-storage holds a secret"):
        submit("td3bc_adaptive", RunSettings(study_storage="postgresql://me:geheim@studies.example/db"))
    monkeypatch.delenv("WINNOW_STUDY_STORAGE")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "geheim")
    assert "geheim" not in str(environment())


def test_whoever_follows_a_job_no_longer_is_not_told_that_it_succeeded(
    hopper: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def interrupted(client: object, id: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(job, "_client", lambda server: None)
    monkeypatch.setattr(job, "_hand_over", lambda *given: "winnow-smoke-a1")
    monkeypatch.setattr(job, "_follow", interrupted)
    assert submit("smoke", RunSettings(overrides=(f"datasets={hopper}",)), follow=True) == 130
    assert "winnow-smoke-a1 keeps running; its output: ray job logs" in capsys.readouterr().out


def test_where_a_storage_on_s3_is_goes_with_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    read = {name for file in (paths, s3) for name in re.findall(r'environ.get\("(AWS_\w+)"', Path(file.__file__).read_text())}
    assert "AWS_ENDPOINT_URL_S3" in read
    for name in read:
        monkeypatch.setenv(name, f"of-{name}")
    assert {name: environment().get(name) for name in read} == {name: f"of-{name}" for name in read}


def test_a_job_server_that_fails_without_a_word_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(address: str) -> None:
        raise ConnectionError

    monkeypatch.setattr("ray.job_submission.JobSubmissionClient", fail)
    with pytest.raises(UserError, match=r"^no job server of Ray at http://host:8265 \(ConnectionError\); give --address$"):
        submit("smoke", RunSettings(), address="http://host:8265")
