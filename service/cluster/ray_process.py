"""A Ray for this process: the cluster that $RAY_ADDRESS names, or one of its own. To be imported before Ray, which it sets up."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import secrets
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from service.cluster import address, embedded

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # no csv, json and tensorboard files beside ours
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_MAX_PENDING_TRIALS_PG": "1000",  # else fixed at the start by the nodes there are then; Source asks for no more than fit
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",  # nothing is ever read back from Tune's snapshots
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_COLOR_PREFIX": "0",
}
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
EMBEDDED = {
    "RAY_worker_niceness": "0",  # Ray's 15 would let anything else on the machine starve the training
    "RAY_prestart_worker_first_driver": "0",  # one per core, which nothing uses: a trainable's worker has an environment of its own
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # whatever its name: the one switch that keeps all of Ray's servers on loopback
}
# Ray reads some of these when it is imported.
for _name, _value in (ENVIRONMENT if address.given() else ENVIRONMENT | EMBEDDED | ONE_THREAD).items():
    os.environ.setdefault(_name, _value)

import ray  # noqa: E402
from ray._private.node import Node  # noqa: E402
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]  # noqa: E402
from ray.tune import tune  # noqa: E402
from ray.tune.execution import class_cache  # noqa: E402

from service.cluster import workers  # noqa: E402
from service.planning import devices  # noqa: E402
from service.terminal import signals  # noqa: E402
from service.terminal.redaction import redact, secret_name  # noqa: E402
from service.terminal.waiting import waiting  # noqa: E402
from trainables import project  # noqa: E402
from trainables.environments import environment_variables  # noqa: E402
from trainables.errors import UserError  # noqa: E402

# Tune would hand these to each actor, in a runtime environment that Ray writes to a log. Workers take them from where they run.
class_cache.ENV_VARS_TO_PROPAGATE = {
    name for name in class_cache.ENV_VARS_TO_PROPAGATE if not (secret_name(name) or name.startswith("AWS_"))
}

# Ray keeps a driver's command line with its job, for its page and its files.
_command_line = ray._private.utils.get_entrypoint_name
ray._private.utils.get_entrypoint_name = lambda: redact(_command_line())

# Tune would take SIGINT and SIGUSR1, which are service/terminal/signals.py's; its event is never set.
tune._setup_signal_catching = threading.Event

TOKEN = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
QUIET = {"log_to_driver": False, "logging_level": logging.ERROR}
# Servers of a cluster's head: its scaling, its workers' output and its page. An embedded Ray has one node, is QUIET, and has no page.
UNUSED = ("start_monitor", "start_log_monitor", "start_api_server")
STARTS = 3


@contextlib.contextmanager
def running() -> Iterator[None]:
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
            if signals.process_goes_on():
                _shut_down()
            else:
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


@contextlib.contextmanager
def _few_servers() -> Iterator[None]:
    """Ray starts inside without UNUSED, which take a third of the CPU time of a start; another version may not have them.

    Its agent has no web server, as where the page is not installed: every Ray of a host wants one port for it, and the second would wait
    four seconds for what the first has."""
    changes: list[tuple[Any, str, Any]] = [(Node, name, lambda *_, **__: None) for name in UNUSED]
    changes.append((ray._private.utils, "get_dashboard_dependency_error", lambda: ImportError("an embedded Ray has no page")))
    changes = [change for change in changes if hasattr(*change[:2])]
    before = [(where, name, getattr(where, name)) for where, name, _ in changes]
    for change in changes:
        setattr(*change)
    try:
        yield
    finally:
        for change in before:
            setattr(*change)


def _slices() -> dict[str, Any]:
    """MIG slices of this machine as Ray's GPUs: it would count the GPUs that are divided. Workers inherit which they are."""
    found = devices.slices_here()
    name, ids = devices.chosen(found)
    if not name:
        return {}
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(ids)
    if others := sorted(found.keys() - {name}):
        print(f"note: one kind of slice for a run: {name}; CUDA_VISIBLE_DEVICES chooses others ({', '.join(others)})", file=sys.stderr)
    return {"num_gpus": len(ids), "resources": {devices.SLICE + name: float(len(ids))}}


def _start(folder: Path) -> None:
    """Start an embedded Ray; a busy machine may not manage within Ray's own 30 seconds, so it is tried again."""
    for tries_left in reversed(range(STARTS)):
        try:
            with _token(), _few_servers():
                # Workers inherit an embedded Ray's environment; a runtime_env would have each of them started twice.
                cpus = devices.cores()
                where = {"num_cpus": cpus, "include_dashboard": False, "_temp_dir": str(folder), **_slices()}
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
