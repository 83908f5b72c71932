"""Sweeps whose storage is on S3, served by a process of its own: killed and gone on with by another host, cut off, refused."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service.ledger.journal import ObjectJournal
from service.storage import paths, s3, trial_objects
from tests.s3 import SECRET, Server, serving

from ..conftest import EVERY, QUICK, SETTINGS, Fresh, Record, arguments, whole
from ..support.harness import Process, RayNode, driver, node, wait_for
from ..support.invariants import SWEEP, Attempt, Twin, attempts, check, redone
from ..support.nursery import Ended, Nursery

Host = Callable[..., Ended]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from serving(tmp_path_factory.mktemp("s3"))


@pytest.fixture
def url(server: Server, request: pytest.FixtureRequest) -> str:
    """A storage of the test's own."""
    return server.bucket(f"test-{abs(hash(request.node.name))}") + "/deep/down"


@pytest.fixture
def host(server: Server, nursery: Nursery, table_cache: Path, tmp_path: Path, url: str) -> Callable[[str], Host]:
    """`host("a")("run", faults=["..."])`: a command on a host that has its own folders, and at first nothing of the storage."""

    def named(name: str) -> Host:
        place = tmp_path / name
        if not place.exists():
            shutil.copytree(table_cache, place, ignore=shutil.ignore_patterns("s3"))

        def run(command: str, *more: str, faults: tuple[str, ...] = (), **environment: str) -> Ended:
            chosen = [f"--set={key}={value}" for key, value in SETTINGS.items()] if command in ("run", "results") else []
            chosen += ["--device=cpu", "--stack-size=2", "--checkpoint-every=20"] if command == "run" else []
            target = more if command == "logs" else (SWEEP, *more)
            given = server.environment | {"WINNOW_CACHE": str(place)} | environment
            return nursery.run(command, *target, f"--storage={url}", *chosen, faults=["watches=0.5", *faults], **given)

        return run

    return named


@pytest.fixture
def folder_of(server: Server, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Path]:
    """`folder_of()`: what the bucket holds, as a storage that is a folder."""
    for name, value in (server.environment | {"WINNOW_CACHE": str(tmp_path / "reader")}).items():
        monkeypatch.setenv(name, value)

    def fetch() -> Path:
        storage, bucket = tmp_path / "fetched" / str(time.monotonic_ns()), s3.Bucket(url)
        for name in bucket.list("heads/"):
            key = Path(name).stem
            trial_objects.fetch(bucket, trial_objects.read_head(bucket, key).files, paths.trial(storage, key), key)
        manifest = paths.manifest(storage, SWEEP)
        manifest.parent.mkdir(parents=True)
        manifest.write_bytes(ObjectJournal(bucket, paths.manifest_parts(paths.root(url), SWEEP)).content())
        return storage

    return fetch


def mlflow_of(place: Path) -> str:
    (found,) = place.glob("s3/*/*/mlflow.db")
    return f"sqlite:///{found}"


@pytest.mark.parametrize("hours", [-9, 30])
def test_hosts_whose_clocks_differ_take_over_from_each_other(
    host: Callable[[str], Host], folder_of: Callable[[], Path], twin: Twin, tmp_path: Path, hours: int, record: Record
) -> None:
    first, second = host("a"), host("b")
    assert first("run", faults=("no_table", "no_mlflow", f"clock_off={-3600 * hours}", "die_after=Trained@31")).code == 137
    ended = second("run", faults=("no_table", "no_mlflow", f"clock_off={3600 * hours}"))
    assert ended.code == 0, ended.out
    assert "for a sign of life" in ended.out
    assert check(folder_of(), twin, tracking=None) == []
    record(f"two hosts whose clocks differ by {abs(2 * hours)} h, on S3, one of them SIGKILL")


def test_an_archive_of_unfinished_trials_has_their_checkpoints_from_the_bucket(
    host: Callable[[str], Host], nursery: Nursery, fresh: Fresh, twin: Twin, tmp_path: Path
) -> None:
    """Made on a host that has never trained, and gone on with in a folder."""
    file, folder = tmp_path / "smoke.zip", fresh()
    assert host("a")("run", faults=("no_table", "no_mlflow", "die_after=Trained@31")).code == 137
    archived = host("c")("archive", "--unfinished", f"--to={file}")
    assert "0 finished and 2 unfinished trials" in archived.out
    assert nursery.run("adopt", str(file), f"--storage={folder}").code == 0
    assert nursery.run(*arguments(folder), faults=[*QUICK, f"work={folder / 'work'}"]).code == 0
    assert {attempt.first for attempt in attempts(folder / "work")} == {EVERY}
    assert whole(nursery, folder, twin) == []


def test_a_killed_driver_s_sweep_goes_on_on_another_host(
    host: Callable[[str], Host], folder_of: Callable[[], Path], twin: Twin, tmp_path: Path, record: Record
) -> None:
    """And every command works there, and on a third host that has never trained."""
    first, second, third = host("a"), host("b"), host("c")
    assert first("run", faults=("no_table", "die_after=Trained@31", f"work={tmp_path / 'work'}")).code == 137
    assert {"interrupted", "running"} & {*second("status").out.replace(",", " ").replace(";", " ").split()}
    ended = second("run", faults=(f"work={tmp_path / 'work'}",))
    assert ended.code == 0, ended.out
    assert "for a sign of life" in ended.out
    assert check(folder_of(), twin, mlflow_of(tmp_path / "b")) == []
    assert 0 < redone(tmp_path / "work") <= EVERY
    (key, *_) = twin.states
    outputs = {name: third(name, *more) for name, more in {"sync": (), "verify": (), "status": (), "results": (), "logs": (key,)}.items()}
    assert {name: ended.code for name, ended in outputs.items()} == dict.fromkeys(outputs, 0), outputs
    assert "points shipped" in outputs["sync"].out
    assert "MLflow holds exactly what they wrote" in outputs["verify"].out
    assert f"{SWEEP}: {len(twin.states)} done; nobody runs it now" in outputs["status"].out
    assert "sparsity" in outputs["results"].out
    assert "(50 updates committed)" in outputs["logs"].out
    for place in (tmp_path / "a", tmp_path / "b", tmp_path / "c", tmp_path / "work"):
        assert [path for path in place.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()] == []
    assert SECRET not in "".join(ended.out for ended in (ended, *outputs.values()))
    assert not [*(tmp_path / "b").glob("s3/*/*/attempts/*")]  # what the killed worker left on host a goes with its next attempt there
    record("driver and worker SIGKILL, storage on S3, another host goes on", redone=redone(tmp_path / "work"))


def test_the_server_is_away_for_a_while(
    server: Server, host: Callable[[str], Host], folder_of: Callable[[], Path], twin: Twin, url: str, record: Record
) -> None:
    """It stops in the middle for longer than a call may take, so that calls are cut off, and lost answers come again."""
    bucket, over = server.client(), threading.Event()

    def disturb() -> None:
        name = url.removeprefix("s3://").partition("/")[0]
        while not over.wait(0.05):
            keys = [item["Key"] for item in bucket.list_objects_v2(Bucket=name).get("Contents", [])]
            if any("/checkpoints/000000020.json" in key for key in keys):
                server.stop()
                time.sleep(6)
                server.go_on()
                over.set()

    thread = threading.Thread(target=disturb)
    thread.start()
    ended = host("a")("run", faults=("no_table", "no_mlflow", "s3_reads_within=2", "slow=20"))
    over.set()
    thread.join()
    assert ended.code == 0, ended.out
    assert "it will be retried" not in ended.out  # a call was, not the trial
    assert check(folder_of(), twin, tracking=None) == []
    record("S3 server SIGSTOP for 6 s")


@pytest.mark.slow_faults
def test_real_workers_a_second_driver_and_a_kill(
    server: Server, environment: dict[str, str], table_cache: Path, folder_of: Callable[[], Path], twin: Twin, url: str, tmp_path: Path,
    record: Record,
) -> None:  # fmt: skip
    """With Ray: the second driver is refused while the first one lives, and goes on on another host when it is dead."""
    for name in ("a", "b"):
        shutil.copytree(table_cache, tmp_path / name, ignore=shutil.ignore_patterns("s3"))
    until = tmp_path / "wait"
    until.touch()
    faults = f"no_table no_mlflow slow_while={until}:2 watches=8 work={tmp_path / 'work'}"
    hosts = [environment | server.environment | {"WINNOW_CACHE": str(tmp_path / name), "FAULTS": faults} for name in ("a", "b")]
    first = driver(arguments(url), hosts[0], tmp_path / "first")
    try:
        wait_for(lambda: any(attempt.last > EVERY for attempt in attempts(tmp_path / "work")), first)
        second = driver(arguments(url), hosts[1], tmp_path / "second")
        assert second.wait() == 2, second.out
        assert "'smoke' is being run by" in second.out
        assert first.runs(), first.out
        assert not any(attempt.last >= 49 for attempt in attempts(tmp_path / "work"))
    finally:
        first.end()
    until.unlink()
    third = driver(arguments(url), hosts[1], tmp_path / "third")
    try:
        assert third.wait() == 0, third.out
    finally:
        third.end()
    assert check(folder_of(), twin, tracking=None) == []
    assert redone(tmp_path / "work") <= EVERY
    assert SECRET not in first.out + second.out + third.out
    record("a second driver, then the first one SIGKILL, storage on S3, with Ray", redone=redone(tmp_path / "work"))


@pytest.mark.slow_faults
def test_nodes_without_a_common_folder(
    server: Server, environment: dict[str, str], folder_of: Callable[[], Path], twin: Twin, url: str, tmp_path: Path, record: Record
) -> None:
    """A head, two raylets and a driver, each with a home, a working folder and a cache of its own; one raylet dies on the way."""
    started: list[Process] = []

    def home(name: str) -> dict[str, str]:
        (tmp_path / name).mkdir()
        given = {"HOME": str(tmp_path / name), "WINNOW_CACHE": str(tmp_path / name / "cache"), "RAY_AUTH_MODE": "disabled"}
        return environment | server.environment | given | {"FAULTS": f"no_table slow=200 watches=8 work={tmp_path / name / 'work'}"}

    def raylet_of(name: str, **more: Any) -> RayNode:
        return node(home(name), tmp_path / f"{name}.log", started, home=tmp_path / name, **more)

    def made(name: str) -> list[Attempt]:
        return [attempt for attempt in attempts(tmp_path / name / "work") if attempt.last > EVERY]

    try:
        head = raylet_of("head", cpus=0)
        first, _ = (raylet_of(name, number=number, address=head.address) for number, name in enumerate("ab", 1))
        run = driver(arguments(url, size=1), home("driver"), tmp_path / "driver.log", folder=tmp_path / "driver", RAY_ADDRESS=head.address)
        started.append(run)
        wait_for(lambda: made("a") and made("b"), run)
        first.kill()
        assert run.wait() == 0, run.out
    finally:
        for process in reversed(started):
            process.end()
    assert check(folder_of(), twin, mlflow_of(tmp_path / "driver" / "cache")) == []
    most = redone(tmp_path / "a" / "work", tmp_path / "b" / "work")
    assert 0 < most <= EVERY
    both = [{key for attempt in attempts(tmp_path / name / "work") for key in attempt.keys} for name in "ab"]
    assert both[0] < both[1] == set(twin.states)  # b has gone on with what a had begun
    assert not [path for name in "ab" for path in (tmp_path / name).rglob("manifest.jsonl")]
    record("nodes without a common folder, storage on S3, one of them SIGKILL", redone=most)


def test_what_one_host_forgets_is_gone_on_all_and_can_be_trained_again(
    server: Server, host: Callable[[str], Host], folder_of: Callable[[], Path], twin: Twin, tmp_path: Path, url: str, record: Record
) -> None:
    first, second = host("a"), host("b")
    assert first("run", faults=("no_table", "no_mlflow")).code == 0
    killed = second("forget", "--yes", faults=("die_at=6",))
    assert killed.code in (137, 0), killed.out
    ended = second("forget", "--yes")
    assert ended.code == 0 or f"no sweep '{SWEEP}' in {url}" in ended.out, ended.out
    bucket = s3.Bucket(url)
    assert [name for prefix in ("heads/", "trials/", "sweeps/") for name in bucket.list(prefix)] == []
    assert f"sweep '{SWEEP}' has not been run in {url}" in first("status").out
    again = first("run", faults=("no_table", "no_mlflow", f"work={tmp_path / 'work'}"))  # which has a copy of what is gone
    assert again.code == 0, again.out
    assert (0, 49) in {(attempt.first, attempt.last) for attempt in attempts(tmp_path / "work")}
    assert check(folder_of(), twin, tracking=None) == []
    record("forget on S3, killed and finished by another host; then the sweep is run again where copies of it are")
