"""Where a trial's numbers come from: the revision of the code, and the datasets as they are on this machine."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from service.terminal.display import Display
from service.terminal.waiting import waiting
from trainables import project
from trainables.datasets import local
from trainables.datasets.table import load_table
from trainables.datasets.table_evaluator import check_playable
from trainables.environments import SCRIPT, family_of, in_this_process, name_modules
from trainables.errors import UserError
from trainables.output import printable
from trainables.plugins import OF_PROJECTS, source_hash

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("trainables", "search_spaces", "service", "winnow")
CODE = ("trainables", "service")  # what a trial's numbers depend on: of a sweep's file it sees its own settings alone
SOURCES = (".py", ".c", ".cu", ".h")
PATIENCE = 60.0  # seconds that git may take, as on a slow file system: without its answer the same code has another name


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
        _for_workers(id, table.environment)
        for note in filter(None, (table.note, *check_playable(table))):
            print(printable(f"note: {id}: {note}", lines=False), file=sys.stderr)
        score = table.reference.normalize(float(table.episode_returns.mean()))
        origin_of[id] = {"dataset_hash": table.hash, "reference": table.reference.source, "revision": code}
        if theirs := _environment_hash(table.environment):
            origin_of[id]["plugins"] = theirs
        if table.reference.known:
            origin_of[id]["dataset_score"] = f"{score:.2f}"
    return origin_of


def _for_workers(dataset: str, environment: str) -> None:
    """Let workers import the module that this process has imported for the environment. Raises UserError for one that they cannot have."""
    module = environment.partition(":")[0] if ":" in environment.partition(" ")[0] else ""
    if in_this_process(environment):
        raise UserError(
            f"dataset {dataset!r}: its environment is registered in this process alone, and a sweep trains in others: move the class into "
            f'a file, my_envs.py, with entry_point="my_envs:Class", and record the data with it; `winnow.trial` trains a trial here'
        )
    if module in sys.modules and module != SCRIPT:
        name_modules([module])


def _environment_hash(environment: str) -> str:
    """`environments/mine 3c4d...` of the file that describes an environment, or of the sweep's that defines it; empty for one of ours."""
    family, module = family_of(environment), environment.partition(":")[0]
    given = project.given()
    if files := {name: path for name, path in given.items() if module in (name, SCRIPT)}:
        return ", ".join(f"sweeps/{name} {hashlib.sha256(path.read_bytes()).hexdigest()[:16]}" for name, path in files.items())
    found = source_hash("environments", family) if family else ""
    return f"environments/{family} {found}" if found else ""


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
    """The code's git commit, `-dirty` with uncommitted changes, and a hash of those in CODE where there are any: `1f2e...-dirty-9a8b7c6d`.

    Without git, as in the copy that a submitted job runs, `source-` and a hash of the packages' files. A project's plug-ins are added by
    their hash: `...+project-3c2d1e0f`. $WINNOW_REVISION where that is set.
    """
    if given := os.environ.get("WINNOW_REVISION", ""):
        return given
    theirs = [path for kind in OF_PROJECTS for path in project.files(kind).values()]
    return _ours() + (f"+project-{_digest(sorted(theirs), project.root() or ROOT)[:8]}" if theirs else "")


def _ours() -> str:
    tracked = _git("ls-files", "service/__init__.py")  # a library inside another project's checkout is not of its commit
    code = "".join(_git("describe", "--always", "--dirty", "--abbrev=40")) if tracked else ""
    if not code:
        files = sorted(path for name in PACKAGES for path in (ROOT / name).rglob("*") if path.suffix in SOURCES)
        return f"source-{_digest(files, ROOT)[:12]}"
    changed = _git("diff", "HEAD", "--name-only", "--relative", "-z", "--", *CODE)
    new = _git("ls-files", "--others", "--exclude-standard", "-z", "--", *CODE)
    files = sorted({ROOT / name for name in [*changed, *new] if Path(name).suffix in SOURCES})
    return f"{code.removesuffix('-dirty')}-dirty-{_digest(files, ROOT)[:8]}" if files else code


def commit() -> str:
    """The git commit of the project, where it is in a repository, else of the code; empty where neither is known."""
    if (folder := project.root()) and (theirs := _git("rev-parse", "HEAD", folder=folder)):
        return theirs[0]
    if _git("ls-files", "service/__init__.py"):
        return "".join(_git("rev-parse", "HEAD"))
    found = re.search(r"(?<![0-9a-f])[0-9a-f]{40}(?![0-9a-f])", os.environ.get("WINNOW_REVISION", ""))
    return found[0] if found else ""


def _git(*arguments: str, folder: Path | None = None) -> list[str]:
    """What git prints in the checkout or another folder, split at NUL; empty where it fails or is absent."""
    try:
        done = subprocess.run(["git", *arguments], cwd=folder or ROOT, capture_output=True, check=False, timeout=PATIENCE)
    except (OSError, subprocess.SubprocessError):
        return []
    return [os.fsdecode(part) for part in done.stdout.strip().split(b"\0") if part]


def names_of_ours(folder: Path) -> list[str]:
    """What `folder` holds that has the name of a package of ours, which Python could take for it."""
    return [path.name for name in PACKAGES for path in (folder / name, folder / f"{name}.py") if path.exists()]


def _digest(files: Sequence[Path], folder: Path) -> str:
    """A hash of the files' names below `folder` and contents; a file that was removed has only a name."""
    total = hashlib.sha256()
    for path in files:
        total.update(b"\0" + os.fsencode(path.relative_to(folder)) + b"\0")
        with contextlib.suppress(OSError):
            total.update(path.read_bytes())
    return total.hexdigest()
