"""What a trial costs the service in sweeps of 500 to 10,000 trials, and what the commands take that look at such a sweep or remove it.

    python -m benchmarks.speed.scale [sweep] [restart] [commands] [mlflow] [forget] --trials 500 2000 10000 --folder /somewhere

The trials do nothing, so that what they cost is the service: one trial (10 updates of BC with two hidden layers of 32, an evaluation of an
episode) is trained first, and each trial reports what that one did and writes its files. Everything else is as in any sweep: five seeds of
each cell, stacks of four, an embedded Ray, claims, spools, journal, and MLflow on an sqlite file in the storage.

`sweep`: from an empty storage. What a trial costs is taken in tenths of the sweep, from the journal's times and the driver's
processor time, so that a cost that grows with the number of trials shows. `restart`: `winnow run` of it, with all trials done, and with
the second half of them not begun. `commands`: those that read the whole sweep. `mlflow`: `sync` into the empty MLflow of `--mlflow`
and `verify`, with the SQL statements that they make where that is a database. `forget`: `du` and `forget`.

`sweep` leaves the storage <folder>/<trials>, which the other parts need; `forget` removes its trials.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from bisect import bisect
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from service.__main__ import main as winnow
from service.driving.session import Session
from service.driving.workers.listener import Fenced
from service.ledger import manifest
from service.planning.options import TrainingOptions
from service.planning.plan import make_plan
from service.planning.provenance import origins
from service.planning.run_settings import RunSettings
from service.storage import paths
from trainables import project
from trainables.datasets.collect.record import record
from trainables.trial import Stack, Trial

HERE = Path(__file__).parent
DATASET = "winnow/hopper/random-v0"
SEEDS, PRUNERS = 5, ("snip", "random_erk", "random_uniform", "magnitude")
NAME = "scale"
FILE = """from search_spaces.sweep import Sweep

SWEEP = Sweep(
    datasets=({dataset!r},), algorithms=("bc",), pruners={pruners}, sparsities={sparsities}, seeds=tuple(range({seeds})),
    updates=10, evaluations=1, episodes=1, hyper={{"hidden": ((32, 32),)}},
)
"""
READING = (["status"], ["status", "--json"], ["plan"], ["show"], ["list"], ["results"], ["verify"])
SAMPLE = 1.0  # seconds between two looks at the driver
TENTHS = 10
WAIT = 600.0  # seconds for a driver that begins again


def sweep(storage: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run it, and look at the driver meanwhile."""
    found: dict[str, Any] = json.loads(_program("_run", storage).stdout.splitlines()[-1])
    ledger = manifest.read(storage, NAME)
    assert {entry.state for entry in ledger.entries.values()} == {"done"}
    samples = found.pop("samples")
    ends = sorted(entry.events[-1].time for entry in ledger.entries.values())
    begun = min(event.time for entry in ledger.entries.values() for event in entry.events if event.state == "leased")
    marks = [begun, *(ends[len(ends) * part // TENTHS - 1] for part in range(1, TENTHS + 1))]
    each = len(ends) / TENTHS
    spent = {name: [_at(samples, name, mark) for mark in marks] for name in ("cpu", "main", "shipper", "rss")}
    per_trial = {"ms": marks, **{f"{name}_ms": spent[name] for name in ("cpu", "main", "shipper")}}
    return found | {
        "trials": len(ends),
        "training_s": ends[-1] - begun,
        **{name: [round(1000 * (b - a) / each, 2) for a, b in pairwise(values)] for name, values in per_trial.items()},
        "rss_mb": [round(value) for value in spent["rss"]],
    }


def restart(storage: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Where all is done, until the command ends; else until the first stack is handed out."""
    found: dict[str, Any] = {"all_done": _timed("run", storage)}
    with tempfile.TemporaryDirectory(dir=storage.parent) as folder:
        half = Path(folder) / storage.name
        _halve(storage, half)
        _timed("list", half)  # a storage that was moved has its MLflow mended by the first command, which is not what is measured
        before = manifest.read(half, NAME).epoch
        begun = time.time()
        driver = subprocess.Popen(_words("run", half), start_new_session=True, stdout=subprocess.DEVNULL, env=_environment())
        try:
            found["half_done"] = {"s": round(_first_lease(half, before) - begun, 2)}
        finally:
            cpu = _cpu_of(driver.pid)
            os.kill(driver.pid, signal.SIGINT)
            driver.wait(WAIT)
        found["half_done"]["cpu_s"] = cpu
    return found


def commands(storage: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    return {" ".join(words): _timed(words[0], storage, *words[1:]) for words in READING}


def mlflow(storage: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Into the MLflow of `--mlflow`, which must be empty: cursors name the MLflow they are for, and everything is shipped there anew."""
    if not arguments.mlflow:
        raise SystemExit("mlflow: which one? --mlflow postgresql://...")
    where = {"MLFLOW_TRACKING_URI": arguments.mlflow}
    return {name: json.loads(_program(f"_{name}", storage, **where).stdout.splitlines()[-1]) for name in ("sync", "verify")}


def forget(storage: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    return {" ".join(words): _timed(words[0], storage, *words[1:]) for words in (["du"], ["forget"], ["forget", "--yes"])}


def _run(storage: Path) -> dict[str, Any]:
    """The driver itself, with its processor time and memory by the second."""
    samples: list[dict[str, float]] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(SAMPLE):
            threads = {thread.name: thread.ident for thread in threading.enumerate() if thread.ident}
            clocks = {
                name: time.clock_gettime(time.pthread_getcpuclockid(threads[name])) for name in ("MainThread", "shipper") if name in threads
            }
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            samples.append({
                "time": time.time(), "cpu": time.process_time(), "main": clocks.get("MainThread", 0.0),
                "shipper": clocks.get("shipper", 0.0), "rss": pages * resource.getpagesize() / 2**20,
            })  # fmt: skip

    os.environ[project.GIVEN] = str(_file(storage))
    plan = make_plan(NAME, RunSettings(options=TrainingOptions(device="cpu")), storage=storage)
    with tempfile.TemporaryDirectory() as folder:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as apart:  # it imports torch, which no driver does
            reports = apart.submit(_trained, plan.trials[0], Path(folder)).result()
        written = paths.trial(Path(folder), plan.trials[0].key)
        threading.Thread(target=look, daemon=True).start()
        begun = time.monotonic()
        session = Session(plan, storage)
        listen = partial(Fenced, permit=session.permit, origin=origins((DATASET,)), checkpoint_every=plan.settings.options.checkpoint_every)
        with session:
            session.driver.prepare()
            session.train(listen, partial(_nothing, reports, written))
            trained = time.monotonic() - begun
            assert session.show()
    over.set()
    assert session.driver.exit_code() == 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "wall_s": time.monotonic() - begun,
        "until_trained_s": trained,
        "cpu_s": time.process_time(),
        "most_rss_mb": most,
        "samples": samples,
    }


def _trained(trial: Trial, folder: Path) -> list[Any]:
    """The reports of a trial."""
    from trainables.run import run_stack

    return list(run_stack(Stack((trial,)), folder))


def _nothing(reports: Sequence[Any], written: Path, stack: Stack, storage: Path, **options: Any) -> Iterator[Any]:
    """What run_stack has yielded and written of one trial, for each of a stack's."""
    for trial in stack.trials:
        shutil.copytree(written, paths.trial(storage, trial.key), dirs_exist_ok=True)
        paths.trial_json(storage, trial.key).write_text(json.dumps(trial.to_json()))
    for report in reports:
        lists = {name: value * len(stack) for name, value in vars(report).items() if isinstance(value, list)}
        yield replace(report, **lists)


def _counted(words: Sequence[str]) -> dict[str, Any]:
    """A command in this process, with the SQL statements that it makes."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    statements = [0]

    @event.listens_for(Engine, "before_cursor_execute")
    def count(*arguments: Any) -> None:
        statements[0] += 1

    begun, cpu = time.monotonic(), time.process_time()
    code = winnow(words)
    return {"s": time.monotonic() - begun, "cpu_s": time.process_time() - cpu, "statements": statements[0], "code": code}


def _halve(storage: Path, half: Path) -> None:
    """A copy of the storage in which the second half of the trials is planned and not begun."""
    ledger = manifest.read(storage, NAME)
    keys = list(ledger.entries)
    later = set(keys[len(keys) // 2 :])
    aside = {paths.ray_results(storage).name, paths.mlflow_artifacts(storage).name}
    shutil.copytree(
        storage, half, ignore=lambda folder, names: [name for name in names if name in later or (Path(folder) == storage and name in aside)]
    )
    journal = paths.manifest(half, NAME)
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines if line["key"] not in later or line["state"] == "planned"))


def _first_lease(storage: Path, after: int) -> float:
    """When a driver of a later epoch hands out its first trial."""
    journal, until = paths.manifest(storage, NAME), time.monotonic() + WAIT
    read = journal.stat().st_size
    while time.monotonic() < until:
        new = journal.read_bytes()[read:]
        new = new[: new.rfind(b"\n") + 1]
        read += len(new)
        for event in map(json.loads, new.splitlines()):
            if event["epoch"] > after and event["state"] == "leased":
                return float(event["time"])
        time.sleep(0.05)
    raise TimeoutError(f"no trial was handed out in {WAIT} s")


def _cpu_of(pid: int) -> float:
    """The processor time of a process without its children, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return round((int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), 2)


def _at(samples: Sequence[Mapping[str, float]], name: str, when: float) -> float:
    """What the samples say at a time, or at the nearest before it."""
    place = bisect([sample["time"] for sample in samples], when)
    return samples[max(0, place - 1)][name]


def _file(storage: Path) -> Path:
    """The sweep's file beside a storage, whose name is the number of trials."""
    folder = storage.with_suffix(".sweep")
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{NAME}.py"
    if not file.exists():
        count = int(storage.name) // (SEEDS * len(PRUNERS))
        sparsities = tuple(round(0.3 + 0.6 * number / count, 4) for number in range(count))
        file.write_text(FILE.format(dataset=DATASET, pruners=PRUNERS, sparsities=sparsities, seeds=SEEDS))
    return file


def _words(command: str, storage: Path, *more: str) -> list[str]:
    which = [] if command in ("list", "du") else [NAME if command == "forget" else str(_file(storage))]
    device = ["--device=cpu"] if command in ("run", "plan") else []
    return [sys.executable, "-m", "service", command, *which, *more, *device, f"--storage={storage}"]


def _timed(command: str, storage: Path, *more: str) -> dict[str, Any]:
    """A command, with its seconds and its processor time."""
    begun, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    code = subprocess.run(_words(command, storage, *more), stdout=subprocess.DEVNULL, env=_environment()).returncode
    seconds, after = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"s": round(seconds, 2), "cpu_s": round(cpu, 2), "code": code}


def _program(part: str, storage: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.speed.scale", part, f"--folder={storage.parent}", f"--trials={storage.name}"]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=_environment() | environment)


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["sweep", "restart", "commands", "forget"])
    parser.add_argument("--trials", type=int, nargs="+", default=[500, 2_000, 10_000], help="sizes of the sweeps")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "winnow-scale", help="of the storages")
    parser.add_argument("--mlflow", default="", help="address of an empty MLflow for the part `mlflow`")
    arguments = parser.parse_args()
    (part, *_), storage = arguments.parts, arguments.folder / str(arguments.trials[0])
    if part.startswith("_"):
        words = [part[1:], str(_file(storage)), f"--storage={storage}"]
        print(json.dumps(_run(storage) if part == "_run" else _counted(words)))
        return
    record(DATASET)  # one that is here is kept
    file = HERE / "scale.json"
    found = json.loads(file.read_text()) if file.exists() else {}
    found["machine"] = f"{len(os.sched_getaffinity(0))} cores, {platform.machine()}, Python {platform.python_version()}"
    for trials in arguments.trials:
        for name in arguments.parts:
            load = os.getloadavg()[0]
            row = globals()[name](arguments.folder / str(trials), arguments) | {"load": round(load, 1)}
            found.setdefault(name, {})[str(trials)] = row
            print(trials, name, json.dumps(row, indent=1), flush=True)
            file.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
