"""What the service costs beside the work: planning, the journal, trials of nothing much, short trials of real training, many points.

    python -m benchmarks.speed.orchestration [plan] [noop] [training] [points] --folder /tmp/somewhere

`noop`: a trial that computes nothing but sleeps `--seconds` and spools five points and a checkpoint mark, as bare work in one process
per core and through the service. `training`: the same short trials by run_stack in a loop, one process per core, and by `service run`.
`points`: the spools of 200 trials with 500 points each are shipped to an embedded MLflow while another process trains; in turn a tenth of
them is shipped, and for as long nothing is.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

from search_spaces.sweep import expand, load_sweep, override  # noqa: E402
from service.ledger import manifest  # noqa: E402
from service.ledger.ledger import Ledger  # noqa: E402
from service.ledger.manifest import Manifest  # noqa: E402
from service.planning.options import TrainingOptions  # noqa: E402
from service.planning.plan import make_plan  # noqa: E402
from service.planning.run_settings import RunSettings  # noqa: E402
from trainables.datasets.collect.record import record  # noqa: E402
from trainables.trial import Stack, Trial  # noqa: E402

HERE = Path(__file__).parent
CORES = len(os.sched_getaffinity(0))
POINTS = 5
ROUNDS = 10  # of shipping and not shipping
DATASET = "datasets=winnow/hopper/random-v0"


def rss() -> int:
    """The most memory that this process has had, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def on_cpu(*overrides: str) -> RunSettings:
    return RunSettings(overrides=overrides, options=TrainingOptions(device="cpu"))


def plan(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Plan and journal of 10,000 trials."""
    settings = on_cpu(DATASET, f"seeds={','.join(map(str, range(2500)))}", "sparsities=0.8,0.9,0.95")
    found: dict[str, Any] = {"rss_mb_before": rss()}
    cpu = time.process_time()
    found["plan_s"], planned = timed(lambda: make_plan("smoke", settings, storage=folder))
    found |= {"plan_cpu_s": round(time.process_time() - cpu, 2), "trials": len(planned.trials), "rss_mb_planned": rss()}
    journal = Manifest(folder, "smoke")
    found["journal_write_s"], _ = timed(lambda: journal.plan(planned.trials))
    for state in ("leased", "done"):
        for trial in planned.trials:
            journal.record(state, {trial.key: {"size": 1}})
    journal.close()
    cpu = time.process_time()
    found["journal_replay_s"], _ = timed(lambda: manifest.read(folder, "smoke"))
    found["journal_replay_cpu_s"] = round(time.process_time() - cpu, 2)
    found["plan_again_s"], _ = timed(lambda: make_plan("smoke", settings, storage=folder))
    return found | {"journal_events": 3 * len(planned.trials), "rss_mb": rss()}


def noop(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Trials that sleep and spool, bare and through Ray."""
    settings = (DATASET, f"seeds={','.join(map(str, range(arguments.trials)))}", "pruners=dense", "updates=50")
    trials = expand(override(load_sweep("smoke"), settings))
    bare, _ = timed(lambda: spread(partial(_bare_noop, folder / "bare", arguments.seconds), trials))
    command = [sys.executable, __file__, "_noop", "--folder", str(folder / "swept"), "--seconds", str(arguments.seconds)]
    command += ["--trials", str(arguments.trials)]
    swept, done = timed(lambda: subprocess.run(command, check=True, capture_output=True, text=True))
    inside = json.loads(done.stdout.splitlines()[-1])
    return {"trials": len(trials), "seconds_each": arguments.seconds, "bare_s": bare, "service_s": swept, **inside,
            "share": swept / bare - 1, "share_without_start": inside["trained_s"] / bare - 1}  # fmt: skip


def training(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Short trials of real training, bare and by `service run` in a new storage, by their length."""
    found: dict[str, Any] = {}
    for round_, updates in itertools.product(range(arguments.rounds), arguments.updates):
        settings = (DATASET, f"seeds={','.join(map(str, range(arguments.seeds)))}", f"updates={updates}", "sparsities=0.8,0.9,0.95")
        trials = expand(override(load_sweep("smoke"), settings))
        command = [
            sys.executable,
            "-m",
            "service",
            "run",
            "smoke",
            "--device",
            "cpu",
            "--storage",
            str(folder / f"swept-{updates}-{round_}"),
        ]
        command += [f"--set={setting}" for setting in settings]
        works = {
            "bare_s": partial(spread, partial(_bare_training, folder / f"bare-{updates}-{round_}"), trials),
            "service_s": partial(subprocess.run, command, check=True, stdout=subprocess.DEVNULL),
        }
        row = found.setdefault(str(updates), {"trials": len(trials), "bare_s": [], "service_s": [], "ratio": []})
        for name in sorted(works, reverse=round_ % 2 == 1):  # in turn, and who is first in turn
            row[name].append(timed(works[name])[0])
        row["ratio"].append(round(row["service_s"][-1] / row["bare_s"][-1], 3))
    return found


def points(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Points shipped per second, and what a trainer on the same machine does meanwhile and without."""
    from service.tracking.runs import Tracking
    from service.tracking.shipping.shipper import Shipper

    journal = Manifest(folder, "smoke")
    trials = _spooled(folder, journal, arguments.spools)
    tracking = Tracking(folder)
    tracking.parent_run("smoke")  # the database is made
    found = {"trials": len(trials), "points": 0, "driver_rss_mb_before": rss()}
    context = multiprocessing.get_context("spawn")
    updates = context.Value("q", 0)
    trainer = context.Process(target=_train, args=(updates, trials[0]), daemon=True)
    trainer.start()
    while updates.value < 1000:  # it has warmed up
        time.sleep(0.1)
    rates: dict[str, list[float]] = {"points_per_second": [], "updates_per_second_shipping": [], "updates_per_second_alone": []}
    for start in range(0, len(trials), len(trials) // ROUNDS):
        ledger = Ledger()
        ledger.entries = {trial.key: journal.ledger.entries[trial.key] for trial in trials[start : start + len(trials) // ROUNDS]}
        shipper = Shipper(folder, "smoke", ledger, tracking)
        begun, before = time.monotonic(), updates.value
        shipped = shipper.ship()
        seconds, after = time.monotonic() - begun, updates.value
        time.sleep(seconds)
        found["points"] += shipped
        rates["points_per_second"].append(shipped / seconds)
        rates["updates_per_second_shipping"].append((after - before) / seconds)
        rates["updates_per_second_alone"].append((updates.value - after) / seconds)
    trainer.kill()
    trainer.join()
    journal.close()
    return found | {"driver_rss_mb": rss(), **{name: [round(rate) for rate in each] for name, each in rates.items()}}


def _spooled(folder: Path, journal: Manifest, count: int) -> tuple[Trial, ...]:
    """Trials that are done, with 100 reports of four losses and their speed each."""
    from service.spool.writer import StackSpool
    from trainables.reports import Finished, Trained

    trials = make_plan("smoke", on_cpu(DATASET, f"seeds={','.join(map(str, range(count)))}", "pruners=dense"), storage=folder).trials
    journal.plan(trials)
    journal.record("leased", {trial.key: {"size": 1} for trial in trials})
    for trial in trials:
        spool = StackSpool(Stack((trial,)), folder, {trial.dataset: {}}, trial.updates)
        for report in range(100):
            spool(Trained(trial.updates * (report + 1) // 100, [{f"train/loss_{name}": 1 / (report + 1) for name in "abcd"}], 1.0))
        spool(Finished(trial.updates, 1.0, "none"))
        spool.close()
    journal.record("done", {trial.key: {"size": 1} for trial in trials})
    return trials


def _train(updates: Any, trial: Trial) -> None:
    """Updates of two networks of 256 at 95 %, without end, counted."""
    from trainables.reports import Trained
    from trainables.run import run_stack

    endless = replace(trial, algorithm="td3_bc", pruner="random_erk", sparsity=0.95, updates=10_000_000, evaluations=1)
    for report in run_stack(Stack((endless,)), checkpoint_every=50):
        if isinstance(report, Trained):
            updates.value = report.update


def noop_stack(seconds: float, stack: Stack, storage: Path, **options: Any) -> Any:
    """What run_stack yields, without the training: sleeps, and reports as a trial of POINTS reports would."""
    from trainables.reports import Checkpointed, Finished, Trained

    updates = stack.lead.updates
    for point in range(POINTS):
        time.sleep(seconds / POINTS * len(stack))
        yield Trained(updates * (point + 1) // POINTS, [{"train/loss": 1.0}] * len(stack), 1.0)
    yield Checkpointed(updates)
    yield Finished(updates, seconds, "none")


def _noop(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """The service's own session over no-op trials; only the work of a trial is exchanged."""
    from service.driving.session import Session
    from service.driving.workers.listener import Fenced

    settings = on_cpu(DATASET, f"seeds={','.join(map(str, range(arguments.trials)))}", "pruners=dense", "updates=50")
    session = Session(make_plan("smoke", settings, storage=folder), folder)
    listen = partial(Fenced, permit=session.permit, origin={DATASET.partition("=")[2]: {}}, checkpoint_every=50)
    with session:
        session.driver.prepare()
        started = time.monotonic()
        session.train(listen, partial(noop_stack, arguments.seconds))
        trained = time.monotonic() - started
        assert session.driver.exit_code() == 0
        session._shipping.finish(600)
    return {"trained_s": trained, "driver_rss_mb": rss()}


def spread(work: Callable[[Iterable[Trial]], None], trials: tuple[Trial, ...]) -> None:
    """The bare work in one process per core, each taking the next trial when it is done with one."""
    context = multiprocessing.get_context("spawn")
    queue: Any = context.Queue()
    for trial in (*trials, *[None] * CORES):
        queue.put(trial)
    processes = [context.Process(target=_drain, args=(work, queue)) for _ in range(CORES)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0


def _drain(work: Callable[[Iterable[Trial]], None], queue: Any) -> None:
    work(iter(queue.get, None))


def _bare_noop(folder: Path, seconds: float, trials: Iterable[Trial]) -> None:
    from service.spool.writer import StackSpool

    folder.mkdir(parents=True, exist_ok=True)
    for trial in trials:
        listener = StackSpool(Stack((trial,)), folder, {trial.dataset: {}}, trial.updates)
        for report in noop_stack(seconds, Stack((trial,)), folder):
            listener(report)
        listener.close()


def _bare_training(folder: Path, trials: Iterable[Trial]) -> None:
    from service.spool.writer import StackSpool
    from trainables.run import run_stack

    folder.mkdir(parents=True, exist_ok=True)
    for trial in trials:
        listener = StackSpool(Stack((trial,)), folder, {trial.dataset: {}}, 5000)
        for report in run_stack(Stack((trial,)), folder):
            listener(report)
        listener.close()


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.monotonic()
    result = work()
    return round(time.monotonic() - started, 2), result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["plan", "noop", "training", "points"])
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--seeds", type=int, default=10, help="of 4 trials each")
    parser.add_argument("--updates", type=int, nargs="+", default=[2_000, 10_000], help="lengths of the trials")
    parser.add_argument("--rounds", type=int, default=2, help="of short trials")
    parser.add_argument("--spools", type=int, default=200, help="of 500 points each")
    arguments = parser.parse_args()
    if arguments.parts[0].startswith("_"):
        print(json.dumps(globals()[arguments.parts[0]](arguments.folder, arguments)))
        return
    record(DATASET.partition("=")[2])  # one that is here is kept
    file = HERE / "orchestration.json"
    found = json.loads(file.read_text()) if file.exists() else {}
    load = f"{os.getloadavg()[0]:.1f} processes wanted to run beside this program"
    found["machine"] = f"{CORES} cores, {platform.machine()}, Python {platform.python_version()}; {load}"
    for part in arguments.parts:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            found[part] = found.get(part, {}) | globals()[part](Path(folder), arguments)  # lengths measured before stay
        print(part, json.dumps(found[part], indent=1), flush=True)
        file.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
