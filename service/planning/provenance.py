"""Where a trial's numbers come from: the revision of the code, and the datasets as they are on this machine."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from service.terminal.display import Display
from service.terminal.waiting import waiting
from trainables.datasets import local
from trainables.datasets.table import load_table
from trainables.datasets.table_evaluator import evaluator_of
from trainables.errors import UserError

ROOT = Path(__file__).parents[2]
PACKAGES = ("trainables", "search_spaces", "service")


def origins(ids: Iterable[str]) -> dict[str, dict[str, str]]:
    """The provenance of each dataset's numbers, as text for the spool; absent datasets are recorded or downloaded first.

    Raises UserError for a dataset that is not available or cannot be read, or whose shapes are not those of its environment.
    """
    origin_of: dict[str, dict[str, str]] = {}
    code = revision()
    for id in ids:
        if not local.exists(id) and id.startswith(local.OURS):
            record(id)
        with waiting(f"reading {id}"):  # the first time it is prepared, or downloaded
            table = load_table(id)
        evaluator_of(table, [[0]]).close()
        if table.note:
            print(f"note: {id}: {table.note}", file=sys.stderr)
        score = table.reference.normalize(float(table.episode_returns.mean()))
        origin_of[id] = {"dataset_hash": table.hash, "reference": table.reference.source, "revision": code}
        if table.reference.known:
            origin_of[id]["dataset_score"] = f"{score:.2f}"
    return origin_of


def open_tables(ids: Iterable[str]) -> None:
    """Open the datasets that are here, so that their hashes are known; one that cannot be read stays unknown."""
    for id in ids:
        if local.exists(id):
            with waiting(f"reading {id}"), contextlib.suppress(UserError):
                load_table(id)


def record(dataset: str) -> None:
    """Record one of the datasets that ship as policies, with a progress line."""
    from trainables.datasets.collect.record import record as play

    print(f"{dataset} is not here yet: recording it", flush=True)
    display = Display()
    play(dataset, progress=lambda done, total: display.show(f"{done:,} of {total:,} transitions", last=done == total))


def revision() -> str:
    """The code's git commit, `-dirty` with uncommitted changes; $WINNOW_REVISION where that is set.

    Without git, as in the copy that a submitted job runs, `source-` and a hash of the packages' files.
    """
    code = os.environ.get("WINNOW_REVISION", "")
    if not code and shutil.which("git"):
        command = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
        code = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    if not code:
        files = sorted(path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))
        code = f"source-{hashlib.sha256(b''.join(path.read_bytes() for path in files)).hexdigest()[:12]}"
    return code
