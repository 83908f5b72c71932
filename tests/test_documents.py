"""The documents are correct, the program that checks them finds mistakes, and the page on your own plug-ins runs."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import documents
from tests.documents import BLOCK, FILE, ROOT, anchors, commands, fault, problems
from tests.faults.support.harness import LONG
from trainables import plugins

YOUR_OWN = ROOT / "docs" / "your-own.md"


@pytest.mark.parametrize("page", documents.documents(), ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_is_correct(page: Path) -> None:
    assert problems(page) == []


def rows(page: str) -> dict[str, list[str]]:
    """Lines of a page's tables by the plug-in that they begin with: `name`, or a title with (`name`)."""
    found: dict[str, list[str]] = {}
    for line in (ROOT / "docs" / page).read_text().splitlines():
        if line.startswith("| "):
            for name in re.findall(r"`(\w+)`", line.split("|")[1]):
                found.setdefault(name, []).append(line)
    return found


@pytest.mark.parametrize("pruner", plugins.names("pruners"))
def test_the_page_on_pruning_has_every_pruner_with_its_settings(pruner: str) -> None:
    lines = rows("pruning.md")[pruner]
    assert len(lines) == (1 if pruner == "dense" else 2), "one line for what it computes, and one for what it costs"
    for name, value in plugins.pruner_settings(pruner).items():
        assert f"`{name}` {value}" in lines[-1]


@pytest.mark.parametrize(("pruner", "after"), [("gmp", lambda s: 1 - 0.95 * s), ("imp", lambda s: 0.05**s)])
def test_what_a_mask_that_shrinks_costs_at_95_percent_is_its_schedules(pruner: str, after: Callable[[float], float]) -> None:
    updates = 1_000_000
    schedule = plugins.load("pruners", pruner).mask_schedule(updates, **plugins.pruner_settings(pruner))
    starts, kept = [0, *schedule, updates], [1.0, *(after(share) for share in schedule.values())]
    mean = sum(d * (b - a) for d, (a, b) in zip(kept, itertools.pairwise(starts), strict=True)) / updates
    assert f"| {100 * mean:.0f} % |" in rows("pruning.md")[pruner][-1]


COMMON = {"hidden", "model_hidden", "batch_size", "discount", "n_step", "tau", "log_std_min", "log_std_max"}


@pytest.mark.parametrize("algorithm", plugins.names("algorithms"))
def test_the_page_on_methods_has_every_algorithm_with_its_numbers(algorithm: str) -> None:
    (line,) = rows("methods.md")[algorithm]
    assert plugins.title("algorithms", algorithm) in line
    source = plugins.load("algorithms", algorithm).__doc__ or ""
    for paper in re.findall(r"arXiv [\d.]+\d", source):
        assert paper in line
    for name, value in plugins.hyper_defaults(algorithm).items():
        assert name in COMMON or name.endswith("learning_rate") or f"`{name}` {value}" in line


def test_all_pages_are_checked() -> None:
    pages = {str(page.relative_to(ROOT)) for page in documents.documents()}
    assert {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/cluster.md", "docs/decisions/006-lease.md"} <= pages
    assert {"benchmarks/README.md", "tests/faults/README.md"} <= pages
    assert sum(len(commands(page.read_text())) for page in documents.documents()) > 50


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("winnow run nothing", "no sweep nothing"),
        ("winnow run quickstart --set sede=1", "no override 'sede'"),
        ("winnow fly quickstart", "no command 'fly'"),
        ("ray job submit --working-dir . -- python -m service run nothing", "no sweep nothing"),
        ("python -m trainables --dataset", "expected one argument"),
        ("python -m trainables.datasets.collect recorded", "no command 'recorded'"),
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
        done = subprocess.run(words, cwd=copy, env=os.environ | folders, capture_output=True, text=True, check=False, timeout=LONG)
        assert done.returncode == 0, f"{command}: {done.stderr or done.stdout}"
        output += done.stdout
    assert "6000 transitions in 30 episodes of Pendulum-v1" in output
    scores = [float(score) for score in re.findall(r"after 5,000 updates: .*normalized score (-?[\d.]+)", output)]
    assert scores[0] > 80 > scores[1] > 20
    assert "algorithms  rewarded_bc, bc" in output
