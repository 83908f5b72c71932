"""`service run`: plan, check, train, ship, show. Running a sweep is always run-or-resume."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from service.driver import Driver
from service.manifest import Manifest
from service.packing import pack
from service.plan import STACK_SIZE, describe, make_plan, progress_of
from service.progress import Display
from service.results import show
from service.shipper import Shipper, ShipperThread
from service.spool import StackSpool
from service.tracking import Tracking
from trainables import datasets, environments
from trainables.errors import UserError
from trainables.trial import Trial

CHECKPOINT_EVERY = 5_000  # updates
PATIENCE = 60.0  # seconds that the end of a run waits for MLflow
HURRY = 2.0  # the same where a signal ended it
PACKAGES = ("trainables", "search_spaces", "service")
INTERRUPTED = 130  # exit code, a shell's for Ctrl-C


def run(
    name: str,
    settings: Sequence[str] = (),
    *,
    storage: Path,
    device: str = "auto",
    size: int | None = None,
    retry: bool = False,
    **options: Any,
) -> int:
    """Run what is not done of a sweep; returns the exit code: 0 all done, 1 some trial is not, 130 interrupted.

    `options` go to run_stack (execution, checkpoint_every). Raises UserError for bad input, before anything is started or written.
    """
    plan = make_plan(name, settings, storage=storage, device=device, size=size, retry=retry)
    origin = origins(plan.todo)
    print(describe(replace(plan, absent=())), flush=True)
    journal, tracking = Manifest(storage, name), Tracking(storage)
    driver = Driver(plan, journal, storage)
    shipping = ShipperThread(Shipper(storage, name, journal.ledger, tracking).ship)
    try:
        driver.prepare()
        if plan.todo:
            options = {"checkpoint_every": CHECKPOINT_EVERY} | options
            listen = partial(StackSpool, origin=origin, checkpoint_every=options["checkpoint_every"])
            train(driver, storage, listen, device, size, **options)
    finally:
        driver.leave()
        shipped = shipping.finish(HURRY if driver.interrupted else PATIENCE)
        journal.close()
    if driver.interrupted:
        print(f"interrupted; `python -m service run {name}` goes on from the checkpoints")
        return INTERRUPTED
    if shipped:
        show(name, plan.trials, tracking, storage)
    else:
        print(f"MLflow did not take everything ({shipping.trouble}); nothing is lost, `python -m service sync {name}` ships the rest")
    return driver.exit_code()


def train(driver: Driver, storage: Path, listen: Callable[..., Any], device: str, size: int | None, **options: Any) -> None:
    """Rounds of training until nothing is left to do or to try again; `driver.interrupted` says whether a signal ended it."""
    from service.cluster import connect  # imports ray

    try:
        with connect(device) as cluster:
            driver.device = cluster.device
            todo, most = driver.plan.todo, size or STACK_SIZE[cluster.device]
            while todo and not driver.interrupted:
                progress = progress_of(storage, todo)
                driver.resume_from(progress)
                stacks = pack(todo, most, progress)
                driver.interrupted = not cluster.train(driver.plan.name, stacks, storage, listen, driver, **options)
                todo, most = driver.again()
    except KeyboardInterrupt:
        driver.interrupted = True


def origins(trials: Sequence[Trial]) -> dict[str, dict[str, str]]:
    """Where each dataset's numbers come from, as text for the spool; absent datasets are recorded or downloaded first.

    Raises UserError for a dataset that cannot be had or read, or whose shapes are not those of its environment.
    """
    found: dict[str, dict[str, str]] = {}
    code = revision()
    for id in dict.fromkeys(trial.dataset for trial in trials):
        if not datasets.exists(id) and id.startswith(datasets.OURS):
            record(id)
        table = datasets.load_table(id)
        check_fit(table)
        if table.note:
            print(f"note: {id}: {table.note}", file=sys.stderr)
        score = table.reference.normalize(float(table.episode_returns.mean()))
        found[id] = {"dataset_hash": table.hash, "reference": table.reference.source, "revision": code}
        if table.reference.known:
            found[id]["dataset_score"] = f"{score:.2f}"
    return found


def record(dataset: str) -> None:
    """Record one of our own datasets, with a progress line."""
    from trainables.datasets.collect.record import record as play

    print(f"{dataset} is not here yet: recording it", flush=True)
    display = Display()
    play(dataset, progress=lambda done, total: display.show(f"{done:,} of {total:,} transitions", last=done == total))


def check_fit(table: Any) -> None:
    """Raise UserError where a table's observations or actions are not of its environment's sizes."""
    env = environments.make(table.environment)
    sizes = tuple(int(space.shape[0]) for space in (env.observation_space, env.action_space))
    env.close()
    if sizes != (table.observation_size, table.action_size):
        own = (table.observation_size, table.action_size)
        raise UserError(
            f"dataset {table.dataset!r} has observations and actions of sizes {own}, its environment {table.environment} of {sizes}"
        )


def revision() -> str:
    """The code's git commit, `-dirty` with changes that are not committed; $WINNOW_REVISION where that is set.

    Without git, as in the copy that a submitted job runs, `source-` and a hash of the packages' files.
    """
    folder = Path(__file__).parent
    found = os.environ.get("WINNOW_REVISION", "")
    if not found and shutil.which("git"):
        command = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
        found = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False).stdout.strip()
    if not found:
        files = sorted(path for name in PACKAGES for path in (folder.parent / name).rglob("*.py"))
        found = f"source-{hashlib.sha256(b''.join(path.read_bytes() for path in files)).hexdigest()[:12]}"
    return found
