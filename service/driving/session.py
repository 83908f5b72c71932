"""Runs a sweep: plan, check, train, ship, show. What is done is not done again, so that to run is also to resume."""

from __future__ import annotations

import contextlib
import math
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from service.cluster import address, own_job
from service.driving.driver import Driver
from service.driving.limits import WARNED, LimitReachedError
from service.driving.news import News
from service.driving.news import address as address_of_news
from service.driving.pool import Pool
from service.driving.workers.listener import Fenced
from service.ledger.claims import Permit
from service.ledger.errors import GoneError
from service.ledger.heartbeat import Heartbeat
from service.ledger.ledger import LIMIT, Ledger
from service.ledger.manifest import Manifest
from service.planning import devices, estimate
from service.planning.data_here import DataHere, other_code, refuse
from service.planning.description import describe
from service.planning.gpu_stacks import GpuStacks
from service.planning.plan import Plan, as_trained, plan_again
from service.planning.provenance import open_tables, origins, revision
from service.planning.submitter import submitter
from service.results.quick_table import show
from service.results.summary import Summary
from service.search.database import open_studies
from service.search.findings import find as find_tries
from service.search.findings import show as show_search
from service.storage import paths, shared_files, trial_objects
from service.storage.commands import command
from service.storage.patience import patient
from service.terminal.display import Display
from service.terminal.redaction import redact
from service.terminal.signals import INTERRUPTED, Leaving, blocked, count, ending, obey
from service.terminal.waiting import waiting
from service.tracking.connection import DeletedError, TrackingError
from service.tracking.experiment import check_address
from service.tracking.runs import Tracking
from service.tracking.shipping.shipper import Shipper
from service.tracking.shipping.thread import ShipperThread
from trainables.environments import name_modules
from trainables.errors import SupersededError, UserError, one_line
from trainables.output import printable
from trainables.trial import Trial

PATIENCE = 60.0  # seconds that the end of a run waits for MLflow
ASKING = 10.0  # seconds that training waits for MLflow's first answer, beside Ray's start
HURRY = 0.5  # the same after a signal
NEWS_PATIENCE = 30.0  # seconds that the end of a run waits until its news is told


def run(plan: Plan, storage: Path, at_limit: Callable[[str], object] | None = None) -> int:
    """Train what the plan has to do; returns the exit code: 0 all done and tracked, 1 some trial is not, 130 interrupted or at a limit.

    `at_limit` is told the limit that has ended the run. Raises UserError for bad input, before anything is started or written, and where
    another driver takes over. A run whose storage is removed ends with 1.
    """
    name, settings = plan.name, plan.settings
    name_modules(settings.options.imports)
    if plan.todo or plan.left:
        devices.refuse(settings.options.device)
    address.check_usable()
    check_address(storage)
    news = News(address_of_news(settings.notify), name)
    studies = open_studies(plan.sweep, storage, settings.study_storage)
    origin = origins(plan.needs)
    if plan.absent or plan.not_opened:
        open_tables(plan.not_opened)
        plan = plan_again(plan, storage)
        origin |= origins(id for id in plan.needs if id not in origin)
    refuse_other_origin(plan, storage)
    print(printable(describe(replace(plan, absent=()))), flush=True)
    obey()
    session = Session(plan, storage, studies, news)
    try:
        with session:
            session.driver.prepare()
            if session.driver.has_work():
                listen = partial(Fenced, permit=session.permit, origin=origin, checkpoint_every=settings.options.checkpoint_every)
                try:
                    session.train(listen)
                except LimitReachedError as error:
                    if at_limit:
                        at_limit(error.limit)
                    return session.limited(error.limit)
            tracked = session.show()
    except (Exception, KeyboardInterrupt) as error:
        with session.failing(error):
            if (code := _ended(error, session, name, storage)) is None:
                raise
            return code
    code = session.driver.exit_code() or (0 if tracked else 1)
    session.tell("failed" if code else "done", "finished, but some trials or MLflow data are missing" if code else "done")
    news.finish(NEWS_PATIENCE)
    return code


def _ended(error: BaseException, session: Session, name: str, storage: Path) -> int | None:
    """The exit code of a run that `error` has ended, after one line; None where the error itself has to be shown.

    Raises UserError where another driver has taken over."""
    if gone := session.gone(ask=not isinstance(error, KeyboardInterrupt)):  # whatever it has led to
        _remove_leftovers(storage)
        print(f"this driver of sweep {name!r} has left: {gone}", flush=True)
        return 1
    if isinstance(error, KeyboardInterrupt):
        why, code = session.leaving.why, session.leaving.code
        kept = session.kept()
        said = (f"interrupted ({why})" if code == INTERRUPTED else why) + (f"; {kept}" if kept else "")
        print(f"{said}; `{session.command}` continues from the checkpoints", flush=True)
        own_job.end(session.asked_to_stop)
        return code
    if isinstance(error, SupersededError):
        who = command("status", name, storage=storage)
        raise UserError(f"this driver of sweep {name!r} has lost its lease and left: {error}; `{who}` shows who runs it") from None
    return None


def _remove_leftovers(storage: Path) -> None:
    """Remove what Ray Tune and MLflow, in the middle of a call, have made again of a storage that was removed, unless there is more."""
    with contextlib.suppress(OSError):
        if (made := {*storage.iterdir()}) and made <= {paths.ray_results(storage), paths.mlflow_artifacts(storage)}:
            shutil.rmtree(storage)


def refuse_other_origin(plan: Plan, storage: Path) -> None:
    """Raise UserError, in one line, where trials of the plan have seen other data than what is here; say it where they are of other code.

    A search learns from all its trials, so it cannot continue with other data. With `--same-code` other code is refused, too."""
    apart = "" if plan.sweep.search else "; or `--new-data` trains them on what is here, apart"
    refuse(f"sweep {plan.name!r}", plan.other_data, f"put that data back{apart}")
    if not (plan.todo or plan.left):
        return
    if code := other_code(plan.trials, plan.data or DataHere(storage, Ledger()), revision()):
        if plan.settings.same_code:
            refuse(f"sweep {plan.name!r}", [code], "check out that code, or leave out --same-code")
        print(f"note: {code}", file=sys.stderr)


class Session:
    """One driver's time with a sweep, from the lease to its release. Inside `with`, signals are handled and the lease is kept alive."""

    def __init__(self, plan: Plan, storage: Path, studies: Any = None, news: News | None = None) -> None:
        """`studies` is an open database for those of an adaptive sweep; without one they are in a file. `news` is told what happens."""
        self._plan, self._storage, self._news = plan, storage, news or News("", plan.name)
        by = submitter(plan.settings.command(plan.name, storage))
        self._manifest = Manifest(storage, plan.name, plan.settings.to_json(), by, plan.followed)
        try:
            self._tracking = Tracking(storage)
            self.permit = Permit(storage, plan.name, self._manifest.lease.epoch, self._manifest.lease.token)
            self._adaptive = self._search(studies)
            refresh = partial(trial_objects.refresh, storage)
            self.driver = Driver(plan, self._manifest, storage, Display(), refresh=refresh, adaptive=self._adaptive, tell=self.tell)
        except BaseException:
            self._manifest.close()
            raise
        self.leaving = Leaving(self._last_words)
        self._speaking = threading.Lock()

    def __enter__(self) -> Session:
        with contextlib.ExitStack() as inside:
            inside.callback(self._manifest.close)
            ledger = self._manifest.ledger
            shipper = Shipper(
                self._storage, self._plan.name, ledger, self._tracking, self._check_lease, summary=Summary(ledger, self._tracking)
            )
            self._shipping = ShipperThread(shipper)
            inside.enter_context(self.leaving.installed())
            inside.enter_context(ending(partial(own_job.end, self.asked_to_stop)))
            inside.enter_context(patient(self._check_lease))
            with blocked():
                beats = Heartbeat(self._manifest.lease, paths.stop_request(self._storage, self._plan.name), self.leaving.now)
                inside.enter_context(beats)
            self._inside = inside.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self._last_words()
        finally:
            if kind is not None and self._shipping.begun:  # importing MLflow now would take longer than there is
                self._shipping.finish(HURRY, unfinished=kind is KeyboardInterrupt and self._manifest.lease.ended)
            self._inside.close()

    @property
    def command(self) -> str:
        """What continues this run."""
        return self._plan.settings.command(self._plan.name, self._storage)

    def asked_to_stop(self) -> bool:
        """Whether `stop` has been called for this run, on whatever host."""
        return shared_files.exists(paths.stop_request(self._storage, self._plan.name))

    def gone(self, *, ask: bool) -> str:
        """How the storage is gone, empty if it is there as far as is known. `ask` looks again, which may take a while."""
        with contextlib.suppress(OSError, UserError, GoneError):
            if ask:
                self._manifest.lease.check_there()
        return self._manifest.lease.gone

    def train(self, listen: Callable[..., Any], work: Callable[..., Any] | None = None) -> None:
        """Train until the driver has nothing more to do. On the way out the lease ends before the workers do, whatever ends it.

        `listen` and `work`: see trainables/tune_trainable.py.
        """
        from service.cluster.ray_cluster import connect  # imports ray

        options, begun = self._plan.settings.options, time.monotonic()
        with blocked():
            self._shipping.start()  # MLflow is imported and asked while Ray starts
        with connect(options, search=bool(self._plan.sweep.search)) as cluster:
            try:
                with cluster.watched(self.leaving.now):
                    self._shipping.check(ASKING)
                    cluster.divide_by(GpuStacks(options, self._plan.stack_timings), self._plan.todo)
                    if cluster.device == "all":
                        pool = Pool(cluster.kinds(), cluster.slots_by_kind, options, self._plan.rates, cluster.gpu_stacks, cluster.devices)
                        self.driver.begin_on_all(pool)
                    else:
                        self.driver.begin(cluster.device, options.max_concurrent or cluster.slots, cluster.fit(), cluster.place())
                    cluster.train(self._plan.name, self.driver, self._storage, listen, work)
            except BaseException:
                self._last_words()
                raise
            finally:
                if (first := self.driver.first_update) < math.inf and self.driver.device != "all":
                    estimate.remember(self.driver.device, first - begun, self.driver.measured, estimate.crowding())

    def show(self) -> bool:
        """Ship the rest, and show the results or why there are none; returns whether MLflow holds everything.

        Raises SupersededError where another driver has taken over, GoneError where the storage is gone."""
        if not self._ship_rest():
            return False
        for line in self._shipping.left_alone:
            print(line)
        name = self._plan.name
        try:
            if self._adaptive:
                found = find_tries(name, self._plan.sweep, self._manifest.ledger, self._storage, self._plan.settings.overrides)
                show_search(name, found, self._tracking, self._storage)
            elif trials := self._own_trials():
                show(name, trials, self._tracking, self._storage)
        except DeletedError:  # of the sweep's run, which `left_alone` has named
            pass
        except TrackingError as error:  # MLflow went away meanwhile; what was trained is done all the same
            words = [f"--set={setting}" for setting in self._plan.settings.overrides]
            print(f"{error}; nothing is lost, `{command('results', name, *words, storage=self._storage)}` shows the results")
            return False
        return not self._shipping.left_alone

    def _ship_rest(self) -> bool:
        """Ship what is not in MLflow yet; False, after one line, where it does not take everything."""
        self._check_lease()
        self.driver.last_line()
        with waiting("shipping the rest to MLflow"):
            shipped = self._shipping.finish(PATIENCE, while_it_gets_on=True)
        if not shipped:
            trouble, sync = self._shipping.trouble, command("sync", self._plan.name, storage=self._storage)
            rest = "" if "--restore`" in trouble else f", `{sync}` ships the rest"
            print(f"MLflow did not take everything ({trouble}); nothing is lost{rest}")
        elif not self._shipping.left_alone:
            self.driver.shipped()
        return shipped

    def limited(self, limit: str) -> int:
        """Ship the rest, and say which limit has ended the run and what continues it; returns the exit code, that of an interruption.

        Raises SupersededError and GoneError as `show`."""
        if self._ship_rest() and not self._shipping.left_alone:
            with contextlib.suppress(TrackingError):
                parent = self._tracking.parent_run(self._plan.name)
                self._tracking.set_state(parent, "planned", {"reason": LIMIT, "message": limit})
        kept = self.kept()
        said = f"limit reached ({limit})" + (f"; {kept}" if kept else "")
        said = f"{said}; `{self.command}` continues from the checkpoints"
        print(said, flush=True)
        if limit != WARNED:  # then the job goes back to its queue and on by itself, so nobody has to know
            self.tell("limit", said)
        self._news.finish(NEWS_PATIENCE)
        count()
        own_job.end(lambda: True)
        return INTERRUPTED

    def tell(self, event: str, text: str) -> None:
        """Put an event into the news, with how many trials are in which state."""
        states = Counter(entry.state for entry in list(self._manifest.ledger.entries.values()))
        counts = ", ".join(f"{count} {state}" for state, count in states.items())
        self._news.tell(event, f"{text} ({counts})", trials=dict(states), command=self.command)

    @contextlib.contextmanager
    def failing(self, error: BaseException) -> Iterator[None]:
        """What the error becomes inside is reported as a failure, unless somebody has asked the driver to leave."""
        asked = isinstance(error, KeyboardInterrupt) and self.leaving.code == INTERRUPTED
        try:
            yield
        finally:
            if not asked:
                why = self.leaving.why if isinstance(error, KeyboardInterrupt) else one_line(error)
                self.tell("failed", redact(f"failed: {why}"))
                self._news.finish(HURRY if isinstance(error, KeyboardInterrupt) else NEWS_PATIENCE)

    def _own_trials(self) -> tuple[Trial, ...]:
        """The trials whose results are shown: the plan's, or those that a part has trained itself."""
        if not self._plan.part:
            return self._plan.trials
        theirs = self._manifest.ledger.entries.keys() - self.driver.waits_for.keys()
        return tuple(trial for trial in self._plan.trials if trial.key in theirs)

    def kept(self) -> str:
        """How much of the work of the trials that were given back is kept, in words; empty where none were in training."""
        return self._manifest.ledger.kept(self.permit.epoch)

    def _check_lease(self) -> None:
        """Raise SupersededError where another driver has taken over: what this one would ship is outdated; GoneError without a storage."""
        self._manifest.lease.check_there()
        if self._manifest.lease.held:
            self._manifest.lease.check()

    def _search(self, studies: Any) -> Any:
        """The search of an adaptive sweep; None for a grid."""
        if self._plan.sweep.search is None:
            return None
        from service.search.studies import Adaptive  # imports optuna

        ledger, name, settings = self._manifest.ledger, self._plan.name, self._plan.settings
        again = settings.command(name, self._storage)
        data = DataHere(self._storage, ledger)

        def as_own(trial: Trial) -> Trial:
            return data.as_trained(as_trained(trial, name, ledger, settings.fresh, self._plan.others), apart=True)

        return Adaptive(name, self._plan.sweep, self._storage, ledger, studies, as_own, again)

    def _last_words(self) -> None:
        """Give back what is not done and end the lease, which fences off every worker; only the first call does anything."""
        with self._speaking:
            if not self._manifest.closed:
                try:
                    self.driver.leave()
                finally:
                    self._manifest.close()
