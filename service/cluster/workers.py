"""What a driver does to a worker beside Tune: end it, and call it where its answer may be lost. For tune_stacks.py."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import ray
from ray.job_config import JobConfig
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from service.cluster import embedded
from service.planning.provenance import ROOT, names_of_ours
from trainables.environments import named_modules

CALL_EVERY = 10.0  # seconds between two calls of a silent worker


class OursFirst(JobConfig):  # type: ignore[misc]
    """Workers import our packages, where the working folder, which Ray puts ahead of all others, has some of the same names. And they find
    the modules that are named for environments where this process has imported them."""

    def _serialize(self) -> bytes:
        here = Path.cwd().resolve()
        self._py_driver_sys_path += folders_of(named_modules())
        if here != ROOT and names_of_ours(here):
            self._py_driver_sys_path.append(str(ROOT))  # the last one is searched first
        return bytes(super()._serialize())


def folders_of(modules: Iterable[str]) -> list[str]:
    """The folders in which the modules that are imported here, or their packages, lie."""
    tops = (sys.modules.get(module.partition(".")[0]) for module in modules)
    files = (Path(file) for top in tops if (file := getattr(top, "__file__", None)))  # a project's package has none: it is no folder
    return [str(file.parents[file.name == "__init__.py"].absolute()) for file in files]


class Calls:
    """Calls silent workers, so that Ray learns of a connection that is broken.

    A network that fails for some seconds can lose a worker's answer. Ray waits for it and sends nothing, so that it would not notice for
    five minutes. A call sends something: Ray then reports the worker as unavailable, which is a failure like any other. On a connection
    that works, the call waits behind the step in training and changes nothing."""

    def __init__(self) -> None:
        self._called: dict[str, tuple[float, Any]] = {}  # by ray_trial id: when, and what shows that it was answered

    def call(self, silent: Mapping[str, Any]) -> None:
        """Call each of these ray_trials' workers, by id, unless its last call was just now or is not answered yet."""
        now = time.monotonic()
        self._called = {id: called for id, called in self._called.items() if id in silent}
        for id, ray_trial in silent.items():
            actor, (when, answer) = ray_trial.temporary_state.ray_actor, self._called.get(id, (-CALL_EVERY, None))
            if actor is not None and now - when >= CALL_EVERY and (answer is None or ray.wait([answer], timeout=0)[0]):
                self._called[id] = now, actor.get_current_ip_pid.remote()


def end(ray_trial: Any) -> None:
    """SIGKILL the worker of a ray_trial, on whatever node it is: a stalled one would not react to anything else."""
    place = ray_trial.temporary_state.location
    if not place.pid:  # it has never said where it is
        ray.kill(ray_trial.temporary_state.ray_actor)
    elif place.pid in embedded.descendants(os.getpid()):
        os.kill(place.pid, signal.SIGKILL)
    else:
        nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["NodeManagerAddress"] == place.hostname]
        if not nodes:  # just lost, and the worker with it
            return
        there = NodeAffinitySchedulingStrategy(nodes[0], soft=False)
        ray.remote(num_cpus=0, scheduling_strategy=there)(_kill_here).remote(place.pid)


def _kill_here(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
