"""`submit --slurm`: a sweep as a job array of SLURM. Each task runs a driver of its own with an embedded Ray, so no task meets another's
Ray, nor another user's; the storage's leases keep them apart (docs/decisions/035-slurm.md)."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from search_spaces.sweep import expand, load_sweep, override
from service.cluster.handed_on import environment, refuse_secrets
from service.planning import devices
from service.planning.provenance import ROOT
from service.planning.run_settings import RunSettings
from service.terminal import clock
from service.terminal.redaction import holds_secret, redact
from trainables import project
from trainables.errors import UserError
from trainables.output import to_json

SHOWN = "which SLURM shows and stores"
# SLURM sends the warning up to a minute early, and a driver leaves within seconds; the rest is for slow storages.
NOTICE = 120  # seconds between the warning and the time limit
SHORTEST = 5  # minutes: less would be spent on starting and leaving
DEFAULTS = ("partition", "time", "gres", "account", "qos", "mem", "cpus_per_task", "constraint")  # sbatch's own names
OURS = ("array", "export", "job-name", "output", "open-mode", "requeue", "no-requeue", "signal", "nodes", "ntasks", "error", "wrap")
_TIME = r"\d+|\d+:\d\d|\d+:\d\d:\d\d|\d+-\d+(:\d\d(:\d\d)?)?"

SCRIPT = """\
#!/bin/bash
# {title}
# Written by `winnow submit --slurm`. Task 0 runs the sweep; each other task trains trials that no other has, and ends when none are left.
{directives}

secrets() {{ # NAME=VALUE lines, each value as it stands: it may hold $, & or spaces
  local line value
  while IFS= read -r line || [ -n "$line" ]; do
    line=${{line%$'\\r'}}
    [[ $line =~ ^[A-Za-z_][A-Za-z0-9_]*= ]] || continue
    value=${{line#*=}}
    case $value in \\"*\\" | \\'*\\') value=${{value:1:-1}} ;; esac
    export "${{line%%=*}}=$value"
  done < "$1"
}}

cd {folder} || exit 2

# SLURM warns this shell before the time limit: the driver has its workers commit and leaves, and the task goes back to the queue.
limit= driver=
warn() {{ [ -z "$driver" ] || kill -USR1 "$driver" 2>/dev/null; }}
trap 'limit=near; warn' USR1

{setup}
unset RAY_ADDRESS # each task starts a Ray of its own, with its own ports, token and folder

sweep={sweep}
[ "${{SLURM_ARRAY_TASK_ID:-0}}" = 0 ] || sweep="$sweep.part$SLURM_ARRAY_TASK_ID"

# scancel, a preemption: the driver leaves at once, and whether the task runs again is SLURM's decision.
trap 'kill -TERM "$driver" 2>/dev/null' TERM
trap : INT # Ctrl-C with --local: the terminal sends it to the driver, too, and two signals would make it hurry
{command} &
driver=$!
[ -z "$limit" ] || {{ sleep 1; warn; }} # it came before that; a process that has only just begun may lose it
while wait "$driver"; code=$?; kill -0 "$driver" 2>/dev/null; do :; done

if [ -n "$limit" ] && [ "$code" != 0 ]; then
  echo "the time limit is near: this task is requeued and continues from its checkpoints"
  trap '' TERM # with which SLURM ends what it requeues, scontrol included
  scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}" && exit 0
  echo "it could not be requeued; submit again to continue"
fi
exit "$code"
"""


@dataclass(frozen=True, kw_only=True)
class Slurm:
    """What is asked of SLURM; None: its own default.

    `more`: further options of sbatch, e.g. `mail-type=END`. `setup`: shell before the sweep, e.g. `module load cuda`. `env_file`: a private
    file with secrets, read by the tasks. `folder`: of the script and the logs.

    Raises UserError for a value that makes no sense."""

    tasks: int = 1
    at_once: int | None = None  # tasks that run at a time, at most
    partition: str | None = None
    time: str | None = None
    gres: str | None = None
    account: str | None = None
    qos: str | None = None
    mem: str | None = None
    cpus_per_task: str | None = None
    constraint: str | None = None
    more: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    env_file: Path | None = None
    folder: Path = Path("slurm")

    def __post_init__(self) -> None:
        if self.time is not None and (not re.fullmatch(_TIME, self.time) or minutes(self.time) < SHORTEST):
            raise UserError(f"--time {self.time!r} is not a SLURM time of {SHORTEST} minutes or more, e.g. 90, 4:00:00 or 2-12")
        given = {name: getattr(self, name) for name in DEFAULTS if getattr(self, name) is not None}
        for name, value in given.items():
            if not re.fullmatch(r"[^\s'\"\\]+", value):
                raise UserError(f"--{name.replace('_', '-')} {value!r} is empty or holds a space, a quote or a backslash")
        for each in self.more:
            if not (found := re.fullmatch(r"([a-z][a-z-]*)(=[^\s'\"\\]+)?", each)):
                raise UserError(f"--sbatch {each!r} is not of the form NAME or NAME=VALUE, without spaces, e.g. mail-type=END")
            if found[1] in (*OURS, *(name.replace("_", "-") for name in DEFAULTS)):
                raise UserError(f"--sbatch {each!r}: {found[1]} is set by `submit --slurm` itself, or has an option of its own there")
        for text in (*given.values(), *self.more, *self.setup):
            if holds_secret(text):
                raise UserError(f"{redact(text)!r} holds a secret, {SHOWN}; put it into a file for --env-file")
        if any("\n" in line or not line.strip() for line in self.setup):
            raise UserError("--setup takes one line of shell, which is not empty")
        if str(self.folder) != shlex.quote(str(self.folder)) or "%" in str(self.folder):
            raise UserError(f"--logs {str(self.folder)!r} holds a space or another character that SLURM or a shell would read")
        if re.search(r"[\s'\"\\%#]", whole := str(self.folder.absolute())):  # which stands in the script
            raise UserError(f"--logs {str(self.folder)!r} is {whole!r} here, which SLURM cannot take; give a folder without spaces or %")
        if self.env_file is not None:
            _refuse_open(self.env_file)

    def directives(self, name: str) -> list[str]:
        """The lines that sbatch reads."""
        limit = f"%{self.at_once}" if self.at_once else ""
        options = {
            "job-name": job_name(name), "array": f"0-{self.tasks - 1}{limit}", "output": f"{self.folder.absolute()}/%x-%A_%a.log",
            "nodes": "1", "ntasks": "1",
            **{each.replace("_", "-"): getattr(self, each) for each in DEFAULTS if getattr(self, each) is not None},
            "signal": f"B:USR1@{NOTICE}",  # to this shell alone
            "open-mode": "append",  # a requeued task continues its log
            "export": "NONE",  # nothing of the environment in which this was submitted: it may hold secrets
        }  # fmt: skip
        return [f"#SBATCH --{each}" for each in (*(f"{key}={value}" for key, value in options.items()), "requeue", *self.more)]


def script(name: str, settings: RunSettings, slurm: Slurm, storage: str | None = None) -> str:
    """The batch script of a sweep. Raises UserError for bad input, and for a secret that would stand in it."""
    sweep = override(load_sweep(name), settings.overrides)
    expand(sweep)
    if slurm.tasks > 1 and (sweep.search or settings.fresh):
        why = "an adaptive sweep" if sweep.search else "a sweep with --fresh"
        raise UserError(
            f"{why} has one driver, so --tasks {slurm.tasks} is more than the 1 that it can use; give that one more CPUs or GPUs"
        )
    if (until := settings.options.until) is not None:  # the nodes' clocks may be in another zone
        settings = replace(settings, options=replace(settings.options, until=clock.with_zone(until)))
    refuse_secrets(settings, storage, SHOWN, "the file of --env-file")
    told = environment(SHOWN, "the file of --env-file")
    if not (clone := (ROOT / "pyproject.toml").exists()):
        del told["WINNOW_REVISION"]
    if folder := project.root():
        told[project.VARIABLE] = str(folder)
    cpus = [] if settings.options.max_concurrent else ['--max-concurrent="$SLURM_CPUS_ON_NODE"']
    words = shlex.join([*settings.words(), *([f"--storage={storage}"] if storage else [])])
    command = " ".join([shlex.quote(sys.executable), "-m", "winnow", "run", '"$sweep"', *cpus, *([words] if words else [])])
    setup = [*slurm.setup, *(f"export {key}={shlex.quote(value)}" for key, value in told.items())]
    if clone:
        setup.append(f'export PYTHONPATH={shlex.quote(str(ROOT))}"${{PYTHONPATH:+:$PYTHONPATH}}"')
    if slurm.env_file is not None:
        setup.append(f"secrets {shlex.quote(str(slurm.env_file.absolute()))}")
    return SCRIPT.format(
        title=f"Sweep {name} in {slurm.tasks} task{'s' * (slurm.tasks > 1)}" + (f", of the clone {ROOT}" if clone else ""),
        directives="\n".join(slurm.directives(name)), folder=shlex.quote(str(Path.cwd())), setup="\n".join(setup),
        sweep=shlex.quote(project.typed(name)), command=command,
    )  # fmt: skip


def submit(name: str, settings: RunSettings, slurm: Slurm, storage: str | None = None, *, json: bool = False) -> int:
    """Write the batch script and submit it; prints how to watch and end it. Raises UserError where it is refused."""
    text = script(name, settings, slurm, storage)
    if shutil.which("sbatch") is None:
        raise UserError("no sbatch here; submit on a host of the cluster, or try the script here with --local")
    if running := _running(job_name(name)):
        raise UserError(f"SLURM has job {', '.join(running)} of sweep {name!r} already, and one trains it; `scancel {running[0]}` ends it")
    file = _written(name, text, slurm.folder)
    # Of the environment, sbatch takes options, too, which would change what the script says.
    plain = {key: value for key, value in os.environ.items() if not key.startswith("SBATCH_")}
    done = subprocess.run(["sbatch", "--parsable", str(file)], capture_output=True, text=True, check=False, env=plain)
    if done.returncode or not (id := done.stdout.strip().partition(";")[0]):
        raise UserError(f"sbatch refused {file}: {redact((done.stderr.strip().splitlines() or ['without a reason'])[-1])}")
    output, end = f"tail -F {slurm.folder}/{job_name(name)}-{id}_0.log", f"scancel {id}"
    if json:
        print(to_json({"job": id, "script": str(file), "output": output, "end": end}))
        return 0
    print(f"job {id} submitted, of {file}; its output: {output}\nend it: {end}", flush=True)
    if slurm.tasks > 1 and not os.environ.get("MLFLOW_TRACKING_URI"):
        print("note: several hosts should not share MLflow's SQLite file; MLFLOW_TRACKING_URI names a server (docs/cluster.md)", flush=True)
    return 0


def run_here(name: str, settings: RunSettings, slurm: Slurm, storage: str | None = None) -> int:
    """Run the script's tasks on this host at once, without SLURM and its limits; returns the first exit code that is not 0."""
    file = _written(name, script(name, settings, slurm, storage), slurm.folder)
    cpus = str(max(1, devices.cores() // slurm.tasks))
    given = {"SLURM_JOB_ID": "local", "SLURM_ARRAY_JOB_ID": "local", "SLURM_CPUS_ON_NODE": slurm.cpus_per_task or cpus}
    tasks = [
        subprocess.Popen(["bash", str(file)], env={**os.environ, **given, "SLURM_ARRAY_TASK_ID": str(task)}) for task in range(slurm.tasks)
    ]
    try:
        codes = [task.wait() for task in tasks]
    except KeyboardInterrupt:  # the terminal has sent it to the tasks, too
        codes = [task.wait() for task in tasks]
    return next((code for code in codes if code), 0)


def minutes(time: str) -> float:
    """The minutes of a time as SLURM writes it: `90`, `4:00:00`, `2-12`, `30:00`."""
    days, _, rest = time.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if days:
        hours, *parts = parts
        return int(days) * 1440 + hours * 60 + _sum(parts, (1, 1 / 60))
    return _sum(parts, (60, 1, 1 / 60) if len(parts) == 3 else (1, 1 / 60))


def _sum(parts: Sequence[int], worth: Sequence[float]) -> float:
    return sum(part * each for part, each in zip(parts, worth, strict=False))


def job_name(name: str) -> str:
    """What squeue shows."""
    return f"winnow-{name}"


def _running(job: str) -> list[str]:
    """The ids, of arrays as a whole, of this user's jobs of that name that wait or run; none where squeue does not say."""
    try:
        done = subprocess.run(["squeue", "--me", "--noheader", f"--name={job}", "--format=%F"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    return list(dict.fromkeys(done.stdout.split()))


def _written(name: str, text: str, folder: Path) -> Path:
    """The script in the folder that the logs come to, which has to exist before SLURM writes them."""
    file = folder.absolute() / f"{job_name(name)}.sh"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    except OSError as error:
        raise UserError(f"{file} cannot be written ({error.strerror}); --logs names another folder") from None
    return file


def _refuse_open(file: Path) -> None:
    """Raise UserError for a file with secrets that is not there, that others may read, or that has other lines than NAME=VALUE."""
    try:
        mode = file.stat()
    except OSError as error:
        raise UserError(f"--env-file {file} cannot be read ({error.strerror})") from None
    if mode.st_mode & 0o077 or mode.st_uid not in (os.geteuid(), 0):
        raise UserError(f"--env-file {file} can be read by others; `chmod 600 {shlex.quote(str(file))}` makes it private")
    for number, line in enumerate(file.read_text(errors="replace").splitlines(), 1):
        if line.strip() and not line.startswith("#") and not re.match(r"[A-Za-z_][A-Za-z0-9_]*=", line):
            raise UserError(f"line {number} of --env-file {file} is not of the form NAME=VALUE, e.g. AWS_SECRET_ACCESS_KEY=...")
