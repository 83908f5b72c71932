"""Environments of one's own: in a project's file, in a notebook, in a module beside it."""

from __future__ import annotations

import json
from pathlib import Path

from tests.winnow.conftest import Winnow, refused

FILE = Path(__file__).with_name("own_file.py")
SMALL = (
    "--set=datasets=mine/reach-v0",
    "--set=algorithms=bc",
    "--set=pruners=dense",
    "--set=seeds=0",
    "--set=updates=20",
    "--set=episodes=1",
)


def test_a_projects_file_registers_the_environment_that_it_describes(project: Path, winnow: Winnow) -> None:
    """By the name under which a script of the project imports it; it is executed once, and is on the trial's record."""
    (project / "environments" / "reach.py").write_text(
        FILE.read_text() + "\nIDS, RANDOM_RETURN, EXPERT_RETURN = ('Reach-v0',), -40.0, -4.0\n"
    )
    places = {"MINARI_DATASETS_PATH": str(project / "data"), "OMP_NUM_THREADS": "1"}
    (project / "record.py").write_text("from environments.reach import record\n\nrecord()\n")
    recorded = winnow(folder=project, module="record", **places)
    assert recorded.returncode == 0, recorded.stderr
    checked = winnow("datasets", "check", "mine/reach-v0", folder=project, **places)
    assert "episodes of environments.reach:Reach-v0, mean return" in checked.stdout, checked.stderr
    assert ", normalized " in checked.stdout
    assert checked.stderr == "", "gymnasium says so where a file is executed twice"
    elsewhere = refused(winnow("datasets", "check", "mine/reach-v0", **places))
    assert "is made by the module environments.reach, and only modules that you name are imported" in elsewhere
    # `datasets import --environment Reach-v0` has imported the file by its other name.
    (project / "named.py").write_text(
        "from trainables import environments\nprint(environments.family_of('winnow_project.environments.reach:Reach-v0'))\n"
    )
    assert winnow(folder=project, module="named", **places).stdout == "reach\n"
    done = winnow("run", "first", "--device=cpu", *SMALL, folder=project, **places)
    assert done.returncode == 0, done.stdout + done.stderr
    (spool,) = (project / "storage" / "trials").glob("*/spool.jsonl")
    assert json.loads(spool.read_text().splitlines()[0])["plugins"].startswith("environments/reach ")


def test_a_module_that_is_not_named_is_told_with_the_projects_setting(project: Path, winnow: Winnow) -> None:
    (project / "my_envs.py").write_text(FILE.read_text())
    (project / "record.py").write_text("from my_envs import record\n\nrecord()\n")
    places = {"MINARI_DATASETS_PATH": str(project / "data")}
    assert winnow(folder=project, module="record", **places).returncode == 0
    told = refused(winnow("run", "first", *SMALL, folder=project, **places))
    assert told.endswith('--import my_envs, or WINNOW_IMPORT=my_envs, or import = ["my_envs"] in winnow.toml')
    cut = winnow("plan", "first", *SMALL, "--set=transitions=20", "--import=my_envs", folder=project, **places)
    assert cut.returncode == 0, cut.stderr
    settings = (project / "winnow.toml").read_text()
    (project / "winnow.toml").write_text('import = ["my_envs"]\n' + settings)
    done = winnow("run", "first", "--device=cpu", *SMALL, folder=project, **places)
    assert done.returncode == 0, done.stdout + done.stderr
    (project / "winnow.toml").write_text(settings)
    said = winnow("verify", "first", "--data", "--import=my_envs", folder=project, **places)
    assert said.returncode == 0, said.stdout + said.stderr


SESSION = """
import importlib, os, sys
from pathlib import Path

exec(Path("own_file.py").read_text().partition("if __name__")[0])  # a notebook's cell
record()

import winnow

small = {"datasets": DATASET, "algorithms": "bc", "pruners": "dense", "seeds": 0, "updates": 20, "evaluations": 1, "episodes": 1}
one = winnow.trial(DATASET, "bc", updates=20, evaluations=1, episodes=1, progress=False)
assert len(one.curve) == 1
try:
    winnow.run("smoke", small, device="cpu", storage="here")
except winnow.UserError as error:
    print(error)
assert not Path("here").exists(), "nothing was begun"

import shutil
shutil.rmtree("data/mine")
Path("below").mkdir()
shutil.copy("own_file.py", "below/my_envs.py")
sys.path.insert(0, "below")
import my_envs
my_envs.record()
again = winnow.run("smoke", small, device="cpu", storage="here")
assert list(again.outcome) == ["done"], again.iloc[0].to_dict()
print("as said")
"""


def test_a_notebooks_own_environment_trains_there_and_a_module_of_it_on_workers(tmp_path: Path, winnow: Winnow) -> None:
    (tmp_path / "own_file.py").write_text(FILE.read_text())
    (tmp_path / "session.py").write_text(SESSION)
    ran = winnow(folder=tmp_path, module="session", MINARI_DATASETS_PATH=str(tmp_path / "data"), OMP_NUM_THREADS="1")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.endswith("as said\n")
    (told,) = [line for line in ran.stdout.splitlines() if "in this process alone" in line]
    assert told.startswith("dataset 'mine/reach-v0': its environment is registered in this process alone, and a sweep trains in others: ")
