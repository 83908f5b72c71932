"""Finds finished trials by MLflow run id, trial key or trial name: their policies and provenance."""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.ledger import manifest
from service.ledger.ledger import Entry
from service.ledger.lookup import lookup, nearest
from service.spool import lines as spool
from service.storage import paths, trial_objects
from service.terminal.waiting import waiting
from service.tracking.cursor import run_id_of
from service.tracking.reading import RunRow
from service.tracking.runs import Tracking
from service.tracking.shipping.comparison import EVALUATIONS
from service.tracking.shipping.spooled import TAGS
from trainables.errors import UserError, unknown
from trainables.trial import Trial

RUN_ID = r"[0-9a-f]{32}"
FILES = ("policy.safetensors", "policy.json", "masks.json", "masks.safetensors")
HINT = "give a key, or --sweep"


@dataclass(frozen=True)
class FinishedTrial:
    """A trial that is done. `folder` holds its FILES; `run_id` is that of its MLflow run, empty if it was never shipped.

    origin        dataset_hash, dataset_score, reference, revision, host, as text, from the worker's last attempt; of the code all revisions
                  that have trained it, in order, as far as they are known here
    evaluations   each with `update`, `returns` and `scores` of all episodes, ascending; the final one, if any, last and `final`
    """

    trial: Trial
    folder: Path
    run_id: str
    origin: Mapping[str, str] = field(default_factory=dict)
    evaluations: Sequence[Mapping[str, Any]] = ()

    @property
    def about(self) -> dict[str, Any]:
        """The content of policy.json: environment, execution, sizes."""
        return dict(json.loads((self.folder / "policy.json").read_bytes()))

    @property
    def last(self) -> Mapping[str, Any]:
        """The last evaluation; empty if there was none."""
        return next((each for each in reversed(self.evaluations) if not each.get("final")), {})

    @property
    def final(self) -> Mapping[str, Any]:
        """The evaluation of the final episodes; empty if there were none."""
        return next((each for each in self.evaluations if each.get("final")), {})


def means(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """Means over the episodes of an evaluation: `return`, and `normalized_score` and `success_rate` where they are known."""
    named = {"return": "returns", "normalized_score": "scores", "success_rate": "successes"}
    return {name: sum(values) / len(values) for name, quantity in named.items() if (values := evaluation.get(quantity))}


@contextlib.contextmanager
def find(wanted: str, storage: Path, sweep: str | None = None) -> Iterator[FinishedTrial]:
    """The finished trial that `wanted` names, of one sweep or of any; its folder exists until the end of the `with`.

    Searches the storage, then MLflow, from which it downloads the files. Raises UserError, with the nearest choices, unless one
    trial matches.
    """
    trial_objects.pull(storage)
    ledgers = manifest.read_all(storage)
    if sweep is not None and sweep not in ledgers:
        raise unknown("sweep", sweep, ledgers, f" in {paths.shown(storage)}")
    asked = [entry for name, ledger in ledgers.items() if sweep in (None, name) for entry in ledger.entries.items()]
    entries = dict(sorted(asked, key=lambda item: item[1].state == "done"))  # done for one sweep is done
    names = {key: entry.trial.name for key, entry in entries.items()}
    key = lookup(wanted, names, {key for key, entry in entries.items() if entry.state == "done"}, HINT)
    elsewhere = run_id_of(storage, key) if key and entries[key].state == "done" and not paths.policy(storage, key).exists() else ""
    if key and not elsewhere:
        yield _in_storage(key, entries[key], storage)
        return
    with tempfile.TemporaryDirectory() as folder:  # also of a trial whose policy is kept in MLflow alone
        yield _in_mlflow(elsewhere or wanted, names, storage, Path(folder))


def _in_storage(key: str, entry: Entry, storage: Path) -> FinishedTrial:
    if entry.state != "done" or not paths.policy(storage, key).exists():
        why = entry.state if entry.state != "done" else "done, but its policy is missing"
        raise UserError(f"trial {key} ({entry.trial.name}) is {why}; a trial has a policy once it is done")
    lines = spool.read(paths.spool(storage, key))
    attempts = [placed.line for placed in lines if placed.line["kind"] == "attempt"]
    origin = {name: str(attempts[-1][name]) for name in TAGS if name in attempts[-1]} if attempts else {}
    if "revision" in origin:
        origin["revision"] = ", ".join(dict.fromkeys(str(attempt["revision"]) for attempt in attempts if "revision" in attempt))
    return FinishedTrial(entry.trial, paths.trial(storage, key), run_id_of(storage, key), origin, spool.evaluations(lines))


def _in_mlflow(wanted: str, names: Mapping[str, str], storage: Path, folder: Path) -> FinishedTrial:
    """A trial found in MLflow; downloads its files into `folder`."""
    tracking = Tracking(storage)
    with waiting("asking MLflow"):
        rows = tracking.all_trials()
        row = _row(wanted, rows)
        if row is None:
            known = {**names, **{row.tags.get("winnow.trial_key", ""): row.tags.get("mlflow.runName", "") for row in rows.values()}}
            raise _no_match(wanted, known, storage)
        tracking.fetch(row.run_id, (*FILES, EVALUATIONS), folder)
    if row.status != "FINISHED" or not (folder / "policy.json").exists():
        state = row.tags.get("winnow.state") or row.status.lower()
        raise UserError(
            f"run {row.run_id} ({row.tags.get('mlflow.runName')}) is {state} and holds no policy; a trial has one once it is done"
        )
    trial = Trial.from_json(json.loads((folder / "policy.json").read_bytes())["trial"])
    origin = {name: row.tags[f"winnow.{name}"] for name in TAGS if f"winnow.{name}" in row.tags}
    evaluations = folder / EVALUATIONS
    return FinishedTrial(trial, folder, row.run_id, origin, json.loads(evaluations.read_bytes()) if evaluations.exists() else ())


def _row(wanted: str, rows: Mapping[str, RunRow]) -> RunRow | None:
    """The run with this id, else that of the trial that `wanted` names."""
    if wanted in rows:
        return rows[wanted]
    by_key = {row.tags.get("winnow.trial_key", ""): row for row in rows.values()}
    names = {key: row.tags.get("mlflow.runName", "") for key, row in by_key.items()}
    key = lookup(wanted, names, {key for key, row in by_key.items() if row.status == "FINISHED"}, HINT)
    return by_key[key] if key else None


def _no_match(wanted: str, names: Mapping[str, str], storage: Path) -> UserError:
    what = "run" if re.fullmatch(RUN_ID, wanted) else "trial"
    return UserError(f"no {what} {wanted!r} in {paths.shown(storage)} or its MLflow; the nearest: {nearest(wanted, names)}")
