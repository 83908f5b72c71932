"""Two hosts with addresses and folders of their own, storage on S3 on a third, and cables between them that are pulled out."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.ledger.journal import ObjectJournal
from service.storage import paths, s3, trial_objects
from tests.s3 import Server

from ..conftest import EVERY, Record, arguments
from ..support.harness import Process, RayNode, driver, kill, node, title, wait_for
from ..support.hosts import Network, refusal
from ..support.invariants import SWEEP, Attempt, Twin, attempts, check, redone
from ..support.nursery import Ended, Nursery

pytestmark = pytest.mark.slow_faults

AWAY = 30.0  # seconds: Ray's servers close a connection whose answers have not arrived for 20, and its clients do not hear of that
SOON = 260.0  # seconds, less than Ray takes to notice by itself that a connection is broken
QUICK_TO_DECIDE = {  # a node is dead that does not answer three times
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "4000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "600",  # 60: a raylet without its head ends then, and its workers with it
}


class Place:
    """A head and a driver on the host `a`, a node on `b`, S3 here."""

    def __init__(self, environment: dict[str, str], nursery: Nursery, folder: Path, name: str) -> None:
        self.folder, self._nursery, self._started = folder, nursery, list[Process]()
        self.network = Network()
        self.server = Server(folder / "s3.log", self.network.hosts["here"].address)
        self._environment = environment | self.server.environment | {"RAY_AUTH_MODE": "disabled"}
        self.url = self.server.bucket(f"partition-{name}") + "/deep"

    def home(self, name: str, faults: str) -> dict[str, str]:
        cache = self.folder / name / "cache"
        if not cache.exists():  # tables and kernels are not what is to be waited for
            shutil.copytree(self._environment["WINNOW_CACHE"], cache, ignore=shutil.ignore_patterns("s3"))
        own = {"HOME": str(self.folder / name), "WINNOW_CACHE": str(cache)}
        return self._environment | own | {"FAULTS": f"no_table work={self.folder / name / 'work'} {faults}"}

    def node(self, name: str, faults: str, **more: object) -> RayNode:
        host = self.network.hosts[name]
        given = {"host": (host.address, host.prefix), "home": self.folder / name, **more}
        return node(self.home(name, faults), self.folder / f"{name}.log", self._started, **given)

    def run(self, address: str, faults: str = "", **settings: str) -> Process:
        words = arguments(self.url, size=1, **settings)
        found = driver(
            words, self.home("a", faults), self.folder / "driver.log", self.folder / "a", self.network.hosts["a"].prefix,
            RAY_ADDRESS=address,
        )  # fmt: skip
        self._started.append(found)
        return found

    def at(self, name: str) -> list[Attempt]:
        """What has been trained on a host."""
        return [attempt for attempt in attempts(self.folder / name / "work") if attempt.first >= 0]

    def verify(self) -> Ended:
        return self._nursery.run("verify", SWEEP, f"--storage={self.url}", **self.home("a", ""))

    def objects(self) -> dict[str, str]:
        return s3.Bucket(self.url).list("")

    def fetch(self) -> Path:
        """What the bucket holds, as a storage that is a folder."""
        storage, bucket = self.folder / "fetched", s3.Bucket(self.url)
        for name in bucket.list("heads/"):
            key = Path(name).stem
            trial_objects.fetch(bucket, trial_objects.read_head(bucket, key).files, paths.trial(storage, key), key)
        manifest = paths.manifest(storage, SWEEP)
        manifest.parent.mkdir(parents=True)
        manifest.write_bytes(ObjectJournal(bucket, paths.manifest_parts(paths.root(self.url), SWEEP)).content())
        return storage

    def end(self) -> None:
        try:
            for process in reversed(self._started):
                process.end()
            self.network.end()
        finally:
            self.server.end()


@pytest.fixture
def place(
    environment: dict[str, str], nursery: Nursery, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Place]:
    if why := refusal():
        pytest.skip(f"no network namespaces here: {why}")
    made = Place(environment, nursery, tmp_path, f"{abs(hash(request.node.name))}")
    for name, value in (made.server.environment | {"WINNOW_CACHE": str(tmp_path / "reader")}).items():
        monkeypatch.setenv(name, value)
    try:
        yield made
    finally:
        made.end()


@pytest.mark.parametrize(
    ("cables", "fault"),
    [
        (("a-b", "here-b"), "a node cut off from the head and from S3"),
        (("here-a",), "the driver's host cut off from S3, and not from the node"),
    ],
)
def test_a_host_cut_off_for_a_while(place: Place, twin: Twin, cables: tuple[str, ...], fault: str, record: Record) -> None:
    head = place.node("a", "slow=800")
    place.node("b", "slow=800", address=head.address)
    run = place.run(head.address)
    wait_for(lambda: all(any(a.last > EVERY for a in place.at(name)) for name in "ab"), run)
    place.network.cut(*cables)
    time.sleep(AWAY)
    assert run.runs(), run.out
    place.network.heal(*cables)
    assert run.wait(SOON) == 0, run.out
    verified = place.verify()
    assert verified.code == 0, verified.out
    most = redone(place.folder / "a" / "work", place.folder / "b" / "work")
    assert most <= EVERY
    assert check(place.fetch(), twin, tracking=None) == []
    record(f"{fault} for {AWAY:.0f} s, of two hosts", kills="", redone=most)


def test_a_node_cut_off_for_ever_goes_on_by_itself(place: Place, twin: Twin, record: Record) -> None:
    """It still reaches S3. Its trial goes on on the head's own worker; the cut-off one trains beside it, and commits nothing."""
    head = place.node("a", "slow=100", patience=QUICK_TO_DECIDE)
    other = place.node("b", "slow=300 news_every=1000", address=head.address, patience=QUICK_TO_DECIDE)
    run = place.run(head.address, "no_mlflow")
    wait_for(lambda: any(a.last > EVERY for a in place.at("b")), run)
    (cut_off,) = place.at("b")
    place.network.cut("a-b")
    kill(cut_off.pid, signal.SIGSTOP)  # so that the head is first
    wait_for(lambda: any(a.keys == cut_off.keys for a in place.at("a")), run)
    assert title(cut_off.pid), "the cut-off worker lives"
    kill(cut_off.pid, signal.SIGCONT)
    assert run.wait() == 0, run.out
    wait_for(lambda: not title(cut_off.pid) or place.at("b")[0].last >= 2 * EVERY - 1)
    assert title(cut_off.pid)
    before = place.objects()
    place.network.heal("a-b")
    wait_for(lambda: not other.runs())  # it hears that it is dead
    assert place.objects() == before
    assert place.at("b")[0].last >= 2 * EVERY - 1  # it came to its next checkpoint
    again = next(attempt for attempt in place.at("a") if attempt.keys == cut_off.keys)
    assert again.first == EVERY
    most = redone(place.folder / "a" / "work", place.folder / "b" / "work")
    assert check(place.fetch(), twin, tracking=None) == []
    record("a node cut off from the head for ever, and not from S3: it is fenced off", kills="", redone=most)
