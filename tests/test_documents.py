"""The documents are correct, the program that checks them finds mistakes, and the page on your own plug-ins runs."""

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
from tests.documents import BLOCK, FILE, ROOT, anchors, commands, fault, problems

YOUR_OWN = ROOT / "docs" / "your-own.md"


@pytest.mark.parametrize("page", documents.documents(), ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_is_correct(page: Path) -> None:
    assert problems(page) == []


def test_all_pages_are_checked() -> None:
    pages = {str(page.relative_to(ROOT)) for page in documents.documents()}
    assert {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/cluster.md", "docs/decisions/006-lease.md"} <= pages
    assert {"benchmarks/README.md", "tests/faults/README.md"} <= pages
    assert sum(len(commands(page.read_text())) for page in documents.documents()) > 50


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("winnow run nothing", "no sweep nothing"),
        ("winnow run quickstart --set seed=1", "no override 'seed'"),
        ("winnow fly quickstart", "invalid choice: 'fly'"),
        ("ray job submit --working-dir . -- python -m service run nothing", "no sweep nothing"),
        ("python -m trainables --dataset", "expected one argument"),
        ("python -m trainables.datasets.collect recorded", "invalid choice"),
        ("python -m trainables.nothing", "no module trainables.nothing"),
        ("python benchmarks/nothing.py", "no file benchmarks/nothing.py"),
        ("make nothing", "no such target"),
    ],
)
def test_a_wrong_command_is_found(command: str, problem: str) -> None:
    assert problem in fault(command, set())


@pytest.mark.parametrize("command", ["winnow run mine", "python mine.py", "make lint", "mlflow ui", "winnow --help"])
def test_a_right_command_passes(command: str) -> None:
    assert fault(command, {"mine"}) == ""


def test_wrong_links_and_files_are_found(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# Some words\n")
    page = tmp_path / "page.md"
    text = (
        "[a](nothing.md) [b](other.md#some-words) [c](other.md#more) [d](#here) `trainables/nothing.py` `nothing.py` decisions/000-none.md"
    )
    page.write_text(f"# Here\n{text}\n```sh\nmake nothing  # and why\n```\n")
    (tmp_path / "Makefile").write_text("lint:\n")
    lines = "\n".join(problems(page, tmp_path))
    assert re.findall("link (.*)", lines) == ["nothing.md", "other.md#more"]
    assert re.findall("no file (.*)", lines) == ["trainables/nothing.py", "nothing.py", "decisions/000-none.md"]
    assert "make nothing: no such target" in lines


def test_anchors_are_those_of_github() -> None:
    assert anchors("# What is tested, and what is not\n## `code` & [links](x.md)\n```\n# not one\n```\n") == {
        "what-is-tested-and-what-is-not", "code--links",
    }  # fmt: skip


def test_a_new_project_gets_the_files_of_the_page() -> None:
    template = ROOT / "service" / "template"
    shared = {path: text for path, text in FILE.findall(YOUR_OWN.read_text()) if path.startswith("trainables/")}
    assert len(shared) == 2
    for path, text in shared.items():
        assert (template / path.removeprefix("trainables/")).read_text() == text


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the code with the files that the page contains."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("trainables", "search_spaces", "service", "winnow"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path, text in FILE.findall(YOUR_OWN.read_text()):
        assert not (folder / path).exists()
        (folder / path).write_text(text)
    return folder


def test_the_page_on_your_own_plug_ins_runs(copy: Path) -> None:
    """All its commands, except those that start a cluster or the test suite."""
    lines = [command for kind, block in BLOCK.findall(YOUR_OWN.read_text()) if kind == "sh" for command in commands(f"```sh\n{block}```")]
    assert len(lines) == 9
    folders = {"MINARI_DATASETS_PATH": str(copy / "minari"), "WINNOW_STORAGE": str(copy / "storage"), "PYTHONPATH": str(copy)}
    output = ""
    for command in lines:
        if re.search(r"pytest|winnow (run|report)", command):
            continue
        program, *words = shlex.split(command)
        words = [sys.executable, *(["-m", "winnow"] if program == "winnow" else []), *words]
        done = subprocess.run(words, cwd=copy, env=os.environ | folders, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, f"{command}: {done.stderr or done.stdout}"
        output += done.stdout
    assert "6000 transitions in 30 episodes of Pendulum-v1" in output
    scores = [float(score) for score in re.findall(r"after 5,000 updates: .*normalized score (-?[\d.]+)", output)]
    assert scores[0] > 80 > scores[1] > 20
    assert "algorithms  rewarded_bc, bc" in output
