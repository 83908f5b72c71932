"""The documents hold what they promise, and the program that says so sees what is wrong; the page on own plug-ins runs."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import documents
from tests.documents import BLOCK, GIVEN, ROOT, anchors, commands, fault, problems

OWN = ROOT / "docs" / "your-own.md"


@pytest.mark.parametrize("page", documents.documents(), ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_is_true(page: Path) -> None:
    assert problems(page) == []


def test_all_pages_are_read() -> None:
    found = {str(page.relative_to(ROOT)) for page in documents.documents()}
    assert {"README.md", "benchmarks/README.md", "docs/cluster.md", "docs/decisions/006-lease.md", "tests/faults/README.md"} <= found
    assert sum(len(commands(page.read_text())) for page in documents.documents()) > 50


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("python -m service run nothing", "no sweep nothing"),
        ("python -m service run quickstart --set seed=1", "no override 'seed'"),
        ("python -m service fly quickstart", "invalid choice: 'fly'"),
        ("ray job submit --working-dir . -- python -m service run nothing", "no sweep nothing"),
        ("python -m trainables --dataset", "expected one argument"),
        ("python -m trainables.datasets.collect recorded", "invalid choice"),
        ("python -m trainables.nothing", "no module trainables.nothing"),
        ("python benchmarks/nothing.py", "no file benchmarks/nothing.py"),
        ("make nothing", "no such target"),
    ],
)
def test_a_wrong_command_is_seen(command: str, told: str) -> None:
    assert told in fault(command, set())


@pytest.mark.parametrize("command", ["python -m service run mine", "python mine.py", "make lint", "mlflow ui", "python -m service --help"])
def test_a_right_command_is_not(command: str) -> None:
    assert fault(command, {"mine"}) == ""


def test_wrong_links_and_files_are_seen(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# Some words\n")
    page = tmp_path / "page.md"
    text = (
        "[a](nothing.md) [b](other.md#some-words) [c](other.md#more) [d](#here) `trainables/nothing.py` `nothing.py` decisions/000-none.md"
    )
    page.write_text(f"# Here\n{text}\n```sh\nmake nothing  # and why\n```\n")
    (tmp_path / "Makefile").write_text("lint:\n")
    told = "\n".join(problems(page, tmp_path))
    assert re.findall("link (.*)", told) == ["nothing.md", "other.md#more"]
    assert re.findall("no file (.*)", told) == ["trainables/nothing.py", "nothing.py", "decisions/000-none.md"]
    assert "make nothing: no such target" in told


def test_anchors_are_githubs() -> None:
    assert anchors("# What is tested, and what is not\n## `code` & [links](x.md)\n```\n# not one\n```\n") == {
        "what-is-tested-and-what-is-not", "code--links",
    }  # fmt: skip


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the code with the files that the page gives."""
    folder = tmp_path_factory.mktemp("own")
    for name in ("trainables", "search_spaces", "service"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path, text in GIVEN.findall(OWN.read_text()):
        assert not (folder / path).exists()
        (folder / path).write_text(text)
    return folder


def test_the_page_on_own_plug_ins_runs(own: Path) -> None:
    """Its commands as they stand, up to those that start a cluster or the test suite."""
    lines = [command for kind, block in BLOCK.findall(OWN.read_text()) if kind == "sh" for command in commands(f"```sh\n{block}```")]
    assert len(lines) == 8
    places = {"MINARI_DATASETS_PATH": str(own / "minari"), "WINNOW_STORAGE": str(own / "storage"), "PYTHONPATH": str(own)}
    told = ""
    for command in lines:
        if re.search(r"pytest|service (run|report)", command):
            continue
        words = [sys.executable, *shlex.split(command)[1:]]
        done = subprocess.run(words, cwd=own, env=os.environ | places, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, f"{command}: {done.stderr or done.stdout}"
        told += done.stdout
    assert "6000 transitions in 30 episodes of Pendulum-v1" in told
    scores = [float(score) for score in re.findall(r"after 5,000 updates: .*normalized score (-?[\d.]+)", told)]
    assert scores[0] > 80 > scores[1] > 20
    assert "algorithms  rewarded_bc, bc" in told
