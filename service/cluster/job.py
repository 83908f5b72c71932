"""`winnow submit`: a sweep as a job of a Ray cluster, by Ray's Jobs API."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from search_spaces.sweep import expand, load_sweep, override
from service.cluster import sent
from service.cluster.handed_on import environment, refuse_secrets
from service.planning.description import limits
from service.planning.provenance import PACKAGES, ROOT, names_of_ours
from service.planning.run_settings import RunSettings
from service.planning.submitter import JOB, VARIABLE, this_process
from service.terminal import clock
from service.terminal.redaction import redact
from service.terminal.signals import INTERRUPTED
from service.terminal.waiting import waiting
from trainables import project
from trainables.errors import UserError, first_line
from trainables.output import to_json

ADDRESS = "http://127.0.0.1:8265"
# Of a project, the sweeps and plug-ins; of the clone, the code. Results, environments and history can be gigabytes, and Ray takes 100 MB.
OF_PROJECT = ["/storage", "/slurm", "/.git", "/.venv*", "/venv*", "**/__pycache__", "**/.*_cache", "*.log"]
EXCLUDES = [*OF_PROJECT, "/tests", "/docs", "/docker", "/benchmarks", "*.so"]
CHATTY = ("ray", "ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk")  # Ray sets a level of its own for each
TRIES = 5  # of a submission id, where others submit at the same moment
PATIENCE = 120.0  # seconds that a cluster may take to be ready for jobs


def submit(
    name: str, settings: RunSettings, storage: str | None = None, *, address: str | None = None, follow: bool = False, json: bool = False
) -> int:
    """Submit `run NAME` with its settings and print how to watch it, as JSON with `json`; with `follow`, show its output.

    Returns 0; with `follow`, only if the job succeeds, else 1, and 130 where it is still running when a signal ends this.
    `storage` is passed on as it was typed, since the job runs elsewhere. Raises UserError for bad input, before anything is submitted,
    and where no job server answers. Ray takes a token, where the cluster wants one, from its own variables.
    """
    expand(override(load_sweep(name), settings.overrides))
    if (until := settings.options.until) is not None:  # the cluster's clock may be in another zone
        settings = replace(settings, options=replace(settings.options, until=clock.with_zone(until)))
    told = _sent(name)
    refuse_secrets(settings, storage)
    handed_on, code = environment(), shipped()
    sends = sent.describe(code)
    bounds = limits(settings.options)
    server = address or os.environ.get("RAY_API_SERVER_ADDRESS") or ADDRESS
    shown = redact(server)
    with waiting(f"asking {shown}"):
        client = _client(server)
    if not json:
        print(sends + (f"\nlimits: {bounds}" if bounds else ""), flush=True)
    with waiting(f"handing the job over to {shown}"):
        id = _hand_over(client, name, entrypoint(told, settings, storage), {**code, "env_vars": {**handed_on, **_by(name, settings)}})
    output = shlex.join(["ray", "job", "logs", "--address", shown, "-f", id])
    end = shlex.join(["ray", "job", "stop", "--address", shown, id])
    if json:
        print(to_json({"job": id, "address": shown, "sends": sends, "output": output, "end": end}))
    else:
        print(f"{id} submitted; its output: {output}\nend it: {end}", flush=True)
    if not follow:
        return 0
    try:
        asyncio.run(_follow(client, id))
        status = client.get_job_status(id).value
    except KeyboardInterrupt:
        print(f"\n{id} keeps running; its output: {output}\nend it: {end}")
        return INTERRUPTED
    except Exception as error:  # where the head goes away, Ray's client raises errors of aiohttp, of requests and of its own
        ask = shlex.join(["winnow", "status", project.typed(name), *([f"--storage={storage}"] if storage else [])])
        raise UserError(f"{shown} no longer answers ({redact(first_line(error))}); `{ask}` shows how far {name} is") from None
    print(f"{id}: {status}")
    return 0 if status == "SUCCEEDED" else 1


def _by(name: str, settings: RunSettings) -> dict[str, str]:
    """Who submits the job, for its driver."""
    return {VARIABLE: json.dumps(this_process(shlex.join(["winnow", "submit", project.typed(name), *settings.words()]), JOB))}


def entrypoint(name: str, settings: RunSettings, storage: str | None = None) -> str:
    """The command that the job runs."""
    given = [f"--storage={storage}"] if storage else []
    return shlex.join(["python", "-m", "winnow", "run", name, *settings.words(), *given])


def _sent(name: str) -> str:
    """What names the sweep in the copy that the job gets: its name, or its file's path there. Raises UserError for a file outside it."""
    path, folder = project.given().get(name), project.root()
    if path is None:
        return name
    if folder is None or not path.is_relative_to(folder):
        raise UserError(
            f"{path} would not be sent: a project is, and this file is in none; put it into one (`winnow init FOLDER` makes one)"
        )
    return f"./{path.relative_to(folder)}"


def next_id(name: str, taken: Sequence[str]) -> str:
    """`winnow-NAME-aN`, a new number for each attempt: Ray refuses an id that was ever used."""
    numbers = (re.fullmatch(rf"winnow-{re.escape(name)}-a(\d+)", id) for id in taken)
    return f"winnow-{name}-a{max((int(found[1]) for found in numbers if found), default=0) + 1}"


def _client(address: str) -> Any:
    from ray.job_submission import JobSubmissionClient

    for name in CHATTY:  # else they tell each file of ignored names that is read, and each package that is sent
        logging.getLogger(name).setLevel(logging.ERROR)
    # Ray would prefer these to the address that it is given.
    hidden = {name: os.environ.pop(name) for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS") if name in os.environ}
    try:
        return JobSubmissionClient(address)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UserError(f"no job server of Ray at {redact(address)} ({redact(first_line(error))}); give --address") from None
    finally:
        os.environ |= hidden


def shipped() -> dict[str, Any]:
    """The folders that Ray copies to the job's machines: the project, and our code where this is a clone. What is installed stays: there
    the machines need an installed Winnow, too. Raises UserError for a project whose files would be taken for ours there."""
    folder, clone = project.root(), (ROOT / "pyproject.toml").exists()
    if folder is None:
        return {"working_dir": str(ROOT), "excludes": EXCLUDES} if clone else {}
    if names := names_of_ours(folder):
        raise UserError(f"{folder / names[0]} has the name of a package of Winnow's, and the cluster could take it for that; rename it")
    ours = {"py_modules": [str(ROOT / name) for name in PACKAGES]} if clone else {}
    return {"working_dir": str(folder), "excludes": [*OF_PROJECT, *(f"/{place}" for place in project.places())], **ours}


def _hand_over(client: Any, name: str, entrypoint: str, runtime: Mapping[str, Any]) -> str:
    until, tries = time.monotonic() + PATIENCE, 0
    while True:
        try:
            taken = [job.submission_id or "" for job in client.list_jobs()]
            return str(client.submit_job(entrypoint=entrypoint, submission_id=next_id(name, taken), runtime_env=dict(runtime)))
        except (RuntimeError, OSError) as error:  # OSError: those of requests, too
            text, tries = str(error), tries + 1
            early = "No available agent" in text and time.monotonic() < until  # a head that has just started
            if not early and not ("already exists" in text and tries < TRIES):
                raise UserError(f"the job was refused: {redact(first_line(error))}") from None
            time.sleep(1.0 if early else 0.0)


async def _follow(client: Any, id: str) -> None:
    async for text in client.tail_job_logs(id):
        print(text, end="", flush=True)
