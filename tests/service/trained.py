"""Sweeps that are done, made quickly: trained in this process and written down as a driver and its workers do, without Ray."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from service.ledger.manifest import Manifest
from service.results.summary import Summary
from service.spool.writer import StackSpool
from service.storage import paths
from service.tracking.runs import Tracking
from service.tracking.shipping.shipper import Shipper
from trainables.datasets.table import load_table
from trainables.reports import Finished
from trainables.run import run_stack
from trainables.trial import Stack, Trial


def train(storage: Path, sweep: str, trials: Sequence[Trial], planned: Sequence[Trial] = ()) -> None:
    """Train `trials` one after the other as sweep `sweep`, which has also `planned` others."""
    manifest = Manifest(storage, sweep)
    manifest.plan([*trials, *planned])
    for trial in trials:
        table = load_table(trial.dataset)
        origin = {"dataset_hash": table.hash, "dataset_score": "1.50", "reference": table.reference.source, "revision": "abc123"}
        listener = StackSpool(Stack((trial,)), storage, {trial.dataset: origin}, trial.updates)
        manifest.record("leased", {trial.key: {"size": 1}})
        for report in run_stack(Stack((trial,)), storage):
            listener(report)
        assert isinstance(report, Finished)
        listener.close()
        manifest.record("done", {trial.key: {"execution": report.execution, "seconds": report.seconds, "device": "cpu"}})
    manifest.close()


def ship(storage: Path, sweep: str) -> Tracking:
    """Everything into the storage's own MLflow."""
    from service.ledger.others import ledger_of

    tracking = Tracking(storage)
    ledger = ledger_of(sweep, storage)
    Shipper(storage, sweep, ledger, tracking, summary=Summary(ledger, tracking)).ship()
    return tracking


def put_back(storage: Path) -> None:
    """The storage as its copy in the folder `kept` beside it, in its place: a copy in another one would be another storage."""
    for path in storage.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
    database, kept = paths.mlflow_db(storage), storage.with_name("kept")
    shutil.copytree(kept, storage, dirs_exist_ok=True, ignore=lambda *_: [database.name])
    with contextlib.closing(sqlite3.connect(kept / database.name)) as old, contextlib.closing(sqlite3.connect(database)) as new:
        old.backup(new)  # in place, as MLflow keeps connections to it
