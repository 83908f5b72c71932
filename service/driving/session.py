"""`service run`: plan, check, train, ship, show. Running a sweep is always run-or-resume."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from search_spaces.sweep import Sweep
from service.driving.driver import Driver
from service.driving.live_line import Display
from service.ledger import stop_requests
from service.ledger.claims import Permit
from service.ledger.heartbeat import Heartbeat
from service.ledger.manifest import Manifest
from service.planning import devices
from service.planning.plan import Plan, as_trained, describe, make_plan
from service.results.quick_table import show
from service.search.findings import show as show_search
from service.spool.writer import StackSpool
from service.storage import paths
from service.terminal.signals import INTERRUPTED, Leaving
from service.terminal.waiting import waiting
from service.tracking.connection import TrackingError
from service.tracking.runs import Tracking
from service.tracking.shipper import Shipper, ShipperThread
from trainables.datasets import local
from trainables.datasets.table import load_table
from trainables.datasets.table_evaluator import evaluator_of
from trainables.errors import StoppedError, SupersededError, UserError
from trainables.reports import Checkpointed, Diverged, Finished, Report
from trainables.trial import Stack

CHECKPOINT_EVERY = 5_000  # updates
PATIENCE = 60.0  # seconds that the end of a run waits for MLflow
HURRY = 0.5  # the same where a signal ended it
ANSWER = 10.0  # seconds that a cluster's head may take to answer
COMMITS = (Checkpointed, Diverged, Finished)
PACKAGES = ("trainables", "search_spaces", "service")


def run(
    name: str,
    settings: Sequence[str] = (),
    *,
    storage: Path,
    device: str = "auto",
    size: int | None = None,
    retry: bool = False,
    fresh: bool = False,
    most: int | None = None,
    gpu_fraction: float = 0.5,
    study_storage: str | None = None,
    execution: str = "auto",
    checkpoint_every: int = CHECKPOINT_EVERY,
    **options: Any,
) -> int:
    """Run what is not done of a sweep; returns the exit code: 0 all done, 1 some trial is not, 130 interrupted.

    `retry` and `fresh`: see make_plan; `most`: stacks at a time; `study_storage`: the address of a
    database for an adaptive sweep's studies, in place of a file. `options` go to run_stack. Raises
    UserError for bad input, before anything is started or written, and where another driver takes over.
    """
    plan = make_plan(name, settings, storage=storage, device=device, size=size, retry=retry, fresh=fresh, slots=most, execution=execution)
    if plan.todo or plan.left:
        devices.refuse(device)
    reach_cluster()
    place = studies_of(plan.sweep, storage, study_storage)
    origin = origins(plan.needs)
    print(describe(replace(plan, absent=())), flush=True)
    session = Session(plan, storage, size, place, fresh)
    try:
        with session:
            session.driver.prepare()
            if session.driver.has_work():
                listen = partial(Fenced, permit=session.permit, origin=origin, checkpoint_every=checkpoint_every)
                session.train(
                    listen, device, most=most, gpu_fraction=gpu_fraction, execution=execution, checkpoint_every=checkpoint_every, **options
                )
            session.show()
    except KeyboardInterrupt:
        print(f"interrupted ({session.leaving.why}); `python -m service run {name}` goes on from the checkpoints", flush=True)
        return INTERRUPTED
    except SupersededError as error:
        raise UserError(f"this driver of sweep {name!r} has lost its lease and left: {error}") from None
    return session.driver.exit_code()


class Session:
    """One driver's time with a sweep, from the lease to its release; inside `with`, signals are taken and the heart beats."""

    def __init__(self, plan: Plan, storage: Path, size: int | None, place: Any = None, fresh: bool = False) -> None:
        """`place` is an open database for the studies of an adaptive sweep; without, they are in a file."""
        self._plan, self._storage = plan, storage
        self._journal, self._tracking = Manifest(storage, plan.name), Tracking(storage)
        self.permit = Permit(storage, plan.name, self._journal.lease.epoch)
        self._adaptive = self._studies(place, fresh)
        self.driver = Driver(plan, self._journal, storage, size, self._adaptive)
        self.leaving = Leaving(self._last_words)
        self._speaking = threading.Lock()

    def __enter__(self) -> Session:
        self._shipping = ShipperThread(Shipper(self._storage, self._plan.name, self._journal.ledger, self._tracking, self._own))
        self._inside = contextlib.ExitStack()
        self._inside.enter_context(self.leaving.installed())
        self._inside.enter_context(Heartbeat(self._journal.lease, paths.stop_request(self._storage, self._plan.name), self.leaving.now))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self._last_words()
        finally:
            if kind is not None and self._shipping.begun:  # importing MLflow now would take longer than there is
                self._shipping.finish(HURRY)
            self._inside.close()

    def train(self, listen: Callable[..., Any], device: str, *, most: int | None, gpu_fraction: float, **options: Any) -> None:
        """Train until the driver has nothing more to do. On the way out the lease ends before the workers do, whatever ends it."""
        from service.cluster.ray_cluster import connect  # imports ray

        with connect(device, gpu_fraction) as cluster:
            self.leaving.install()  # Ray has put its own handler there
            self._shipping.start()
            self.driver.begin(cluster.device, most or cluster.slots, cluster.fit())
            try:
                cluster.train(self._plan.name, self.driver, self._storage, listen, most, **options)
            except BaseException:
                self._last_words()
                raise

    def show(self) -> None:
        """Ship the rest, and show the results or why there are none."""
        self.driver.last_line()
        with waiting("MLflow takes the rest"):
            shipped = self._shipping.finish(PATIENCE, while_it_gets_on=True)
        name, trouble = self._plan.name, self._shipping.trouble
        if not shipped:
            print(f"MLflow did not take everything ({trouble}); nothing is lost, `python -m service sync {name}` ships the rest")
            return
        try:
            if self._adaptive:
                show_search(name, self._adaptive.findings(), self._tracking, self._storage)
            else:
                show(name, self._plan.trials, self._tracking, self._storage)
        except TrackingError as error:  # it went away meanwhile: what was trained is done nevertheless
            print(f"{error}; nothing is lost, `python -m service results {name}` shows what was found")

    def _own(self) -> None:
        """Raise SupersededError where another driver has taken over: what this one would tell MLflow is old."""
        if self._journal.lease.held:
            self._journal.lease.check()

    def _studies(self, place: Any, fresh: bool) -> Any:
        """The studies of an adaptive sweep; None for a grid."""
        if self._plan.sweep.search is None:
            return None
        from service.search.studies import Adaptive  # imports optuna

        own, name = self._journal.ledger, self._plan.name
        try:
            return Adaptive(name, self._plan.sweep, self._storage, own, place, lambda trial: as_trained(trial, name, own, fresh))
        except BaseException:
            self._journal.close()
            raise

    def _last_words(self) -> None:
        """Give back what is not done and end the lease, which fences off every worker; once, whoever comes first."""
        with self._speaking:
            if not self._journal.closed:
                try:
                    self.driver.leave()
                finally:
                    self._journal.close()


class Fenced(StackSpool):
    """A stack's spool that first asks whether this attempt may still write, and after a checkpoint whether a member is to stop."""

    def __init__(
        self, stack: Stack, storage: Path, *, permit: Permit, origin: Mapping[str, Mapping[str, str]], checkpoint_every: int
    ) -> None:
        keys = [trial.key for trial in stack.trials]
        self._claim = permit.claim(keys)
        self._asked_to_stop = partial(stop_requests.requested, storage, permit.name, keys)
        super().__init__(stack, self._claim.storage, origin, checkpoint_every)

    def check(self) -> None:
        """Raise SupersededError where another driver or another attempt has taken over."""
        self._claim.check()

    def __call__(self, report: Report) -> None:
        self.check()
        super().__call__(report)
        if isinstance(report, COMMITS):
            self._claim.commit()
        if isinstance(report, Checkpointed) and report.update < self._last and (leaving := self._asked_to_stop()):
            raise StoppedError(", ".join(leaving))

    def close(self) -> None:
        super().close()
        self._claim.close()


def reach_cluster() -> None:
    """Raise UserError where $RAY_ADDRESS names a head that does not answer: Ray would try for two minutes, and then end the process."""
    address = os.environ.get("RAY_ADDRESS", "")
    parts = urlsplit(address if "://" in address else f"ray://{address}")
    if not parts.hostname or address in ("auto", "local"):
        return
    try:
        socket.create_connection((parts.hostname, parts.port or 6379), timeout=ANSWER).close()
    except OSError as error:
        raise UserError(f"RAY_ADDRESS {address} does not answer ({error.strerror or error}); start it, or unset RAY_ADDRESS") from None


def studies_of(sweep: Sweep, storage: Path, url: str | None) -> Any:
    """The database of an adaptive sweep's studies, opened: at `url`, else at $WINNOW_STUDY_STORAGE; None where they are in a file.

    Raises UserError where it cannot be opened, and for what a storage on S3 does not share between hosts."""
    search, url = sweep.search, url or os.environ.get("WINNOW_STUDY_STORAGE")
    if search is None:
        return None
    if bucket := paths.remote(storage)[0]:
        if not url:
            raise UserError(f"on {bucket} an adaptive sweep keeps its studies in a database: --study-storage URL or WINNOW_STUDY_STORAGE")
        if search.stop != "none":
            raise UserError(f"search.stop={search.stop} asks workers by files, which do not come by {bucket}; take search.stop=none")
    if not url:
        return None
    from service.search.studies import open_database  # imports optuna

    return open_database(url)


def origins(ids: Iterable[str]) -> dict[str, dict[str, str]]:
    """Where each dataset's numbers come from, as text for the spool; absent datasets are recorded or downloaded first.

    Raises UserError for a dataset that cannot be had or read, or whose shapes are not those of its environment.
    """
    found: dict[str, dict[str, str]] = {}
    code = revision()
    for id in ids:
        if not local.exists(id) and id.startswith(local.OURS):
            record(id)
        with waiting(f"reading {id}"):  # the first time it is prepared, or downloaded
            table = load_table(id)
        evaluator_of(table, [[0]]).close()
        if table.note:
            print(f"note: {id}: {table.note}", file=sys.stderr)
        score = table.reference.normalize(float(table.episode_returns.mean()))
        found[id] = {"dataset_hash": table.hash, "reference": table.reference.source, "revision": code}
        if table.reference.known:
            found[id]["dataset_score"] = f"{score:.2f}"
    return found


def record(dataset: str) -> None:
    """Record one of our own datasets, with a progress line."""
    from trainables.datasets.collect.record import record as play

    print(f"{dataset} is not here yet: recording it", flush=True)
    display = Display()
    play(dataset, progress=lambda done, total: display.show(f"{done:,} of {total:,} transitions", last=done == total))


def revision() -> str:
    """The code's git commit, `-dirty` with changes that are not committed; $WINNOW_REVISION where that is set.

    Without git, as in the copy that a submitted job runs, `source-` and a hash of the packages' files.
    """
    folder = Path(__file__).parent.parent
    found = os.environ.get("WINNOW_REVISION", "")
    if not found and shutil.which("git"):
        command = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
        found = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False).stdout.strip()
    if not found:
        files = sorted(path for name in PACKAGES for path in (folder.parent / name).rglob("*.py"))
        found = f"source-{hashlib.sha256(b''.join(path.read_bytes() for path in files)).hexdigest()[:12]}"
    return found
