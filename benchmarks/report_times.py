"""What a report costs: the first study's sweep, and that sweep multiplied to the size of a full grid, in a real MLflow.

    winnow adopt benchmarks/study.zip --storage /somewhere && winnow sync study --storage /somewhere
    python -m benchmarks.report_times --storage /somewhere [--trials 5000]

`many_trials` is made once: every run of `study` is copied in MLflow's database for other pruners and seeds, with scores that differ a
little; plan and table of curves are written as the shipper writes them. Not copied are histories and artifacts of single runs, which a
report does not read. Shipping so many trials would take a quarter of an hour. Printed are CPU seconds of `winnow report` by part, and with
`--requests` how many requests it makes of an `mlflow server` on loopback.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import resource
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from service.results.report.gather import gather
from service.tracking import curve_table, plan_artifact
from service.tracking.runs import Tracking
from service.tracking.trial_params import filters_of, params_of, trial_of
from trainables.trial import Trial

STUDY, MANY = "study", "many_trials"
SNIPS = ("snip", "grasp", "synflow", "force", "iterative_snip", "prospr", "ntk_sap")
RANDOMS = ("random_erk", "random_uniform", "magnitude", "phew", "small_dense", "snip+shuffle", "snip+reinit")
SEEDS = 3  # of the study
SCORES = "score|return"  # metrics that differ a little from copy to copy
PARTS = ("tasks_of", "gather", "draw", "page")  # of service/results/report/build.py
PROGRAM = f"""
import atexit, functools, json, sys, time
spent, begun = {{}}, time.process_time()
from service.results.report import build, tables
def timed(where, name):
    whole = getattr(where, name)
    @functools.wraps(whole)
    def call(*given, **named):
        start = time.process_time()
        try:
            return whole(*given, **named)
        finally:
            spent[name] = spent.get(name, 0) + time.process_time() - start
    setattr(where, name, call)
for name in {PARTS}: timed(build, name)
for name in ("text", "latex", "cell_rows", "trial_rows", "curve_rows", "to_csv", "to_parquet"): timed(tables, name)
from service.__main__ import main
code = main(sys.argv[2:])
open(sys.argv[1], "w").write(json.dumps(spent | {{"all": time.process_time()}}))
sys.exit(code)
"""


def copies(trial: Trial, seeds: int) -> Iterator[Trial]:
    """The same for other pruners and every SEEDS-th seed; a dense one for these seeds alone."""
    for seed in range(trial.seed, seeds, SEEDS):
        seeded = replace(trial, seed=seed)
        if trial.pruner == "dense":
            yield seeded
            continue
        for name in SNIPS if trial.pruner == "snip" else RANDOMS:
            pruner, _, control = name.partition("+")
            yield replace(seeded, pruner=pruner, control=control or "none")


def multiply(storage: Path, trials: int) -> int:
    """Fill the sweep `many_trials` with at least so many trials; returns how many."""
    tracking = Tracking(storage)
    source = tracking.sweeps()[STUDY]
    rows = tracking.sweep_rows(STUDY, source)
    curves = curve_table.read(tracking, source) or {}
    own = {row.run_id: trial_of(row.params) for row in rows}
    per_seed = sum(len(list(copies(trial, SEEDS))) for trial in own.values()) / SEEDS
    made = {run_id: list(copies(trial, math.ceil(trials / per_seed))) for run_id, trial in own.items()}
    parent = tracking.parent_run(MANY)
    table = {}
    with sqlite3.connect(storage / "mlflow.db") as database:
        for run_id, trial in own.items():
            for number, copy in enumerate(made[run_id]):
                factor = 1 + 0.003 * ((37 * number + copy.seed) % 29 - 14)
                _copied(database, run_id, copy, parent, factor)
                row = curves[trial.key]
                changed = {
                    name: [[update, value * factor] for update, value in curve] for name, curve in row["curves"].items()
                    if re.search(SCORES, name)
                }  # fmt: skip
                table[copy.key] = row | {"curves": row["curves"] | changed}
    tracking.log_bytes(parent, *plan_artifact.to_file(copy for each in made.values() for copy in each))
    tracking.log_bytes(parent, curve_table.NAME, curve_table.to_file(table))
    tracking.set_state(parent, "done", {})
    return len(table)


def _copied(database: sqlite3.Connection, run_id: str, trial: Trial, parent: str, factor: float) -> None:
    """A run's rows once more, for another trial."""
    new = uuid.uuid4().hex
    changed = {"winnow.trial_key": trial.key, "mlflow.parentRunId": parent, "mlflow.runName": trial.name, **filters_of(trial)}
    values: Mapping[str, Mapping[str, str]] = {"params": params_of(trial), "tags": changed}
    for table in ("runs", "params", "tags", "latest_metrics"):
        columns = [name for _, name, *_ in database.execute(f"PRAGMA table_info({table})")]
        places = ", ".join(columns).replace("run_uuid", f"'{new}'")
        if table == "latest_metrics":
            scored = " OR ".join(f"key LIKE '%{word}%'" for word in SCORES.split("|"))
            places = places.replace("value", f"CASE WHEN {scored} THEN value * {factor!r} ELSE value END", 1)
        database.execute(f"INSERT INTO {table} ({', '.join(columns)}) SELECT {places} FROM {table} WHERE run_uuid = ?", (run_id,))
        for key, value in values.get(table, {}).items():
            database.execute(f"INSERT OR REPLACE INTO {table} (key, value, run_uuid) VALUES (?, ?, ?)", (key, value, new))
    database.execute("DELETE FROM tags WHERE run_uuid = ? AND key = ?", (new, f"winnow.sweep.{STUDY}"))
    database.execute("INSERT INTO tags (key, value, run_uuid) VALUES (?, 'trained', ?)", (f"winnow.sweep.{MANY}", new))
    database.execute("UPDATE runs SET name = ? WHERE run_uuid = ?", (trial.name, new))


def measured(sweep: str, storage: Path) -> dict[str, float]:
    """CPU seconds of `winnow report` by part; `all` with the start of Python and its imports."""
    with tempfile.TemporaryDirectory() as place:
        words = ["report", sweep, "--storage", str(storage), "--to", f"{place}/report"]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", PROGRAM, f"{place}/spent", *words], check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent: dict[str, float] = json.loads(Path(f"{place}/spent").read_text())
    return spent | {"all": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}


def requests(sweeps: Iterable[str], storage: Path) -> dict[str, int]:
    """How many requests it takes to read each sweep from an MLflow server, by the server's own log."""
    found = {}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = ["--backend-store-uri", f"sqlite:///{storage / 'mlflow.db'}", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with tempfile.NamedTemporaryFile() as log:
        server = subprocess.Popen([sys.executable, "-m", "mlflow", "server", *words], stdout=log, stderr=log)
        try:
            while True:
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                    break
                except OSError:
                    assert server.poll() is None, Path(log.name).read_text()
                    time.sleep(0.5)
            os.environ["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{port}"
            tracking = Tracking(storage)
            for sweep in sweeps:
                before = _asked(log.name)
                gather([sweep], tracking, storage)
                found[sweep] = _asked(log.name) - before
        finally:
            server.terminate()
            server.wait(60)
    return found


def _asked(log: str) -> int:
    return len(re.findall(r'"(GET|POST|PUT|PATCH) /(?!health)', Path(log).read_text()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storage", type=Path, required=True, help="where the first study is")
    parser.add_argument("--trials", type=int, default=5000)
    parser.add_argument("--requests", action="store_true", help="count the requests to a server, too")
    given = parser.parse_args()
    storage: Path = given.storage.resolve()
    if MANY not in Tracking(storage).sweeps():
        print(f"{MANY}: {multiply(storage, given.trials)} trials", flush=True)
    for sweep in (STUDY, MANY):
        spent: dict[str, Any] = measured(sweep, storage)
        print(sweep, {name: round(value, 1) for name, value in spent.items()}, flush=True)
    if given.requests:
        print("requests", requests((STUDY, MANY), storage))


if __name__ == "__main__":
    main()
