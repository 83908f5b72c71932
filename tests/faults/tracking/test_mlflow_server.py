"""A real MLflow server that is down, slow, silent, stopped or wrong: training goes on, and the curves are complete afterwards."""

from __future__ import annotations

import signal
import sys
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.storage import paths

from ..conftest import Fresh, Record, arguments
from ..support.harness import Process, free_ports, wait_for
from ..support.invariants import Twin, check, mlflow_client
from ..support.nursery import Ended, Nursery

pytestmark = pytest.mark.slow_faults
SECRET = "not-to-be-shown"


class Server:
    """The server behind the proxy; `mood` sets how it seems to be."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        port, front = free_ports(2)
        self._mood, self.address = folder / "mood", f"http://127.0.0.1:{front}"
        self.mood("well")
        more = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        store = ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--artifacts-destination", str(folder / "artifacts")]
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1", *store]
        self.server = Process(command, environment, folder / "server.log", **more)
        proxy = [sys.executable, "-m", "tests.faults.support.proxy", str(front), str(port), str(self._mood)]
        self.proxy = Process(proxy, environment, folder / "proxy.log")
        wait_for(self._healthy, self.server)

    def mood(self, mood: str) -> None:
        temporary = self._mood.with_suffix(".new")
        temporary.write_text(mood)
        temporary.replace(self._mood)

    def end(self) -> None:
        self.mood("well")
        self.proxy.end()
        self.server.end()

    def _healthy(self) -> bool:
        try:
            return urllib.request.urlopen(f"{self.address}/health", timeout=5).status == 200
        except (urllib.error.URLError, OSError):
            return False


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str], fresh: Fresh) -> Iterator[Server]:
    made = Server(fresh(), environment)
    yield made
    made.end()


@pytest.fixture
def well(server: Server) -> Iterator[Server]:
    """The server with nothing of the sweep in it."""
    from service.tracking.experiment import EXPERIMENT

    from ..support.invariants import mlflow_client

    server.mood("well")
    with mlflow_client(server.address) as client:
        experiment = client.get_experiment_by_name(EXPERIMENT)
        for run in client.search_runs([experiment.experiment_id]) if experiment else ():
            client.delete_run(run.info.run_id)
    yield server
    server.mood("well")


@pytest.mark.parametrize("mood", ["well", "slow"])
def test_all_arrives_in_the_end(nursery: Nursery, fresh: Fresh, twin: Twin, well: Server, record: Record, mood: str) -> None:
    storage = fresh()
    well.mood(mood)
    ended = nursery.run(*arguments(storage), faults=["no_table", "slow=20"], MLFLOW_TRACKING_URI=well.address)
    well.mood("well")
    assert ended.code == 0, ended.out
    assert "did not take everything" not in ended.out
    assert check(storage, twin, well.address) == []
    record(f"MLflow {mood}", kills="")


def test_all_arrives_while_it_flaps(nursery: Nursery, fresh: Fresh, twin: Twin, well: Server, record: Record) -> None:
    """It never gets well: `sync` is asked for until it says that all is there, and breaks off at one call after another."""
    storage = fresh()
    well.mood("flapping")
    assert nursery.run(*arguments(storage), faults=["no_table", "patience=2"], MLFLOW_TRACKING_URI=well.address).code in (0, 1)
    failed = 0
    while nursery.run("sync", "smoke", f"--storage={storage}", faults=["no_table"], MLFLOW_TRACKING_URI=well.address).code:
        failed += 1
        assert failed < 50
    well.mood("well")
    assert failed > 2
    assert check(storage, twin, well.address) == []
    record(f"MLflow flapping: {failed} times `service sync` broke off", kills="")


@pytest.mark.parametrize("mood", ["down", "500", "silent", "SIGSTOP"])
def test_away_from_start_to_end_then_synced(nursery: Nursery, fresh: Fresh, twin: Twin, well: Server, record: Record, mood: str) -> None:
    storage = fresh()
    if mood == "SIGSTOP":
        stop(well, signal.SIGSTOP)
    else:
        well.mood(mood)
    begun = time.monotonic()
    ended = nursery.run(*arguments(storage), faults=["patience=2"], MLFLOW_TRACKING_URI=well.address)
    took = time.monotonic() - begun
    stop(well, signal.SIGCONT)
    well.mood("well")
    assert ended.code == 1, ended.out
    assert "MLflow did not take everything" in ended.out
    if mood in ("silent", "SIGSTOP"):
        assert "(MLflow does not answer);" in ended.out  # said when patience ended; the client of MLflow would have waited far longer
    assert check(storage, twin, None) == []
    assert nursery.run("sync", "smoke", f"--storage={storage}", MLFLOW_TRACKING_URI=well.address).code == 0
    assert check(storage, twin, well.address) == []
    record(f"MLflow {mood} from start to end, then `service sync` (training took {took:.0f} s)", kills="")


def test_away_in_the_middle(nursery: Nursery, fresh: Fresh, twin: Twin, well: Server, record: Record) -> None:
    """Well at first and at last; the run itself brings all of it."""
    import threading

    storage = fresh()
    some = paths.shipped(storage, next(iter(twin.states)))

    def change() -> None:
        wait_for(some.exists)
        for mood in ("500", "down", "flapping", "well"):
            well.mood(mood)
            time.sleep(1.5)

    changing = threading.Thread(target=change)
    changing.start()
    ended = nursery.run(*arguments(storage), faults=["no_table", "ships_every=0.2", "slow=200"], MLFLOW_TRACKING_URI=well.address)
    changing.join()
    assert ended.code == 0, ended.out
    assert "did not take everything" not in ended.out
    assert check(storage, twin, well.address) == []
    record("MLflow answers 500, then is down, then flaps, in the middle", kills="")


@pytest.mark.parametrize("protected", [True, False])
def test_mlflow_prints_nothing(nursery: Nursery, fresh: Fresh, well: Server, record: Record, protected: bool) -> None:
    """It would print the address of each run that ends, with a password in it and an emoji."""
    address = well.address.replace("//", f"//user:{SECRET}@")
    faults = ["no_table", *([] if protected else ["mlflow_speaks"])]
    ended = nursery.run(*arguments(fresh()), faults=faults, MLFLOW_TRACKING_URI=address)
    assert ended.code == 0, ended.out
    assert ("View run" in ended.out) is not protected
    assert (SECRET in ended.out) is not protected
    if protected:
        assert ended.out.isascii()
        record("MLflow prints nothing: no address with a password, no emoji", kills="")


CREDENTIALS = {
    "in the address": ("Basic", "ann:{}@", {}),
    "in the environment": ("Basic", "", {"MLFLOW_TRACKING_USERNAME": "ann", "MLFLOW_TRACKING_PASSWORD": "{}"}),
    "a token": ("Bearer", "", {"MLFLOW_TRACKING_TOKEN": "{}"}),
}


@pytest.mark.parametrize("kind", CREDENTIALS)
def test_a_server_that_asks_who_it_is(nursery: Nursery, fresh: Fresh, twin: Twin, well: Server, record: Record, kind: str) -> None:
    """The right password or token will do; another one is refused before training, by `run` and by `doctor`."""
    scheme, user, variables = CREDENTIALS[kind]
    wanted = SECRET if scheme == "Bearer" else b64encode(f"ann:{SECRET}".encode()).decode()
    well.mood(f"only {scheme} {wanted}")

    def given(secret: str) -> dict[str, str]:
        address = well.address.replace("//", f"//{user.format(secret)}")
        return {"MLFLOW_TRACKING_URI": address} | {name: value.format(secret) for name, value in variables.items()}

    storage = fresh()
    wrong = nursery.run(*arguments(storage), faults=["patience=2"], **given("wrong" + SECRET))
    checked = nursery.run("doctor", f"--storage={storage}", **given("wrong" + SECRET))
    assert wrong.code == 2, wrong.out
    assert "401" in wrong.out
    assert not paths.trials(storage).exists()
    (line,) = [line for line in checked.out.splitlines() if " MLflow: " in line]
    assert line.startswith("fail")
    ended = nursery.run(*arguments(storage), faults=["no_table"], **given(SECRET))
    assert ended.code == 0, ended.out
    well_checked = nursery.run("doctor", f"--storage={storage}", **given(SECRET))
    (line,) = [line for line in well_checked.out.splitlines() if " MLflow: " in line]
    assert line.startswith("ok"), line
    assert SECRET not in wrong.out + checked.out + ended.out + well_checked.out
    well.mood("well")
    assert check(storage, twin, well.address) == []
    record(f"MLflow asks for credentials ({kind}): the right ones will do, others are refused before training", kills="")


def test_another_password_ships_nothing_again(nursery: Nursery, fresh: Fresh, well: Server, record: Record) -> None:
    storage = fresh()
    assert nursery.run(*arguments(storage), faults=["no_table"], MLFLOW_TRACKING_URI=well.address).code == 0
    changed = nursery.run("sync", "smoke", f"--storage={storage}", MLFLOW_TRACKING_URI=well.address.replace("//", "//ann:new@"))
    assert (changed.code, "0 points shipped" in changed.out) == (0, True), changed.out
    record("another user or password in MLflow's address: the same MLflow", kills="")


def test_a_server_where_one_may_only_read(nursery: Nursery, fresh: Fresh, well: Server, record: Record, tmp_path: Path) -> None:
    """`run` and `doctor` say so before anything is trained; what only reads works."""
    storage = fresh()
    assert nursery.run(*arguments(storage), faults=["no_table"], MLFLOW_TRACKING_URI=well.address).code == 0
    well.mood("reads")

    def call(*words: str) -> Ended:
        return nursery.run(*words, f"--storage={storage}", faults=["patience=2"], MLFLOW_TRACKING_URI=well.address)

    other = fresh()
    refused = nursery.run(*arguments(other), faults=["patience=2"], MLFLOW_TRACKING_URI=well.address)
    assert refused.code == 2, refused.out
    assert "403" in refused.out
    assert not paths.trials(other).exists()
    assert "fail  MLflow: " in call("doctor").out
    for words in (["verify", "smoke"], ["results", "smoke"], ["report", "smoke", f"--to={tmp_path}"]):
        ended = call(*words)
        assert ended.code == 0, ended.out
    assert "not logged in MLflow, which may only be read here" in ended.out
    assert (tmp_path / "page.html").exists()
    record("MLflow lets one only read: refused before training; reports, results and verify work", kills="")


def stop(server: Server, number: int) -> None:
    from ..support.harness import descendants, kill

    for pid in [server.server.pid, *descendants(server.server.pid)]:
        kill(pid, number)


def test_a_server_keeps_what_is_forgotten_as_deleted_and_takes_it_anew(
    server: Server, nursery: Nursery, fresh: Fresh, twin: Twin, record: Record
) -> None:
    storage, at = fresh(), {"MLFLOW_TRACKING_URI": server.address, "MLFLOW_EXPERIMENT_NAME": "forgotten"}
    assert nursery.run(*arguments(storage), faults=["no_table"], **at).code == 0
    with mlflow_client(server.address) as client:
        (experiment,) = [each for each in client.search_experiments() if each.name == "forgotten"]
        runs = client.search_runs([experiment.experiment_id])
        assert len(runs) == 3
        said = nursery.run("forget", "smoke", f"--storage={storage}", "--yes", **at)
        assert said.code == 0, said.out
        assert "a server of MLflow keeps runs as deleted, without artifacts, until `mlflow gc` is run on its host" in said.out
        assert client.search_runs([experiment.experiment_id]) == []
        assert [client.list_artifacts(run.info.run_id) for run in runs] == [[]] * 3
    assert nursery.run(*arguments(storage), faults=["no_table"], **at).code == 0
    verified = nursery.run("verify", "smoke", f"--storage={storage}", **at)
    assert verified.code == 0, verified.out
    record("forget with a server of MLflow, then the sweep is run again: new runs, without the old ones", kills="")
