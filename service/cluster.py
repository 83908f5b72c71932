"""Ray, and nothing but Ray: connect or start one here, and train stacks with Ray Tune, one ray_trial per stack.

Tune schedules, places and retries. It is never asked to restore: its snapshots lag and go wrong, the manifest decides what runs.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # no csv, json and tensorboard files beside ours
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_MAX_PENDING_TRIALS_PG": "16",  # else fixed at the start by the nodes there are then
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
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

from trainables import paths  # noqa: E402
from trainables.errors import UserError  # noqa: E402
from trainables.trial import Stack  # noqa: E402
from trainables.tune_trainable import StackTrainable  # noqa: E402

STARTS = 3
RETRIES = 3  # of a ray_trial whose worker or node died; it goes on from its own checkpoint
GPU_FRACTION = 0.5  # two stacks share a GPU, one evaluates while the other trains; bookkeeping, not isolation


class Observer(Protocol):
    """What the driver hears of each stack."""

    def started(self, stack: Stack) -> None: ...
    def reported(self, stack: Stack, news: dict[str, Any]) -> None: ...
    def ended(self, stack: Stack, news: dict[str, Any]) -> None: ...
    def idle(self) -> None: ...


class Cluster:
    """A connection to Ray; made by `connect`."""

    def __init__(self, device: str, slots: int) -> None:
        self.device, self.slots = device, slots

    def train(
        self, name: str, stacks: Sequence[Stack], storage: Path, listen: Callable[..., Any], observer: Observer, **options: Any
    ) -> bool:
        """Train all stacks; False where a signal ended it early. `listen` and `options`: see trainables/tune_trainable.py."""
        news = _News(stacks, observer)
        values = [[trial.to_json() for trial in stack.trials] for stack in stacks]
        trainable = tune.with_parameters(StackTrainable, stacks=values, storage=str(storage), listen=listen, device=self.device, **options)
        tuner = tune.Tuner(
            tune.with_resources(trainable, {"cpu": 1, "gpu": GPU_FRACTION} if self.device == "cuda" else {"cpu": 1}),
            param_space={"stack": tune.grid_search(list(range(len(stacks))))},
            tune_config=tune.TuneConfig(
                # A warm worker saves seconds per stack; on a GPU the next stack could find the last one's memory still held.
                reuse_actors=self.device == "cpu",
                trial_name_creator=lambda ray_trial: f"stack-{ray_trial.config['stack']}",
                trial_dirname_creator=lambda ray_trial: f"stack-{ray_trial.config['stack']}-{ray_trial.trial_id}",
            ),
            run_config=tune.RunConfig(
                name=f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}",
                storage_path=str(paths.ray_results(storage)),
                callbacks=[news],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                failure_config=tune.FailureConfig(max_failures=RETRIES),
                verbose=0,
            ),
        )
        tuner.fit()
        return not news.pending


@contextlib.contextmanager
def connect(device: str = "auto") -> Iterator[Cluster]:
    """The running cluster that $RAY_ADDRESS names (`ray job submit` sets it), else an embedded one on loopback."""
    _start()
    for name in ("ray", "ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # failures are told in our words, with their class, not as tracebacks
    # Ray Tune knows SIGINT only; `ray job stop` and init systems send SIGTERM. After ray.init, which sets its own.
    previous = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        total = ray.cluster_resources()
        chosen = device if device != "auto" else "cuda" if total.get("GPU", 0) > 0 else "cpu"
        slots = total.get("GPU", 0) / GPU_FRACTION if chosen == "cuda" else total.get("CPU", 1)
        yield Cluster(chosen, max(1, int(slots)))
    finally:
        signal.signal(signal.SIGTERM, previous or signal.SIG_DFL)  # None: a handler of Ray's C++ side
        ray.shutdown()


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


class _News(tune.Callback):  # type: ignore[misc]
    """Tune's events in the driver's words: stacks, not ray_trials."""

    def __init__(self, stacks: Sequence[Stack], observer: Observer) -> None:
        self._stacks, self._observer = stacks, observer
        self.pending = set(range(len(stacks)))

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._observer.started(self._stacks[trial.config["stack"]])

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any) -> None:
        self._observer.reported(self._stacks[trial.config["stack"]], result)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._end(trial, trial.last_result)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        message = f"the worker died {RETRIES + 1} times: {_last_line(trial.get_error())}"
        self._end(trial, {"failure": {"reason": "infrastructure", "message": message}})

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self._observer.idle()

    def _end(self, trial: Any, news: dict[str, Any]) -> None:
        index = trial.config["stack"]
        if index in self.pending:
            self.pending.discard(index)
            self._observer.ended(self._stacks[index], news)


def _last_line(error: object) -> str:
    return (str(error).strip().splitlines() or ["no word from it"])[-1][:300]
