"""The Ray job that this driver runs as, where it does: told of a deliberate stop, so that Ray calls the job STOPPED and not FAILED."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable

from service.terminal import signals

JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set by Ray's job server for the command that it runs
ANSWER = 5.0  # seconds that the storage and the job server may take
COMES = 10.0  # seconds that Ray's own signal may take, after the job server has answered
LOOK = 0.05  # seconds between two looks whether it has come


def id() -> str:
    """The job's submission id; empty outside of a job."""
    with contextlib.suppress(ValueError, KeyError):
        return str(json.loads(os.environ[JOB])["metadata"]["job_submission_id"])
    return ""


def end(asked: Callable[[], bool]) -> None:
    """Have Ray end this job, where it is one and `asked()` says that somebody wanted it to; the last act of a driver, from any thread.

    Ray looks only at how the process ends, and calls every exit code but 0 a failure, so this returns when Ray's signal has come. It never
    raises, and it never waits for a storage or a server that hangs.
    """
    if not (job := id()):
        return
    sent, before = threading.Event(), signals.more()

    def ask() -> None:
        with contextlib.suppress(Exception):  # of Ray's client, of requests, of the storage
            if asked():
                from ray.job_submission import JobSubmissionClient

                if JobSubmissionClient().stop_job(job):
                    sent.set()

    thread = threading.Thread(target=ask, name="tells Ray", daemon=True)
    thread.start()
    thread.join(ANSWER)
    until = time.monotonic() + COMES
    while sent.is_set() and signals.more() == before and time.monotonic() < until:
        time.sleep(LOOK)
