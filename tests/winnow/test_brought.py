"""Sweeps given by their file's path, plug-ins that installed packages bring, and what a trial's record says of either."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.winnow.conftest import ROOT, Winnow, refused

FILE = Path(__file__).with_name("own_file.py")
TEMPLATE = ROOT / "service" / "template"


def shown(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def test_a_file_with_its_own_environment_runs_and_its_trials_name_their_sources(project: Path, winnow: Winnow) -> None:
    file = shutil.copy(FILE, project / "reaching.py")
    places = {"MINARI_DATASETS_PATH": str(project / "data"), "WINNOW_STORAGE": str(project / "storage"), "OMP_NUM_THREADS": "1"}
    recorded = winnow(folder=project, module="reaching", **places)
    assert recorded.returncode == 0, recorded.stderr
    said = refused(winnow("datasets", "check", "mine/reach-v0", folder=project, **places))
    assert said.startswith(
        "dataset 'mine/reach-v0': environment 'Reach-v0' was registered by a script, which nothing else can import: "
        "declare it in the sweep's file"
    )
    done = winnow("run", "./reaching.py", "--device=cpu", folder=project, **places)
    assert done.returncode == 0, done.stdout + done.stderr
    (spool,) = (project / "storage" / "trials").glob("*/spool.jsonl")
    assert spool.parent.name == "3cda6c074af96220"  # the key is that of a trial without a record of its sources
    attempt = json.loads(spool.read_text().splitlines()[0])
    sources = f"pruners/steepest {shown(project / 'pruners' / 'steepest.py')}, sweeps/reaching {shown(file)}"
    assert attempt["plugins"] == sources
    checked = winnow("verify", "./reaching.py", folder=project, **places)
    assert checked.returncode == 0, checked.stdout
    below = winnow("status", "../reaching.py", folder=project / "sweeps", **places)
    assert "1 done" in below.stdout, below.stderr


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("nope", None, "nope.py is not a Python file"),
        ("quickstart", "", "quickstart.py has the name of a sweep that ships with Winnow; give it another one"),
        ("random", "", "random.py has the name of the module random, which is in use; give it another one"),
        ("a-b", "", "the file's name is the sweep's, so it needs letters, digits and _ alone"),
        ("broken", "1 / 0", "broken.py cannot be imported: ZeroDivisionError: division by zero"),
        ("empty", "", "has no attribute 'SWEEP'"),
    ],
)
def test_a_path_that_leads_to_no_sweep_is_one_line(tmp_path: Path, winnow: Winnow, name: str, text: str | None, says: str) -> None:
    (tmp_path / "below").mkdir()
    if text is not None:
        (tmp_path / "below" / f"{name}.py").write_text(text)
    assert says in refused(winnow("plan", f"below/{name}.py"))


def test_two_files_of_one_name_are_refused(project: Path, winnow: Winnow) -> None:
    shutil.copy(project / "sweeps" / "first.py", project / "first.py")
    assert "two sweeps would be called 'first'" in refused(winnow("plan", "./first.py", folder=project))
    assert winnow("plan", "./sweeps/first.py", folder=project).returncode == 0


def test_submit_refuses_a_file_that_it_does_not_send(tmp_path: Path, winnow: Winnow) -> None:
    shutil.copy(TEMPLATE / "sweeps" / "first.py", tmp_path / "mine.py")
    text = (tmp_path / "mine.py").read_text().replace('"rewarded_bc", ', "").replace('"steepest", ', "").replace('("bc")', '("bc",)')
    (tmp_path / "mine.py").write_text(text)
    assert "mine.py would not be sent" in refused(winnow("submit", "./mine.py"))


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder for PYTHONPATH with an installed package that brings one plug-in of each kind, as pip writes it."""
    site, top = tmp_path / "site", "their_methods"
    for kind in ("pruners", "algorithms", "environments", "sweeps"):
        shutil.copytree(TEMPLATE / kind, site / top / kind)
    (site / top / "__init__.py").write_text("raise RuntimeError('imported to plan')\n")
    about = site / "their_methods-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: their-methods\nVersion: 1.0\n")
    files = {"pruners": "steepest", "algorithms": "rewarded_bc", "environments": "inverted_pendulum", "sweeps": "first"}
    groups = (f"[winnow.{kind}]\n{name} = {top}.{kind}.{name}\n" for kind, name in files.items())
    (about / "entry_points.txt").write_text("".join(groups))
    return site


def python(program: str, site: Path) -> subprocess.CompletedProcess[str]:
    environment = {"PYTHONPATH": f"{ROOT}:{site}", "PATH": "", "HOME": str(site)}
    return subprocess.run(
        [sys.executable, "-c", program], cwd=site, env=environment, capture_output=True, text=True, check=False, timeout=600
    )


def test_plug_ins_of_an_installed_package_are_found_by_its_entry_points(package: Path) -> None:
    (package / "their_methods" / "__init__.py").write_text("")
    found = python("from search_spaces.sweep import *; print([t.name for t in expand(load_sweep('first'))][0])", package)
    assert found.stdout.startswith("rewarded_bc/"), found.stderr
    program = "from trainables import environments; print(environments.family_of('InvertedPendulum-v5'))"
    assert python(program, package).stdout == "inverted_pendulum\n"
    program = (
        "from trainables import plugins; print(plugins.load('pruners', 'steepest').__name__, plugins.source_hash('pruners', 'steepest'))"
    )
    expected = f"their_methods.pruners.steepest {shown(package / 'their_methods' / 'pruners' / 'steepest.py')}\n"
    assert python(program, package).stdout == expected


def test_a_plan_reads_a_packages_plug_ins_and_imports_none(package: Path) -> None:
    program = (
        "from trainables.trial import Trial; print(Trial(dataset='a/b-v0', algorithm='rewarded_bc', pruner='steepest', sparsity=0.5).cell)"
    )
    assert python(program, package).stdout == "steepest@50\n"
    broken = python("from trainables import plugins; plugins.load('pruners', 'steepest')", package).stderr
    assert "steepest.py cannot be imported: RuntimeError: imported to plan" in broken


def test_a_package_without_the_module_that_it_names_is_told(package: Path) -> None:
    (package / "their_methods" / "pruners" / "steepest.py").unlink()
    said = python("from trainables import plugins; plugins.names('pruners')", package).stderr
    assert "the entry point steepest = 'their_methods.pruners.steepest' of winnow.pruners does not lead to a Python file" in said


def test_a_projects_plug_in_with_the_name_of_a_packages_is_refused(project: Path, package: Path, winnow: Winnow) -> None:
    said = refused(winnow("plan", "first", folder=project, PYTHONPATH=f"{ROOT}:{package}"))
    assert "that an installed package brings" in said
