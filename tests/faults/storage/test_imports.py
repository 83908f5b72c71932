"""Data that names a module: only modules that the user names are imported for an environment."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from service.ledger import manifest

from ..conftest import QUICK, Fresh, Record, arguments
from ..support.nursery import Ended, Nursery

DATASET = "test/hopper/random-v0"
IMPORTED = "The Zen of Python"  # what importing the module `this` prints
REFUSED = (
    "error: dataset 'test/hopper/random-v0': environment 'this:Hopper-v5' is made by the module this, and only modules that you name are "
    "imported: --import this, or "
)


@pytest.fixture
def named(tmp_path: Path, hopper_folder: Path) -> dict[str, str]:
    return naming_this(tmp_path, hopper_folder)


def naming_this(folder: Path, datasets: Path) -> dict[str, str]:
    """A copy of the small dataset whose environment is `this:Hopper-v5`, as the environment of a command."""
    shutil.copytree(datasets, folder / "minari")
    about = folder / "minari" / DATASET / "data" / "metadata.json"
    text = about.read_text()
    assert '\\"id\\": \\"Hopper-v5\\"' in text
    about.write_text(text.replace('\\"id\\": \\"Hopper-v5\\"', '\\"id\\": \\"this:Hopper-v5\\"'))
    return {"MINARI_DATASETS_PATH": str(folder / "minari")}


def refused(ended: Ended) -> bool:
    """Whether a command imported nothing and ended with the one line."""
    errors = [line for line in ended.out.splitlines() if line.startswith("error: ")]
    return ended.code == 2 and IMPORTED not in ended.out and len(errors) == 1 and errors[0].startswith(REFUSED)


def test_a_dataset_imports_nothing_that_was_not_named(nursery: Nursery, fresh: Fresh, named: dict[str, str], record: Record) -> None:
    check = ("datasets", "check", DATASET)
    assert refused(nursery.run(*check, **named))
    for flag, more in ((["--import", "this"], {}), ([], {"WINNOW_IMPORT": "json, this"})):
        ended = nursery.run(*check, *flag, **named, **more)
        assert (ended.code, IMPORTED in ended.out) == (0, True), ended.out
    assert refused(nursery.run(*check, "--import", "thi", **named)), "a name's beginning is another name"
    wrong = nursery.run(*check, "--import", "no such module", **named)
    assert (wrong.code, "is not the name of a module" in wrong.out) == (2, True)
    storage = fresh()
    assert refused(nursery.run(*arguments(storage), faults=QUICK, **named))
    assert not (storage / "trials").exists()
    record("a dataset that names a module to import: refused until the user names it")


def test_without_the_check_a_dataset_imports_any_module(nursery: Nursery, named: dict[str, str]) -> None:
    ended = nursery.run("datasets", "check", DATASET, faults=["import_anything"], **named)
    assert (ended.code, IMPORTED in ended.out) == (0, True)


def test_a_sweep_remembers_its_modules_and_a_policy_imports_none(
    nursery: Nursery, fresh: Fresh, named: dict[str, str], record: Record
) -> None:
    storage = fresh()
    command = [*arguments(storage), "--import=this"]
    assert nursery.run(*command, faults=[*QUICK, "die_after=Trained@31"], **named).code == 137
    assert manifest.read(storage, "smoke").settings["options"]["imports"] == ["this"]
    ended = nursery.run("resume", "smoke", f"--storage={storage}", faults=QUICK, **named)
    assert ended.code == 0, ended.out
    rollout = ("rollout", "bc/hopper-random/snip@80/s0", f"--storage={storage}")
    assert refused(nursery.run(*rollout, **named))
    played = nursery.run(*rollout, "--import", "this", **named)
    assert (played.code, "as in the last evaluation" in played.out) == (0, True), played.out
    record("a policy that names a module to import: refused until the user names it")
