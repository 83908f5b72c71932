"""How long `forget` takes: a sweep of N finished trials with files, artifacts and MLflow runs, copied from one trial that was trained.

python -m benchmarks.speed.forget --trials 2000
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sqlite3
import tempfile
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from service.__main__ import main as winnow
from service.ledger import manifest
from service.ledger.manifest import Manifest
from service.storage import paths
from trainables.trial import Trial

SETTINGS = ("datasets=winnow/hopper/random-v0", "pruners=snip", "sparsities=0.9", "seeds=0", "updates=50", "evaluations=5", "episodes=1")
TABLES = ("tags", "params", "metrics", "latest_metrics")


def copies(storage: Path, count: int) -> list[Trial]:
    """More trials like the one that the storage holds, done and shipped: in the journal, in folders, and in MLflow's database."""
    (entry,) = manifest.read(storage, "smoke").entries.values()
    run = json.loads(paths.shipped(storage, entry.trial.key).read_bytes())["run_id"]
    made = [replace(entry.trial, seed=seed) for seed in range(1, count + 1)]
    journal = Manifest(storage, "smoke")
    journal.plan(made)
    journal.record("leased", {trial.key: {"size": 1} for trial in made})
    journal.record("done", {trial.key: dict(entry.detail) for trial in made})
    journal.close()
    with closing(sqlite3.connect(paths.mlflow_db(storage))) as database, database:
        columns = {name: [row[1] for row in database.execute(f"PRAGMA table_info({name})")] for name in ("runs", *TABLES)}
        for trial in made:
            id = f"{trial.seed:032x}"
            shutil.copytree(paths.trial(storage, entry.trial.key), paths.trial(storage, trial.key))
            cursor = paths.shipped(storage, trial.key)
            cursor.write_text(cursor.read_text().replace(run, id))
            shutil.copytree(paths.mlflow_artifacts(storage) / run, paths.mlflow_artifacts(storage) / id)
            for table, names in columns.items():
                put = {"run_uuid": f"'{id}'", "artifact_uri": f"replace(artifact_uri, '{run}', '{id}')"}
                chosen = ", ".join(put.get(name, name) for name in names)
                database.execute(f"INSERT INTO {table} SELECT {chosen} FROM {table} WHERE run_uuid = '{run}'")
            of_key = "UPDATE tags SET value = ? WHERE key = 'winnow.trial_key' AND run_uuid = ?"
            database.execute(of_key, [trial.key, id])
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2000)
    count = parser.parse_args().trials
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    with tempfile.TemporaryDirectory() as folder:
        storage = Path(folder) / "storage"
        winnow(["run", "smoke", *(f"--set={setting}" for setting in SETTINGS), "--device=cpu", f"--storage={storage}"])
        copies(storage, count - 1)
        for words in (["du"], ["forget", "smoke"], ["forget", "smoke", "--yes"]):
            begun = time.perf_counter()
            winnow([*words, f"--storage={storage}"])
            seconds = time.perf_counter() - begun
            print(f"{' '.join(words)}: {seconds:.1f} s for {count} trials, {count / seconds:,.0f} per second", flush=True)


if __name__ == "__main__":
    main()
