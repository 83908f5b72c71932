"""`submit`: a run as a job on a Ray cluster, or as a SLURM job array."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from service.cli import arguments as shared
from service.cli import training
from trainables.errors import UserError

HELP = "run a sweep as a job on a Ray cluster, or as a SLURM job array"
EXAMPLE = "submit quickstart --slurm --tasks 4 --partition gpu --gres gpu:1 --time 4:00:00"
PLAIN = {  # options of sbatch that are passed on as they are
    "partition": "where tasks run", "time": "time limit of a task, e.g. 4:00:00; just before it, the task is requeued and continues later",
    "gres": "generic resources of a task, e.g. gpu:1", "account": "account to charge", "qos": "quality of service",
    "mem": "memory of a task, e.g. 16G", "cpus-per-task": "CPUs of a task", "constraint": "features that a node needs",
}  # fmt: skip


def arguments(parser: argparse.ArgumentParser) -> None:
    shared.sweep(parser)
    training.settings(parser)
    shared.study_storage(parser)
    shared.notify(parser)
    parser.add_argument("--address", help="the cluster's job server (default $RAY_API_SERVER_ADDRESS, else http://127.0.0.1:8265)")
    parser.add_argument("--follow", action="store_true", help="show the job's output until it ends, and return 0 only if it succeeds")
    shared.as_json(parser)
    slurm = parser.add_argument_group("with SLURM")
    slurm.add_argument("--slurm", action="store_true", help="submit a SLURM job array; each task starts its own Ray")
    slurm.add_argument("--dry-run", action="store_true", help="print the script and submit nothing")
    slurm.add_argument("--local", action="store_true", help="run the script's tasks here, without SLURM, to debug it")
    slurm.add_argument("--tasks", type=_tasks, metavar="N[%M]", help="number of tasks in the array, M of them at a time (default 1)")
    for name, help in PLAIN.items():
        slurm.add_argument(f"--{name}", metavar="N" if name == "cpus-per-task" else name.upper(), help=help)
    slurm.add_argument("--sbatch", action="append", default=[], metavar="NAME=VALUE", help="another sbatch option; may be repeated")
    slurm.add_argument(
        "--setup", action="append", default=[], metavar="LINE", help="shell line that each task runs first, e.g. 'module load cuda'"
    )
    slurm.add_argument(
        "--env-file", type=Path, metavar="FILE", help="file of NAME=VALUE lines for the tasks, e.g. secrets; only you may read it"
    )
    slurm.add_argument("--logs", type=Path, metavar="FOLDER", help="folder for the script and the tasks' output (default ./slurm)")


def call(arguments: argparse.Namespace, storage: Path) -> int:
    settings, asked = training.run_settings(arguments), _asked(arguments)
    if not arguments.slurm:
        if flags := [*asked, *(name for name in ("dry_run", "local") if getattr(arguments, name))]:
            raise UserError(f"--{flags[0].replace('_', '-')} is a SLURM option; add --slurm")
        from service.cluster.job import submit

        if arguments.json and arguments.follow:
            raise UserError("--json does not go with --follow, which shows what the job prints")
        where = {"address": arguments.address, "follow": arguments.follow, "json": arguments.json}
        return submit(arguments.sweep, settings, arguments.storage, **where)
    for name, means in (("address", "names a Ray cluster"), ("follow", "shows a Ray job's output")):
        if getattr(arguments, name):
            raise UserError(f"--{name} {means}, but --slurm starts its own Ray in each task; use one or the other")
    from service.cluster import slurm

    tasks, at_once = asked.pop("tasks", (1, None))
    how = slurm.Slurm(tasks=tasks, at_once=at_once, **asked)
    if not (arguments.dry_run or arguments.local):
        return slurm.submit(arguments.sweep, settings, how, arguments.storage, json=arguments.json)
    if arguments.json:
        raise UserError("--json does not go with --dry-run or --local, which submit nothing")
    if arguments.dry_run:
        print(slurm.script(arguments.sweep, settings, how, arguments.storage), end="")
        return 0
    return slurm.run_here(arguments.sweep, settings, how, arguments.storage)


def _asked(arguments: argparse.Namespace) -> dict[str, Any]:
    """What was typed of SLURM's options, by the names of `Slurm`."""
    typed = {name: getattr(arguments, name) for name in (each.replace("-", "_") for each in ("tasks", *PLAIN, "env_file"))}
    typed |= {"folder": arguments.logs, "more": tuple(arguments.sbatch), "setup": tuple(arguments.setup)}
    return {field: value for field, value in typed.items() if value not in (None, ())}


def _tasks(text: str) -> tuple[int, int | None]:
    """`8%4`: eight tasks, of which four run at a time."""
    found = re.fullmatch(r"([1-9]\d{0,3})(?:%([1-9]\d{0,3}))?", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form 8 or 8%4")
    return int(found[1]), int(found[2]) if found[2] else None
