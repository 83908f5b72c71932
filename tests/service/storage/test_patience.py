"""A driver whose storage on S3 does not answer waits, and goes on where it stands; all others give up after a while."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from service.driving.driver import Driver
from service.driving.session import Session
from service.ledger import lease, manifest
from service.ledger.manifest import Manifest
from service.planning.options import TrainingOptions
from service.planning.plan import make_plan
from service.planning.run_settings import RunSettings
from service.storage import paths, patience, s3, trial_objects
from service.terminal import signals
from service.terminal.display import Display
from service.terminal.signals import Leaving
from tests.s3 import Server
from trainables.errors import SupersededError, UserError
from trainables.trial import Trial

TRIAL = Trial(dataset="test/hopper/random-v0", algorithm="bc")
KEY = TRIAL.key
SETTINGS = RunSettings(
    overrides=("datasets=test/hopper/random-v0", "pruners=snip", "seeds=0-3"), options=TrainingOptions(device="cpu", stack_size=1)
)


class Network:
    """Between this process and the server: `away` while no request gets through. Counts the requests that are made, by operation."""

    def __init__(self, bucket: s3.Bucket) -> None:
        self.away, self.requests, self._call = False, Counter[str](), bucket._client._make_api_call

    def __call__(self, operation: str, about: dict[str, Any]) -> Any:
        self.requests[operation] += 1
        if self.away:
            raise ConnectionResetError
        return self._call(operation, about)


@pytest.fixture
def storage(on_host: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """On a host that soon gives up, and where nobody has asked anything to end."""
    monkeypatch.setattr(s3, "PATIENCE", 0.5)
    monkeypatch.setattr(signals, "_left", False)
    s3._bucket.cache_clear()
    return on_host("a")


@pytest.fixture
def network(storage: Path, monkeypatch: pytest.MonkeyPatch) -> Network:
    bucket = s3.bucket_of(storage)
    assert bucket
    made = Network(bucket)
    monkeypatch.setattr(bucket._client, "_make_api_call", made)
    return made


def in_pauses(monkeypatch: pytest.MonkeyPatch, *done: Callable[[], object]) -> list[float]:
    """What happens in the first pause of a wait, the second, ...; the pauses so far, none of which takes any time."""
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        assert len(pauses) < 1000, "nothing ends this wait"
        if len(pauses) <= len(done):
            done[len(pauses) - 1]()

    monkeypatch.setattr(patience, "pause", pause)
    return pauses


def test_a_driver_goes_on_where_it_stands_when_the_server_is_back(
    storage: Path, server: Server, hopper: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The server stops for longer than a call is retried, with requests under way that it serves when it goes on."""
    monkeypatch.setattr(s3, "PATIENCE", 60.0)  # on a busy machine an answer may be late at any time
    monkeypatch.setattr(s3, "READ_TIMEOUT", 2.0)
    s3._bucket.cache_clear()
    plan = make_plan("smoke", SETTINGS, storage=storage)
    journal = Manifest(storage, "smoke")
    driver = Driver(plan, journal, storage, Display(), refresh=partial(trial_objects.refresh, storage))
    driver.prepare()
    driver.begin("cpu", 2)
    stack = driver.next()
    assert stack
    driver.started(stack)
    nothing = lambda: None  # noqa: E731
    pauses = in_pauses(monkeypatch, nothing, nothing, server.go_on)
    monkeypatch.setattr(s3, "PATIENCE", 0.5)
    server.stop()
    try:
        with patience.patient(journal.lease.check):
            driver.ended(stack, {"failure": {"reason": "infrastructure", "message": "as said"}})
            driver.leave()
    finally:
        server.go_on()
    monkeypatch.setattr(s3, "PATIENCE", 60.0)
    assert len(pauses) >= 3
    journal.close()
    events = manifest.read(storage, "smoke").entries[stack.lead.key].events
    assert [event.state for event in events] == ["planned", "leased", "failed", "planned"]
    err = capsys.readouterr().err
    url = s3.bucket_of(storage).url  # type: ignore[union-attr]
    assert f"storage {url} does not answer; waiting, 30 min left\n" in err
    assert err.endswith(f"storage {url} answers again\n")


@pytest.mark.parametrize("write", ["the journal", "another file"])
def test_after_the_wait_the_lease_is_checked_before_anything_is_written(
    write: str, storage: Path, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another host, which reached the server, has taken over meanwhile."""
    journal, bucket, written = Manifest(storage, "smoke"), s3.bucket_of(storage), list[int]()
    assert bucket
    call = journal._append if write == "the journal" else partial(bucket.put, "anything")

    def taken_over() -> None:
        network.away = False
        lease._create(paths.leases(storage, "smoke"), 2, {"state": "held", "owner": "b:1"})
        written.append(network.requests["PutObject"])

    in_pauses(monkeypatch, taken_over)
    network.away = True
    with patience.patient(journal.lease.check), pytest.raises(SupersededError, match="epoch 1 is over: held by b:1"):
        call(b"{}\n")
    assert network.requests["PutObject"] == written[0]
    journal.close()


@pytest.mark.parametrize("parallel", [False, True])
def test_whoever_is_asked_to_leave_waits_no_longer(
    parallel: bool, storage: Path, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in threads, which get no signal; and what is called on the way out is tried once."""
    journal, bucket, leaving = Manifest(storage, "smoke"), s3.bucket_of(storage), Leaving(lambda: None)
    assert bucket
    monkeypatch.setattr(Leaving, "current", leaving)
    pauses = in_pauses(monkeypatch, partial(setattr, leaving, "why", "SIGTERM"))
    network.away = True
    with patience.patient(journal.lease.check):
        with pytest.raises(OSError, match="the server does not answer"):
            trial_objects.in_parallel(bucket.exists, ["a", "b", "c"]) if parallel else bucket.exists("a")
        assert len(pauses) == 1
        network.requests.clear()
        with pytest.raises(UserError, match="cannot be written"):
            journal._append(b"{}\n")
        assert network.requests.total() == 1
    network.away = False
    journal.close()


def own_handler(request: pytest.FixtureRequest) -> None:
    """Python's own for Ctrl-C, until the test ends: pytest's workers ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(partial(signal.signal, signal.SIGINT, before))


def test_a_signal_ends_the_wait_and_what_was_not_written_is_not_recorded(
    storage: Path, network: Network, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    journal = Manifest(storage, "smoke")
    own_handler(request)
    in_pauses(monkeypatch, partial(signal.raise_signal, signal.SIGINT))
    network.away = True
    with patience.patient(journal.lease.check), pytest.raises(KeyboardInterrupt):
        journal.plan([TRIAL])
    network.away = False
    assert journal.ledger.state(KEY) == ""
    journal.plan([TRIAL])
    assert manifest.read(storage, "smoke").state(KEY) == "planned"
    journal.close()


def test_a_wait_in_vain_is_the_only_one_until_the_server_answers(
    storage: Path, network: Network, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    journal, bucket = Manifest(storage, "smoke"), s3.bucket_of(storage)
    assert bucket
    pauses = in_pauses(monkeypatch, lambda: monkeypatch.setattr(patience, "LONG", 0.0))
    network.away = True
    with patience.patient(journal.lease.check):
        for _ in range(2):
            with pytest.raises(OSError, match="the server does not answer"):
                bucket.put("a", b"1")
        assert len(pauses) == 1
        network.away = False
        bucket.put("a", b"1")
        monkeypatch.setattr(patience, "LONG", 60.0)
        network.away = True
        in_pauses(monkeypatch, partial(setattr, network, "away", False))
        bucket.put("a", b"2")
    assert bucket.get("a")[0] == b"2"
    assert capsys.readouterr().err.count("does not answer; waiting, 1 min left\n") == 1
    journal.close()


def test_only_the_thread_that_drives_waits_and_what_it_calls_in_parallel(
    storage: Path, network: Network, hopper: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A heartbeat that waited inside a call would not hear that it may beat again, and a short command has somebody in front of it."""
    bucket, gave_up = s3.bucket_of(storage), list[OSError]()
    assert bucket
    pauses = in_pauses(monkeypatch, partial(setattr, network, "away", False))

    def beat() -> None:
        try:
            bucket.put("a", b"1")
        except OSError as error:
            gave_up.append(error)

    with Session(make_plan("smoke", SETTINGS, storage=storage), storage):
        network.away = True
        other = threading.Thread(target=beat)
        other.start()
        other.join()
        assert gave_up
        assert pauses == []
        assert trial_objects.in_parallel(bucket.exists, ["a"]) == [False]
        assert pauses
    network.away = True
    with pytest.raises(OSError, match="the server does not answer"):
        bucket.put("a", b"1")
    assert len(pauses) == 1
    network.away = False


@pytest.mark.parametrize(
    ("given", "region"),
    [({}, "us-east-1"), ({"AWS_REGION": "eu-central-1"}, "eu-central-1"), ({"AWS_DEFAULT_REGION": "sa-east-1"}, "sa-east-1")],
)
def test_the_region_is_the_one_that_is_set(given: dict[str, str], region: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert s3._client("s3://bucket/runs").meta.region_name == region
