"""The wheel, installed beside the libraries that are here, and used from a folder of somebody else's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from benchmarks import from_nothing

ROOT = Path(__file__).parents[2]
# After the command has trained two algorithms with three pruners: the same sweep from Python.
FROM_PYTHON = """
import winnow

settings = {"datasets": "test/hopper/random-v0", "updates": 20, "evaluations": 1, "episodes": 1, "seeds": [0]}
plan = winnow.plan("first", settings)
assert (len(plan.trials), plan.todo) == (6, []), "the command has trained them"
lines = []
more = winnow.run("first", settings | {"algorithms": "bc", "pruners": "snip", "seeds": (0, 1)}, device="cpu", progress=lines.append)
assert any(line.startswith("1/1 done | 0 running") for line in lines), lines
assert len(more) == 7 and set(more.outcome) == {"done"} and more.attrs["notes"] == []
frame = winnow.results("first").set_index("key")
assert set(frame.algorithm) == {"bc", "rewarded_bc"} and set(frame.pruner) == {"dense", "snip", "steepest"}
curves = winnow.curves("first")
last = curves[curves["update"] == 20].set_index("key").score
assert (last == frame["last"].loc[last.index]).all() and len(last) == 7
cells = winnow.cells("first")
assert len(cells) == 6 and cells.n.sum() == 7
(key,) = frame[(frame.pruner == "snip") & (frame.algorithm == "bc") & (frame.seed == 1)].index
assert winnow.load_policy(f"storage/trials/{key}")([0.0] * 11).shape == (3,)
for call, says in (
    (lambda: winnow.plan("frist"), "no sweep 'frist'"),
    (lambda: winnow.plan("first", {"sede": 1}), "no override 'sede'"),
    (lambda: winnow.plan("first", devise="cpu"), "no option 'devise'; there are: checkpoint_every, device,"),
    (lambda: winnow.plan("first", device="tpu"), "no device 'tpu'"),
    (lambda: winnow.results("smoke"), "no sweep 'smoke' in"),
):
    try:
        call()
    except winnow.UserError as error:
        assert says in str(error), error
    else:
        raise AssertionError(says)
assert winnow.__version__ and not hasattr(winnow, "result")
print("as said")
"""
THEIRS = "raise ImportError('not a package of Winnow')\n"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "source"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(copy)], check=True)  # a build leaves files behind
    for name in ("winnow", "service", "search_spaces", "trainables", "pyproject.toml", "README.md"):  # as they are now
        subprocess.run(["cp", "-rT", str(ROOT / name), str(copy / name)], check=True)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", f"--wheel-dir={folder}", str(copy)]
    subprocess.run(build, check=True, capture_output=True)
    (made,) = folder.glob("winnow_rl-*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of a virtual environment with the wheel; the libraries are those of this one."""
    home = tmp_path_factory.mktemp("home") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(home)}))
    with zipfile.ZipFile(wheel) as content:
        content.extractall(site)
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    chosen = "distribution('winnow-rl').entry_points.select(group='console_scripts', name='winnow')"
    install = f"from importlib.metadata import distribution; (entry,) = {chosen}; print(entry.value)"
    entry = subprocess.run([str(home / "bin/python"), "-c", install], capture_output=True, text=True, check=True, cwd=home).stdout.strip()
    module, function = entry.split(":")
    script = home / "bin" / "winnow"
    script.write_text(f"#!{home}/bin/python\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n")
    script.chmod(0o755)
    return script.parent


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder whose packages have names of Winnow's."""
    for name in ("service", "search_spaces", "trainables"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(THEIRS)
    return tmp_path


@pytest.fixture
def environment(hopper_folder: Path, table_cache: Path) -> dict[str, str]:
    found = os.environ | {"MINARI_DATASETS_PATH": str(hopper_folder), "WINNOW_CACHE": str(table_cache)}
    for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS", "PYTHONPATH", "WINNOW_STORAGE"):
        found.pop(name, None)
    return found


def test_a_wheel_holds_all_that_is_read_at_run_time(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as content:
        held = set(content.namelist())
    tracked = subprocess.run(
        ["git", "ls-files", "winnow", "service", "search_spaces", "trainables"], cwd=ROOT, capture_output=True, text=True
    )
    needed = {name for name in tracked.stdout.split() if not name.endswith(".md")}
    assert needed - held == set()
    assert not [name for name in held if name.startswith(("tests", "benchmarks", "docker"))]


def test_a_sweep_runs_in_a_folder_whose_packages_have_our_names(installed: Path, project: Path, environment: dict[str, str]) -> None:
    """With a pruner and an algorithm of the project."""
    given = ["--set=datasets=test/hopper/random-v0", "--set=updates=20", "--set=evaluations=1", "--set=episodes=1", "--set=seeds=0"]
    for words in (["init"], ["run", "first", "--device=cpu", *given]):
        command = [str(installed / "winnow"), *words]
        ran = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False, timeout=600)
        assert ran.returncode == 0, ran.stdout + ran.stderr
    results = (project / "storage" / "sweeps" / "first" / "results.txt").read_text()
    assert "rewarded_bc" in results
    assert "steepest" in results
    ran = subprocess.run(
        [str(installed / "python"), "-c", FROM_PYTHON],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.endswith("as said\n")


def test_python_m_winnow_and_import_winnow_do_so_too(installed: Path, project: Path, environment: dict[str, str]) -> None:
    python = str(installed / "python")
    for command in (
        [python, "-m", "winnow", "plan", "smoke", "--json"],
        [python, "-c", "import winnow, service.__main__ as m; m.main(['doctor', '--help'])"],
    ):
        ran = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False, timeout=600)
        assert ran.returncode == 0, ran.stdout + ran.stderr


def test_a_package_of_theirs_that_is_in_use_is_named(installed: Path, project: Path, environment: dict[str, str]) -> None:
    (project / "service" / "__init__.py").write_text("")
    command = [str(installed / "python"), "-c", "import service, winnow"]
    ran = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False, timeout=600)
    assert f"ImportError: {project}/service/__init__.py is imported as 'service'" in ran.stderr


LONG = ("python3 -m venv", ". venv", "pip ", "winnow doctor", "winnow run", "ray start", "winnow submit", "winnow show", "winnow report")


def test_the_page_that_begins_with_nothing_makes_a_project_whose_pruner_trains(
    installed: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    """Without its installation and its longer commands, which `python -m benchmarks.from_nothing` types, too."""
    (tmp_path / "work").mkdir()
    given = {"PATH": f"{installed}:{os.environ['PATH']}"} | {name: environment[name] for name in ("MINARI_DATASETS_PATH", "WINNOW_CACHE")}
    typed = from_nothing.run(tmp_path, given, LONG)
    assert [each.command for each in typed] == ["winnow init mine", "cd mine", "winnow plan first"]
    project = tmp_path / "work" / "mine"
    assert sorted(path.name for path in project.glob("*/stead*")) == ["steady.py", "steady_or_snip.py"]
    home = given | {"HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    small = ["--set=datasets=test/hopper/random-v0", "--json"]
    plan = [str(installed / "winnow"), "plan", "steady_or_snip", *small]
    planned = subprocess.run(plan, cwd=project, env=home, capture_output=True, text=True, check=True, timeout=600)
    assert len(json.loads(planned.stdout)["trials"]) == 6
    one = [
        "--dataset=test/hopper/random-v0",
        "--algorithm=bc",
        "--pruner=steady",
        "--sparsity=0.9",
        "--updates=4",
        "--evaluations=1",
        "--episodes=1",
    ]
    train = [str(installed / "python"), "-m", "trainables", *one]
    trained = subprocess.run(train, cwd=project, env=home, capture_output=True, text=True, check=False, timeout=600)
    assert trained.returncode == 0, trained.stderr
    assert "bc/hopper-random/steady@90/s0: actor.0 keeps" in trained.stdout
