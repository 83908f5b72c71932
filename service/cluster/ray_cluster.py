"""Ray, and nothing but Ray: connect or start one here, and train stacks with Ray Tune, one ray_trial per stack.

Tune schedules, places and retries. It is never asked to restore: its snapshots lag and go wrong, the manifest decides what runs.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

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
    "RAY_AUTH_MODE": "disabled",  # else a token file in the home directory turns it on
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # whatever its name: the one switch that keeps all of Ray's servers on loopback
}
# Ray reads some of these when it is imported.
for _name, _value in (ENVIRONMENT if os.environ.get("RAY_ADDRESS") else ENVIRONMENT | EMBEDDED | ONE_THREAD).items():
    os.environ.setdefault(_name, _value)

import ray  # noqa: E402
from ray import tune  # noqa: E402
from ray._private.node import Node  # noqa: E402
from ray._private.ray_constants import PROCESS_TYPE_GCS_SERVER  # noqa: E402

from service.planning import devices  # noqa: E402
from service.storage import paths  # noqa: E402
from service.terminal.waiting import waiting  # noqa: E402
from trainables.errors import UserError  # noqa: E402
from trainables.trial import Stack, Trial  # noqa: E402
from trainables.tune_trainable import StackTrainable  # noqa: E402

STARTS = 3
GPU_FRACTION = 0.5  # two stacks share a GPU, one evaluates while the other trains; bookkeeping, not isolation
AHEAD = 1  # stacks that wait in Ray for a free place, so that a warm worker gets its next one at once
RECOUNT = 5.0  # seconds between two looks at how large the cluster is


class Conductor(Protocol):
    """Whom the cluster asks for work and tells what becomes of it."""

    def next(self) -> Stack | None: ...
    def busy(self) -> bool: ...
    def started(self, stack: Stack) -> None: ...
    def reported(self, stack: Stack, news: dict[str, Any]) -> None: ...
    def ended(self, stack: Stack, news: dict[str, Any]) -> None: ...
    def idle(self) -> None: ...


class Cluster:
    """A connection to Ray; made by `connect`."""

    def __init__(self, device: str, gpu_fraction: float = GPU_FRACTION) -> None:
        self.device, self._gpu = device, gpu_fraction
        self._counted, self._slots = 0.0, 1

    @property
    def slots(self) -> int:
        """How many stacks fit on the cluster as it is now; nodes come and go."""
        if time.monotonic() - self._counted > RECOUNT or not self._counted:
            total = ray.cluster_resources()
            self._slots = max(1, int(total.get("GPU", 0) / self._gpu if self.device == "cuda" else total.get("CPU", 1)))
            self._counted = time.monotonic()
        return self._slots

    def fit(self) -> Callable[[Trial], int] | None:
        """How many trials like one go into a stack's share of a GPU, asked of a GPU that is free now; None on CPUs."""
        if self.device != "cuda":
            return None
        from trainables.training.memory import free_bytes, members_that_fit  # imports torch

        free = ray.get(ray.remote(num_gpus=self._gpu)(free_bytes).remote())
        return lambda trial: members_that_fit(trial, int(free * self._gpu))

    def train(
        self, name: str, conductor: Conductor, storage: Path, listen: Callable[..., Any], most: int | None = None, **options: Any
    ) -> None:
        """Train what the conductor hands out until it has no more, at most `most` stacks at a time.

        `listen` and `options`: see trainables/tune_trainable.py. What the conductor raises ends the training and is raised here.
        """
        source = _Source(conductor, lambda: most or self.slots + AHEAD)
        trainable = tune.with_parameters(StackTrainable, storage=str(storage), listen=listen, device=self.device, **options)
        tuner = tune.Tuner(
            tune.with_resources(trainable, {"cpu": 1, "gpu": self._gpu} if self.device == "cuda" else {"cpu": 1}),
            tune_config=tune.TuneConfig(
                num_samples=-1,
                search_alg=source,
                # A warm worker saves seconds per stack; on a GPU the next stack could find the last one's memory still held.
                reuse_actors=self.device == "cpu",
                trial_name_creator=lambda ray_trial: f"stack-{ray_trial.trial_id}",
                trial_dirname_creator=lambda ray_trial: f"stack-{ray_trial.trial_id}",
            ),
            run_config=tune.RunConfig(
                name=f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}",
                storage_path=str(paths.ray_results(storage)),
                callbacks=[_News(source)],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                failure_config=tune.FailureConfig(max_failures=0),  # tried again by the conductor, which knows why it failed
                verbose=0,
            ),
        )
        try:
            tuner.fit()
        except Exception:
            # What the conductor raised is raised below, as it was: Tune wraps some of it in an error of its own, whatever that is.
            if source.trouble is None:
                raise
        if source.trouble is not None:
            raise source.trouble


@contextlib.contextmanager
def connect(device: str = "auto", gpu_fraction: float = GPU_FRACTION) -> Iterator[Cluster]:
    """The running cluster that $RAY_ADDRESS names (`ray job submit` sets it), else an embedded one on loopback.

    Raises UserError for a `cuda` that the cluster does not have."""
    with waiting("starting Ray"):
        _start()
    for name in ("ray", "ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # failures are told in our words, with their class, not as tracebacks
    try:
        yield Cluster(devices.choose(device, ray.cluster_resources().get("GPU", 0)), gpu_fraction)
    except KeyboardInterrupt:
        _kill()
        raise
    with waiting("stopping Ray"), _no_collection():
        ray.shutdown()


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """No garbage is collected inside: the shipper's thread would find Ray's references, and Ray ends a process whose references are
    given back between the end of its worker and the end of `shutdown`."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


def _kill() -> None:
    """End an embedded Ray and its workers now: ray.shutdown asks each politely in turn, and there are three seconds.

    Workers of a cluster end with the connection, that is with this process, and the end of the lease has fenced them off before.
    """
    node = getattr(ray._private.worker, "_global_node", None)
    if node is None or os.environ.get("RAY_ADDRESS"):
        return
    ray._private.worker.global_worker.threads_stopped.set()  # nobody need tell the user that Ray has gone
    # The head goes first: from it Ray in this process hears that its node is lost, as soon as an agent is, and ends us in mid-sentence.
    kinds = sorted(node.all_processes, key=lambda kind: kind != PROCESS_TYPE_GCS_SERVER)
    own = [info.process.pid for kind in kinds for info in node.all_processes[kind]]
    for pid in [*own, *(child for parent in own for child in _children(parent))]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _start() -> None:
    """Connect, or start an embedded Ray; a busy machine may not manage within Ray's own 30 seconds, so it is tried again."""
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if os.environ.get("RAY_ADDRESS"):
        ray.init(runtime_env={"env_vars": ONE_THREAD}, **quiet)
        return
    for tries_left in reversed(range(STARTS)):
        try:
            # Workers inherit an embedded Ray's environment; a runtime_env would have each of them started twice.
            ray.init("local", num_cpus=len(os.sched_getaffinity(0)), include_dashboard=False, **quiet)
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
    """Tune's way of asking for the next ray_trial; keeps which ray_trial trains which stack."""

    def __init__(self, conductor: Conductor, most: Callable[[], int]) -> None:
        super().__init__()
        self.conductor, self._most = conductor, most
        self.stacks: dict[str, Stack] = {}  # by ray_trial id, until it has ended
        self.trouble: Exception | None = None

    def suggest(self, trial_id: str) -> Any:
        if len(self.stacks) >= self._most():
            return None
        stack = self.tell(self.conductor.next)
        if stack is None:
            return None if self.tell(self.conductor.busy) else self.FINISHED
        self.stacks[trial_id] = stack
        return {"stack": json.dumps([trial.to_json() for trial in stack.trials])}

    def tell(self, method: Callable[..., Any], *arguments: Any) -> Any:
        """Call the conductor, and keep what it raises: Tune wraps some of it and swallows some."""
        try:
            return method(*arguments)
        except Exception as error:
            self.trouble = self.trouble or error
            raise

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """_News hears it, with the reason."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing is restored from it."""

    restore = save

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its parts; nothing of this one is wanted again."""
        return {}


class _News(tune.Callback):  # type: ignore[misc]
    """Tune's events in the conductor's words: stacks, not ray_trials."""

    def __init__(self, source: _Source) -> None:
        self._source = source

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._tell("started", trial)

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any) -> None:
        self._tell("reported", trial, result)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._tell("ended", trial, trial.last_result)
        self._source.stacks.pop(trial.trial_id, None)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The worker or its node died; an error of the training itself comes as a result."""
        self._tell("ended", trial, {"failure": death(_error_text(trial))})
        self._source.stacks.pop(trial.trial_id, None)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self._source.tell(self._source.conductor.idle)

    def _tell(self, event: str, trial: Any, *news: Any) -> None:
        stack = self._source.stacks.get(trial.trial_id)
        if stack is not None:
            self._source.tell(getattr(self._source.conductor, event), stack, *news)


def death(text: str) -> dict[str, str]:
    """The failure that Ray's words about a dead worker stand for."""
    why = (
        "out_of_memory" if "running low on memory" in text else "error" if "error raised in its creation task" in text else "infrastructure"
    )
    last = (text.strip().splitlines() or ["no word from it"])[-1].strip()
    return {"reason": why, "message": f"the worker died: {last[:300]}"}


def _error_text(trial: Any) -> str:
    """What Tune has just noted of a ray_trial's end, where it noted it: Trial.get_error looks where it is copied to later."""
    try:
        return Path(trial.error_file).read_text()
    except (OSError, TypeError):
        return ""
