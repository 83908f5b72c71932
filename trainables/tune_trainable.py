"""The Ray Tune trainable: one ray_trial trains one stack and passes every report to a listener. The only file here that imports ray.

Ray's own checkpoints and results are not used: run_stack resumes by trial key, the listener stores the metrics, and what step()
returns to the driver is only news for the manifest and the progress line.
"""

from __future__ import annotations

import functools
import json
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import ray
from ray import tune
from ray.experimental import internal_kv

from trainables.failures import failure
from trainables.reports import Evaluated, Finished, Report, Trained
from trainables.storage import failing_host
from trainables.training.leave import Leave
from trainables.trial import Stack, Trial

NEWS_EVERY = 1.0  # seconds between two results sent to the driver
LOOK = 0.2  # seconds between two looks whether the driver leaves
LOOKS = 5  # of them for one whether this stack is to leave its place to another sweep
NAMESPACE = b"winnow"  # of Ray's key-value store, in which the driver of a run asks its workers to leave, and they answer


class Listener(Protocol):
    """Receives the reports. `storage` is where the trials' files are written during training; `dataset_hash` is that of the data to train
    on, empty if any will do; `check` raises SupersededError if nothing may be written for them any more; `sync` returns once all reports
    are on disk."""

    storage: Path
    dataset_hash: str

    def __call__(self, report: Report) -> None: ...
    def check(self) -> None: ...
    def sync(self) -> None: ...
    def close(self) -> None: ...


class Options(Protocol):
    """How to train: what run_stack takes, of the service's TrainingOptions. `device` is `cpu`, `cuda` or `all`: each stack has its own."""

    @property
    def device(self) -> str: ...
    @property
    def execution(self) -> str: ...
    @property
    def checkpoint_every(self) -> int: ...
    @property
    def tf32(self) -> bool: ...


class StackTrainable(tune.Trainable):  # type: ignore[misc]
    """Trains the stack in `config["stack"]`, the JSON of its trials, on `config["device"]` where it is given; a warm actor gets the next
    stack through reset_config."""

    def setup(
        self,
        config: dict[str, Any],
        *,
        storage: str,
        listen: Callable[[Stack, Path], Listener],
        options: Options,
        work: Callable[..., Iterator[Report]] | None = None,
        run: str = "",
        shared: bool = False,
    ) -> None:
        """`work` trains a stack and yields reports; by default it is run_stack. `run` names the run whose driver may ask to leave;
        `shared`: on a cluster on which it may ask one stack alone, and whose other hosts may be better than one that fails."""
        self._options: dict[str, Any] = {name: getattr(options, name) for name in ("device", "execution", "checkpoint_every", "tf32")}
        self._options["device"] = config.get("device", options.device)
        if self._options["device"] == "cuda" and work is None:
            self._options["beside"] = RayFuture
        self._options["leave"] = self._leave = Leave()
        self._all_leave, self._shared = False, shared
        self._root, self._listen, self._work = Path(storage), listen, work or train
        self._stepping = threading.Lock()
        self.reset_config(config)
        if run:
            threading.Thread(target=self._watch, args=(run, shared), name="watches the driver", daemon=True).start()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.cleanup()
        self._stack = Stack(tuple(Trial.from_json(value) for value in json.loads(new_config["stack"])))
        self._leave.asked = self._all_leave
        self._reports: Iterator[Report] | None = None
        self._listener: Listener | None = None
        self._trained, self._failed, self._until = False, dict[str, Any](), 0.0
        return True

    def step(self) -> dict[str, Any]:
        """Pass on reports for about a second; a failure ends the ray_trial with its class, because Tune would retry it blindly."""
        with self._stepping:
            return self._step()

    def _step(self) -> dict[str, Any]:
        news: dict[str, Any] = {"scores": {}}
        if self._failed:
            return self._wait(news)
        try:
            if self._reports is None or self._listener is None:
                self._listener = self._listen(self._stack, self._root)
                how = self._options | {"before_write": self._before_write, "dataset_hash": self._listener.dataset_hash}
                self._reports = self._work(self._stack, self._listener.storage, **how)
            started = time.monotonic()
            for report in self._reports:
                self._listener(report)
                if isinstance(report, Trained) and not self._trained:
                    self._trained = True
                    failing_host.works()
                news |= self._news(report)
                if time.monotonic() - started > NEWS_EVERY:
                    return news
        except Exception as error:
            news["failure"] = failure(error)
        self.cleanup()
        if self._shared and not self._trained and news.get("failure", {}).get("reason") in ("infrastructure", "gone"):
            seconds = failing_host.wait()
            self._failed, self._until = news["failure"], time.monotonic() + seconds
            return {"scores": {}, "waits": {"seconds": seconds, "failure": self._failed}}
        return news | {"done": True}

    def _wait(self, news: dict[str, Any]) -> dict[str, Any]:
        """Keep the place of a stack that this host has failed before its first update, so that the host does not get the next one at once.
        The driver hears of it as often as during training, or it would take the worker for a silent one. Ends where it is to leave."""
        until = min(self._until, time.monotonic() + NEWS_EVERY)
        while time.monotonic() < until and not self._leave.asked:
            time.sleep(max(0.0, min(LOOK, until - time.monotonic())))
        if time.monotonic() < self._until and not self._leave.asked:
            return news
        return news | {"failure": self._failed, "done": True}

    def _before_write(self) -> None:
        assert self._listener is not None
        self._listener.check()
        if self._leave.asked:  # a checkpoint may follow at any update, and the lines that it commits must be on disk first
            self._listener.sync()

    def _watch(self, run: str, shared: bool) -> None:
        """Wait until the driver leaves; then let the work commit what it has, also where nobody asks for the next step, and answer. Until
        then, a stack that is to leave its place commits what it has, and ends."""
        for look in count():
            if internal_kv._internal_kv_exists(leaves(run), namespace=NAMESPACE):
                break
            stack = self._stack
            if shared and look % LOOKS == 0 and internal_kv._internal_kv_exists(yields(run, stack), namespace=NAMESPACE):
                self._leave.asked = self._leave.asked or stack is self._stack
            time.sleep(LOOK)
        self._leave.asked = self._all_leave = True
        with self._stepping:
            while self._reports is not None and not self._step().get("done"):
                pass
            answer = {"update": self._leave.update, "kept": self._leave.kept}
            internal_kv._internal_kv_put(leaves(run, self._stack), json.dumps(answer), namespace=NAMESPACE)

    def cleanup(self) -> None:
        for opened in (getattr(self, "_reports", None), getattr(self, "_listener", None)):
            if opened is not None:
                opened.close()
        self._reports = self._listener = None

    def _news(self, report: Report) -> dict[str, Any]:
        keys, update = [trial.key for trial in self._stack.trials], {"update": report.update}
        match report:
            case Evaluated(episodes=episodes, final=False):
                scores = [each["scores"] for each in episodes]
                return update | {
                    "evaluated": report.update,
                    "scores": {key: sum(s) / len(s) for key, s in zip(keys, scores, strict=True) if s},
                }
            case Finished(seconds=seconds):
                return update | {"seconds": seconds}
        return update


def leaves(run: str, stack: Stack | None = None) -> bytes:
    """The key under which a driver says that it leaves, and those under which the worker of a stack says that it is done."""
    return f"{run}/leaves{f'/{stack.lead.key}' if stack else ''}".encode()


def yields(run: str, stack: Stack) -> bytes:
    """The key under which a driver says that a stack is to leave its place."""
    return f"{run}/yields/{stack.lead.key}".encode()


@functools.cache
def _remote(function: Callable[..., Any]) -> Any:
    """One for each function: Ray's head keeps every one that is made."""
    return ray.remote(num_cpus=0, scheduling_strategy="DEFAULT")(function)


class RayFuture:
    """A function that runs in another process, on this node or another; a future as in trainables/evaluation/futures.py.

    It asks Ray for no CPU: on a full cluster, a trainer waiting for it would hold the CPU that it needs."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.reference = _remote(function).remote(*arguments)

    def done(self) -> bool:
        return bool(ray.wait([self.reference], timeout=0)[0])

    def result(self) -> Any:
        return ray.get(self.reference)


def train(stack: Stack, storage: Path, **options: Any) -> Iterator[Report]:
    """run_stack, imported here because it imports torch, which only workers need."""
    from trainables.run import run_stack

    return run_stack(stack, storage, **options)
