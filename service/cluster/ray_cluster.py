"""Ray, and nothing but Ray: connects to a cluster or starts one here, and trains stacks with Ray Tune, one ray_trial per stack.

Tune schedules and places. It is never asked to restore: its snapshots lag and can be wrong, and the manifest decides what runs.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import secrets
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from service.cluster import address, embedded

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # no csv, json and tensorboard files beside ours
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_MAX_PENDING_TRIALS_PG": "1000",  # else fixed at the start by the nodes there are then; _Source asks for no more than fit
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",  # nothing is ever read back from Tune's snapshots
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # service/terminal/signals.py
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_COLOR_PREFIX": "0",
}
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
EMBEDDED = {
    "RAY_worker_niceness": "0",  # Ray's 15 would let anything else on the machine starve the training
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # whatever its name: the one switch that keeps all of Ray's servers on loopback
}
# Ray reads some of these when it is imported.
for _name, _value in (ENVIRONMENT if address.given() else ENVIRONMENT | EMBEDDED | ONE_THREAD).items():
    os.environ.setdefault(_name, _value)

import ray  # noqa: E402
from ray import tune  # noqa: E402
from ray._private.node import Node  # noqa: E402
from ray._private.ray_constants import PROCESS_TYPE_GCS_SERVER, PROCESS_TYPE_RAYLET  # noqa: E402
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]  # noqa: E402
from ray.experimental import internal_kv  # noqa: E402
from ray.tune.execution import class_cache  # noqa: E402

from service.cluster import workers  # noqa: E402
from service.cluster.ended_trials import Forgetful, Silent  # noqa: E402
from service.cluster.places import IdleWorkers, Sharing  # noqa: E402
from service.planning import devices  # noqa: E402
from service.planning.options import TrainingOptions  # noqa: E402
from service.planning.plan import STACK_SIZE  # noqa: E402
from service.planning.update_cost import Kind  # noqa: E402
from service.scheduling.shares import CORE, Share  # noqa: E402
from service.storage import paths  # noqa: E402
from service.terminal import signals  # noqa: E402
from service.terminal.redaction import redact, secret_name  # noqa: E402
from service.terminal.waiting import waiting  # noqa: E402
from trainables import project  # noqa: E402
from trainables.environments import environment_variables  # noqa: E402
from trainables.errors import UserError  # noqa: E402
from trainables.trial import Stack, Trial  # noqa: E402
from trainables.tune_trainable import NAMESPACE, StackTrainable, leaves, yields  # noqa: E402

# Tune would hand these to each actor, in a runtime environment that Ray writes to a log. Workers take them from where they run.
class_cache.ENV_VARS_TO_PROPAGATE = {
    name for name in class_cache.ENV_VARS_TO_PROPAGATE if not (secret_name(name) or name.startswith("AWS_"))
}

# Ray keeps a driver's command line with its job, for its page and its files.
_command_line = ray._private.utils.get_entrypoint_name
ray._private.utils.get_entrypoint_name = lambda: redact(_command_line())

TOKEN = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
QUIET = {"log_to_driver": False, "logging_level": logging.ERROR}
STARTS = 3
MODEL = "accelerator_type:"  # before a GPU's model, in the names of Ray's resources
AHEAD = 1  # stacks that wait in Ray for a free worker, so that a warm one gets its next stack at once
WATCH = 0.5  # seconds between two looks whether an embedded Ray is alive
RECOUNT = 5.0  # seconds between two looks at how large the cluster is
COMMIT_AT_LIMIT = 60.0  # seconds that workers have to commit what they have done when the run has reached a limit
COMMIT = 1.2  # seconds after a signal that workers have to commit what they have done; service/terminal/signals.py waits for no more
LOOK = 0.02  # seconds between two looks whether they have


class Conductor(Protocol):
    """Gives the cluster its work, and receives the events of it."""

    def next(self, kind: str = ...) -> Stack | None: ...
    def busy(self) -> bool: ...
    def started(self, stack: Stack) -> None: ...
    def reported(self, stack: Stack, news: dict[str, Any]) -> None: ...
    def ended(self, stack: Stack, news: dict[str, Any]) -> None: ...
    def idle(self) -> None: ...
    def silent(self) -> list[Stack]: ...
    def stalled(self) -> list[Stack]: ...
    def spent(self) -> bool: ...
    def end(self) -> None: ...
    def left(self, stack: Stack, update: int, kept: int) -> None: ...
    def wanted(self, kind: str) -> int: ...
    def interruptible(self, stacks: Sequence[Stack]) -> list[Stack]: ...
    def yields(self, stack: Stack) -> None: ...
    def shared(self, share: Share) -> None: ...
    def not_shared(self, why: str) -> None: ...


class Cluster:
    """A connection to Ray; made by `connect`."""

    def __init__(self, options: TrainingOptions) -> None:
        """`options.device` is what to train on: `cpu`, `cuda` or `all`."""
        self.options, self.device, self._gpu = options, options.device, options.gpu_fraction
        self._counted, self._slots, self._by_kind = 0.0, 1, dict[str, int]()
        self._looked, self._devices = -RECOUNT, dict[str, float]()
        self._dead = False

    def kinds(self) -> dict[str, Kind]:
        """The kinds of places of a run on every device: cores, and GPUs by the model that Ray knows them by."""
        gpus = (Kind(name=name, device="cuda", most=STACK_SIZE["cuda"], share=self._gpu) for name in _gpus_by_model())
        return {kind.name: kind for kind in (Kind(name="cpu", device="cpu", most=STACK_SIZE["cpu"]), *gpus)}

    def slots_by_kind(self) -> Mapping[str, int]:
        """How many stacks fit on the places of each kind now; one on a GPU needs a core, too."""
        if time.monotonic() - self._counted > RECOUNT or not self._counted:
            gpus = {name: int(count) * devices.stacks_per_gpu(self._gpu) for name, count in _gpus_by_model().items()}
            cores = int(ray.cluster_resources().get("CPU", 0)) - sum(gpus.values())
            self._by_kind, self._counted = {"cpu": max(0, cores), **gpus}, time.monotonic()
        return self._by_kind

    def fit_by_kind(self, kinds: Iterable[str]) -> Callable[[str, Trial], int]:
        """How many trials like one go into a stack's share of a GPU, by kind; asked of a GPU of each that is free now."""
        from trainables.training.memory import free_bytes, members_that_fit  # imports torch

        asked = {kind: ray.remote(num_gpus=self._gpu, resources=_of_model(kind))(free_bytes).remote() for kind in kinds if kind != "cpu"}
        free = {kind: ray.get(answer) for kind, answer in asked.items()}
        return lambda kind, trial: members_that_fit(trial, int(free[kind] * self._gpu))

    def devices(self) -> Mapping[str, float]:
        """How many cores, and GPUs of each model, there are now."""
        if time.monotonic() - self._looked > RECOUNT:
            self._devices, self._looked = {CORE: ray.cluster_resources().get("CPU", 0.0), **_gpus_by_model()}, time.monotonic()
        return self._devices

    @property
    def slots(self) -> int:
        """How many stacks fit on the cluster as it is now; nodes come and go."""
        if time.monotonic() - self._counted > RECOUNT or not self._counted:
            total = ray.cluster_resources()
            on_gpus = int(total.get("GPU", 0)) * devices.stacks_per_gpu(self._gpu)
            self._slots = max(1, on_gpus if self.device == "cuda" else int(total.get("CPU", 1)))
            self._counted = time.monotonic()
        return self._slots

    def fit(self) -> Callable[[Trial], int] | None:
        """How many trials like one go into a stack's share of a GPU, asked of a GPU that is free now; None on CPUs."""
        if self.device != "cuda":
            return None
        from trainables.training.memory import free_bytes, members_that_fit  # imports torch

        free = ray.get(ray.remote(num_gpus=self._gpu)(free_bytes).remote())
        return lambda trial: members_that_fit(trial, int(free * self._gpu))

    @contextlib.contextmanager
    def watched(self, leave: Callable[[str, int], None]) -> Iterator[None]:
        """Inside, `leave(why, exit code)` is called once if an embedded Ray dies: Ray itself would notice after up to a minute."""
        over, node = threading.Event(), getattr(ray._private.worker, "_global_node", None)
        kinds = {PROCESS_TYPE_GCS_SERVER: "head", PROCESS_TYPE_RAYLET: "raylet"}
        known = {
            info.process: kinds[kind] for kind, infos in (node.all_processes if node else {}).items() for info in infos if kind in kinds
        }

        def watch() -> None:
            while known and not over.wait(WATCH):
                for process, kind in known.items():
                    if (code := process.poll()) is not None:
                        self._dead = True
                        return leave(f"Ray's {kind} has died{f' by signal {-code}' if code < 0 else ''}", 1)
            return None

        with signals.blocked():
            threading.Thread(target=watch, name="watches Ray", daemon=True).start()
        try:
            yield
        finally:
            over.set()

    def train(
        self, name: str, conductor: Conductor, storage: Path, listen: Callable[..., Any], work: Callable[..., Any] | None = None
    ) -> None:
        """Train what the conductor hands out until it has no more.

        `listen` and `work`: see trainables/tune_trainable.py. What the conductor raises ends the training and is raised here. After a
        signal the workers commit what they have done.
        """
        run = f"{name}-{uuid4().hex}"
        mixed = self.device == "all"
        source = _Source(
            conductor,
            lambda: self.options.max_concurrent or (sum(self.slots_by_kind().values()) if mixed else self.slots + AHEAD),
            self.slots_by_kind if mixed else None,
        )
        if address.given():
            source.sharing = Sharing(run, name, self.options, conductor, self.devices)
            source.here = self._kinds_here
        scheduler = Forgetful()
        trainable = tune.with_parameters(
            StackTrainable, storage=str(storage), listen=listen, options=self.options, work=work, run=run, shared=bool(source.sharing)
        )
        tuner = tune.Tuner(
            tune.with_resources(
                trainable, self._request if mixed else {"cpu": 1, "gpu": self._gpu} if self.device == "cuda" else {"cpu": 1}
            ),
            tune_config=tune.TuneConfig(
                num_samples=-1,
                search_alg=source,
                scheduler=scheduler,
                # A warm worker saves seconds per stack; on a GPU the next stack could find the last one's memory still held.
                reuse_actors=self.device == "cpu",
                trial_name_creator=lambda ray_trial: f"stack-{ray_trial.trial_id}",
                trial_dirname_creator=lambda ray_trial: f"stack-{ray_trial.trial_id}",
            ),
            run_config=tune.RunConfig(
                name=f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}",
                storage_path=str(paths.ray_results(storage)),
                callbacks=[_News(source, partial(_let_commit, run, source, COMMIT_AT_LIMIT), partial(yields, run), scheduler), Silent()],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                failure_config=tune.FailureConfig(max_failures=0),  # tried again by the conductor, which knows why it failed
                verbose=0,
            ),
        )
        try:
            with source.shares():
                tuner.fit()
        except KeyboardInterrupt:
            with contextlib.suppress(Exception):  # Ray may have died: then the checkpoints are what there is
                if not self._dead:
                    _let_commit(run, source, COMMIT)
            raise
        except Exception:
            # What the conductor raised is raised below as it was; Tune wraps some of it in errors of its own.
            if source.trouble is None:
                raise
        if source.trouble is not None:
            raise source.trouble

    def _kinds_here(self) -> list[str]:
        """The kinds of place that this run uses."""
        return [kind for kind in self.devices() if self.device == "all" or (kind == CORE) == (self.device == "cpu")]

    def _request(self, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """What a stack needs of Ray, by the kind of its place."""
        kind = config["kind"]
        gpu = {} if kind == "cpu" else {"GPU": self._gpu, **_of_model(kind)}
        return tune.PlacementGroupFactory([{"CPU": 1.0, **gpu}])


def _gpus_by_model() -> dict[str, float]:
    """GPUs of the nodes that are there; `gpu` where Ray does not know the model."""
    found: dict[str, float] = {}
    for node in ray.nodes():
        if node["Alive"] and (count := node["Resources"].get("GPU", 0)):
            model = next((name.removeprefix(MODEL) for name in node["Resources"] if name.startswith(MODEL)), "gpu")
            found[model] = found.get(model, 0.0) + count
    return found


def _of_model(kind: str) -> dict[str, float]:
    """The resource that only nodes with GPUs of that model have."""
    return {} if kind == "gpu" else {MODEL + kind: 0.001}


def _let_commit(run: str, source: _Source, patience: float) -> None:
    """Ask the workers to leave, and wait at most so many seconds until all have committed what they have. A second signal ends it."""
    until, waited_for = time.monotonic() + patience, {leaves(run, source.stacks[id]): source.stacks[id] for id in source.running}
    internal_kv._internal_kv_put(leaves(run), b"", namespace=NAMESPACE)
    while waited_for and time.monotonic() < until and not signals.hurried():
        for key in waited_for.keys() & internal_kv._internal_kv_list(leaves(run) + b"/", namespace=NAMESPACE):
            source.conductor.left(waited_for.pop(key), **json.loads(internal_kv._internal_kv_get(key, namespace=NAMESPACE)))
        time.sleep(LOOK)
    internal_kv._internal_kv_del(leaves(run), del_by_prefix=True, namespace=NAMESPACE)


@contextlib.contextmanager
def connect(options: TrainingOptions) -> Iterator[Cluster]:
    """The running cluster that $RAY_ADDRESS names (`ray job submit` sets it), else an embedded one on loopback.

    Raises UserError where `cuda` is asked for and the cluster has none."""
    with _ray():
        for name in ("ray", "ray.tune", "ray.train"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # failures are reported by their class, not as tracebacks
        yield Cluster(replace(options, device=devices.choose(options.device, ray.cluster_resources().get("GPU", 0))))


@contextlib.contextmanager
def _ray() -> Iterator[None]:
    """Ray inside: connected to a cluster, or embedded. However an embedded one ends, no process and no file of it is left.

    Workers of a cluster end with the connection, that is with this process, and the end of the lease has fenced them off before.
    """
    if where := address.given():
        with waiting("starting Ray"), signals.shielded():
            in_job = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ  # its workers have a copy of the project as their working folder
            told = environment_variables() | project.environment_variables(copied=in_job)
            ray.init(runtime_env={"env_vars": ONE_THREAD | told}, job_config=workers.OursFirst(), **QUIET)
        host, port = address.place(where)
        if host and not where.startswith("ray://") and not address.asks_for_token(host, port):
            print(f"warning: the cluster at {redact(where)} {address.NO_TOKEN} (docs/cluster.md)", file=sys.stderr, flush=True)
        yield
        _shut_down()
        return
    embedded.adopt()
    with embedded.private_folder() as folder, signals.ending(partial(_kill, folder)):
        try:
            with waiting("starting Ray"), signals.shielded():
                _start(folder)
            try:
                yield
            except Exception:
                _shut_down()
                raise
            _shut_down()
        except KeyboardInterrupt:
            _kill(folder)
            raise


def _shut_down() -> None:
    with waiting("stopping Ray"), signals.shielded(), _no_collection():
        if node := ray._private.worker._global_node:
            node.kill_all_processes = partial(_end_processes, node.kill_all_processes)
        ray.shutdown()


def _end_processes(end: Callable[..., Any], *how: Any, **named: Any) -> Any:
    """Ray's way to end its processes, which takes seconds; its C++ has given the signals their default actions by then."""
    signals.retake()
    return end(*how, **named)


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """No garbage is collected inside: the shipper's thread could collect Ray's references, and Ray ends a process that releases one
    between the end of its worker and the end of `shutdown`."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


def _kill(folder: Path) -> None:
    """End an embedded Ray and its workers now: ray.shutdown asks each politely in turn, and there are three seconds."""
    ray._private.worker.global_worker.threads_stopped.set()  # else Ray would report that it is gone
    embedded.kill_all()
    embedded.remove(folder.parent)


@contextlib.contextmanager
def _token() -> Iterator[None]:
    """Ray starts inside with a new token: its processes inherit it, and nobody else who finds its ports can give it work."""
    before = {name: os.environ.pop(name) for name in TOKEN if name in os.environ}
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    Config.initialize("")  # Ray has read the mode when it was imported
    AuthenticationTokenLoader.instance().reset_cache()
    try:
        yield
    finally:
        for name in TOKEN:
            os.environ.pop(name, None)
        os.environ |= before


def _start(folder: Path) -> None:
    """Start an embedded Ray; a busy machine may not manage within Ray's own 30 seconds, so it is tried again."""
    for tries_left in reversed(range(STARTS)):
        try:
            with _token():
                # Workers inherit an embedded Ray's environment; a runtime_env would have each of them started twice.
                cpus = len(os.sched_getaffinity(0))
                where = {"num_cpus": cpus, "include_dashboard": False, "_temp_dir": str(folder)}
                ray.init("local", job_config=workers.OursFirst(), **where, **QUIET)
            return
        except Exception as error:  # Ray raises nothing more special
            if "timed out during startup" not in str(error):
                raise
            for frame, _ in traceback.walk_tb(error.__traceback__):
                if isinstance(node := frame.f_locals.get("self"), Node):
                    node.kill_all_processes(check_alive=False)
            if not tries_left:
                raise UserError(f"Ray did not start in {STARTS} tries of 30 s; this machine is too busy") from error


class _Source(tune.search.Searcher):  # type: ignore[misc]
    """Gives Tune the next ray_trial; keeps which ray_trial trains which stack."""

    def __init__(
        self, conductor: Conductor, max_concurrent: Callable[[], int], slots: Callable[[], Mapping[str, int]] | None = None
    ) -> None:
        """`slots`: places by kind, where there are several."""
        super().__init__()
        self._slots = slots
        self.kinds: dict[str, str] = {}  # by ray_trial id, where there are several
        self.conductor, self._max_concurrent = conductor, max_concurrent
        self.stacks: dict[str, Stack] = {}  # by ray_trial id, until it has ended
        self.running: dict[str, Any] = {}  # the ray_trials of those of them that have a worker, by id
        self.trouble: Exception | None = None
        self.sharing: Sharing | None = None  # on a cluster
        self.here: Callable[[], list[str]] = list  # the kinds of place that the run uses

    @contextlib.contextmanager
    def shares(self) -> Iterator[None]:
        """Inside, the run keeps to its share of a cluster."""
        if self.sharing is None:
            yield
            return
        self.sharing.begin(self.here())
        IdleWorkers.to_be_ended = lambda: not self._room() and len(self.stacks) == len(self.running)
        try:
            yield
        finally:
            IdleWorkers.to_be_ended = lambda: False
            self.sharing.end()

    def _room(self, kind: str = "") -> bool:
        """Whether the share of a cluster has a place left, of one kind or any."""
        if self.sharing is None:
            return True
        used = sum(kind == other for other in self.kinds.values()) if kind else len(self.stacks)
        return used < self.sharing.most([kind] if kind else self.here())

    def suggest(self, trial_id: str) -> Any:
        if len(self.stacks) >= self._max_concurrent() or not self._room():
            return None if self.stacks or self.tell(self.conductor.busy) else self.FINISHED
        kind, stack = self._next()
        if stack is None:
            return None if self.tell(self.conductor.busy) else self.FINISHED
        self.stacks[trial_id] = stack
        where = {}
        if kind:
            self.kinds[trial_id] = kind
            where = {"kind": kind, "device": "cpu" if kind == "cpu" else "cuda"}
        return {"stack": json.dumps([trial.to_json() for trial in stack.trials]), **where}

    def _next(self) -> tuple[str, Stack | None]:
        """The next stack, and the kind of its place where there are several: a GPU, which is worth more, is asked for first."""
        if self._slots is None:
            return "", self.tell(self.conductor.next)
        taken = Counter(self.kinds.values())
        for kind, count in sorted(self._slots().items(), key=lambda item: item[0] == "cpu"):
            if taken[kind] < count and self._room(kind) and (stack := self.tell(self.conductor.next, kind)) is not None:
                return kind, stack
        return "", None

    def nowhere(self) -> set[str]:
        """The ray_trials that wait for a kind of place of which none is there any more."""
        there = self._slots() if self._slots else {}
        return {id for id, kind in self.kinds.items() if id not in self.running and not there.get(kind)}

    def tell(self, method: Callable[..., Any], *arguments: Any) -> Any:
        """Call the conductor, and keep what it raises: Tune wraps some exceptions and swallows others."""
        try:
            return method(*arguments)
        except Exception as error:
            self.trouble = self.trouble or error
            raise

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """_News gets this event with its reason."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing is restored from it."""

    restore = save

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its parts; nothing of this one is needed again."""
        return {}


class _News(tune.Callback):  # type: ignore[misc]
    """Tune's events in the conductor's words: stacks, not ray_trials."""

    def __init__(self, source: _Source, let_commit: Callable[[], None], yields: Callable[[Stack], bytes], scheduler: Forgetful) -> None:
        self._source, self._let_commit, self._yields, self._calls = source, let_commit, yields, workers.Calls()
        self._scheduler, self._withdrawn = scheduler, set[str]()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._source.running[trial.trial_id] = trial
        self._tell("started", trial)

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any) -> None:
        self._tell("reported", trial, result)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        gone = {"failure": {"reason": "withdrawn", "message": "its kind of place is not there any more"}}
        self._end(trial, gone if trial.trial_id in self._withdrawn else trial.last_result)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The worker or its node died; an error of the training itself comes as a result."""
        self._end(trial, {"failure": death(_error_text(trial))})

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self._scheduler.forget(trials)
        self._source.tell(self._source.conductor.idle)
        self._calls.call(self._training(self._source.tell(self._source.conductor.silent)))
        for ray_trial in self._training(self._source.tell(self._source.conductor.stalled)).values():
            workers.end(ray_trial)
        self._withdraw(self._source.nowhere(), trials)
        self._keep_to_share(trials)
        if self._source.tell(self._source.conductor.spent):
            self._let_commit()
            self._source.tell(self._source.conductor.end)

    def _keep_to_share(self, trials: list[Any]) -> None:
        """Report to the cluster's other sweeps, and ask stacks to leave whose places are theirs now."""
        source = self._source
        if source.sharing is None:
            return
        leaving = source.sharing.step(source.stacks, source.running, source.kinds, source.here())
        for id in leaving:
            source.tell(source.conductor.yields, source.stacks[id])
            if id in source.running:
                internal_kv._internal_kv_put(self._yields(source.stacks[id]), b"", namespace=NAMESPACE)
        self._withdraw({*leaving} - source.running.keys(), trials)

    def _withdraw(self, ids: set[str], trials: list[Any]) -> None:
        """Take ray_trials that wait for a worker back from Ray."""
        self._withdrawn |= ids
        for ray_trial in [each for each in trials if each.trial_id in ids] if ids else ():
            self._scheduler.withdraw(ray_trial)

    def _training(self, stacks: list[Stack]) -> dict[str, Any]:
        """The ray_trials that train these stacks, by id."""
        return {id: running for id, running in self._source.running.items() if any(self._source.stacks[id] is stack for stack in stacks)}

    def _end(self, trial: Any, news: Any) -> None:
        self._tell("ended", trial, news)
        if self._source.sharing is not None and trial.trial_id in self._source.sharing.leaving:
            internal_kv._internal_kv_del(self._yields(self._source.stacks[trial.trial_id]), namespace=NAMESPACE)
        self._source.running.pop(trial.trial_id, None)
        self._source.stacks.pop(trial.trial_id, None)
        self._source.kinds.pop(trial.trial_id, None)

    def _tell(self, event: str, trial: Any, *news: Any) -> None:
        stack = self._source.stacks.get(trial.trial_id)
        if stack is not None:
            self._source.tell(getattr(self._source.conductor, event), stack, *news)


def death(text: str) -> dict[str, str]:
    """The class of a failure, from Ray's message about a dead worker."""
    why = (
        "out_of_memory" if "running low on memory" in text else "error" if "error raised in its creation task" in text else "infrastructure"
    )
    last = (text.strip().splitlines() or ["no message"])[-1].strip()
    return {"reason": why, "message": f"the worker died: {last[:300]}"}


def _error_text(trial: Any) -> str:
    """What Tune has just written about a ray_trial's end. Trial.get_error would look where it is copied later."""
    try:
        return Path(trial.error_file).read_text()
    except (OSError, TypeError):
        return ""
