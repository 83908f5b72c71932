"""`submit` to a real head, and an embedded Ray: what of the environment reaches the cluster, secrets and named modules."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.ledger import manifest
from service.storage import paths
from tests.service.driving.test_news import Webhook

from ..conftest import Fresh, Record, arguments
from ..storage.test_imports import naming_this
from ..support.harness import Process, driver, node
from ..support.invariants import SWEEP
from ..support.nursery import Nursery

SECRET = "hunter2hunter2"
SECRETS = {name: f"{SECRET}-{name}" for name in ("AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD", "FOO_TOKEN", "HF_TOKEN")}
PAGES = ("api/jobs/", "api/v0/actors?detail=1", "api/v0/workers?detail=1", "api/v0/tasks?detail=1")


@pytest.fixture
def named(environment: dict[str, str], tmp_path: Path, hopper_folder: Path) -> dict[str, str]:
    """An environment with a dataset that names a module to import; this module has to reach the workers."""
    return environment | naming_this(tmp_path, hopper_folder)


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    """A server on loopback, whose address holds `geheim`."""
    made = Webhook([])
    yield made
    made.close()


def done(storage: Path) -> bool:
    ledger = manifest.read(storage, SWEEP)
    return {entry.state for entry in ledger.entries.values()} == {"done"}


@pytest.mark.slow_faults
def test_a_named_module_reaches_embedded_workers(named: dict[str, str], fresh: Fresh, started: list[Process], record: Record) -> None:
    storage = fresh()
    run = driver([*arguments(storage), "--import=this"], named, storage / "log", FAULTS="no_table no_mlflow")
    started.append(run)
    assert run.wait() == 0, run.out
    assert done(storage)
    record("a module named with --import, embedded Ray: workers import it", kills="")


def test_an_address_with_a_password_is_refused_before_any_server_is_asked(nursery: Nursery) -> None:
    for more in ({"MLFLOW_TRACKING_URI": f"https://{SECRET}@host"}, {"WINNOW_STUDY_STORAGE": f"postgresql://me:{SECRET}@host/x"}):
        refused = nursery.run("submit", SWEEP, "--address=http://127.0.0.1:9", **more)
        (name,) = more
        assert (refused.code, f"error: {name} holds a secret" in refused.out) == (2, True), refused.out
        assert SECRET not in refused.out


@pytest.mark.slow_faults
def test_a_job_gets_the_named_module_and_no_secret(
    named: dict[str, str], fresh: Fresh, started: list[Process], record: Record, tmp_path: Path
) -> None:
    storage, off = fresh(), {"RAY_AUTH_MODE": "disabled"}
    head = node(named | off | {"FAULTS": "no_table"}, tmp_path / "head.log", started, cpus=2)  # its job inherits that
    submit = ["submit", *arguments(storage)[1:], "--import=this", f"--address={head.dashboard}", "--follow"]
    job = driver(submit, named | off | SECRETS, tmp_path / "job.log")
    started.append(job)
    assert job.wait() == 0, job.out
    assert done(storage)
    shown = {page: urllib.request.urlopen(f"{head.dashboard}/{page}", timeout=60).read() for page in PAGES}
    assert b"winnow run smoke" in shown["api/jobs/"]
    assert b"Trainable" in shown["api/v0/actors?detail=1"]
    assert [page for page, text in shown.items() if SECRET.encode() in text] == []
    files = [path for folder in (Path(head.folder), storage) for path in folder.rglob("*") if path.is_file()]
    assert any(path.name.startswith("job-driver-winnow-smoke") for path in files)
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []
    assert SECRET not in job.out
    assert paths.mlflow_db(storage).exists()
    record("secrets in the environment of `submit`, on a real head: none in its pages and files", kills="")
    record("a module named with --import, submitted: the job's workers import it", kills="")


def test_the_address_of_a_webhook_is_not_submitted(nursery: Nursery) -> None:
    refused = nursery.run("submit", SWEEP, "--address=http://127.0.0.1:9", f"--notify=http://host/{SECRET}")
    assert (refused.code, "error: the address of --notify is its secret" in refused.out) == (2, True), refused.out
    assert SECRET not in refused.out


@pytest.mark.slow_faults
def test_a_driver_leaves_no_address_of_a_webhook_on_a_head(
    environment: dict[str, str], fresh: Fresh, started: list[Process], record: Record, tmp_path: Path, webhook: Webhook
) -> None:
    storage, off = fresh(), environment | {"RAY_AUTH_MODE": "disabled"}
    head = node(off | {"FAULTS": "no_table"}, tmp_path / "head.log", started, cpus=2)
    run = driver([*arguments(storage), f"--notify={webhook.url}"], off | {"RAY_ADDRESS": head.address}, storage / "log", FAULTS="no_table")
    started.append(run)
    assert run.wait() == 0, run.out
    assert [body["event"] for _, body in webhook.got] == ["done"]
    jobs = urllib.request.urlopen(f"{head.dashboard}/api/jobs/", timeout=60).read()
    assert b"run smoke" in jobs
    assert b"geheim" not in jobs
    files = [path for folder in (Path(head.folder), storage) for path in folder.rglob("*") if path.is_file()]
    assert [path for path in files if b"geheim" in path.read_bytes()] == []
    record("a webhook's address on the driver's command line: none in a real head's pages and files", kills="")


def test_a_webhook_that_fails_twice_is_told_and_its_address_is_stored_nowhere(
    nursery: Nursery, fresh: Fresh, webhook: Webhook, record: Record
) -> None:
    storage = fresh()
    webhook.script += [500, 503]
    ended = nursery.run(*arguments(storage), f"--notify={webhook.url}", faults=["no_table"])
    assert ended.code == 0, ended.out
    ((_, said),) = webhook.got
    assert (said["event"], said["trials"]) == ("done", {"done": 2})
    assert "--notify=http://127.0.0.1:" in said["command"]
    failing = nursery.run(*arguments(storage, seeds="1", **{"hyper.learning_rate": "1e30"}), f"--notify={webhook.url}", faults=["no_table"])
    assert failing.code == 1, failing.out
    assert [body["event"] for _, body in webhook.got] == ["done", "failed"]
    assert "geheim" not in ended.out + failing.out + json.dumps([body for _, body in webhook.got])
    assert [path for path in storage.rglob("*") if path.is_file() and b"geheim" in path.read_bytes()] == []
    record("a webhook that answers 500 and 503: it is told, and its address is stored nowhere", kills="")
