"""A project's folder: what it sets, its plug-ins and sweeps, and what is refused in it."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.__main__ import main
from tests.winnow.conftest import ROOT, Winnow, refused
from trainables.storage import files


def test_a_new_projects_sweep_uses_its_plug_ins_and_built_in_ones(project: Path, winnow: Winnow) -> None:
    (project / "below").mkdir()
    for folder in (project, project / "below"):
        done = winnow("plan", "first", folder=folder)
        assert done.returncode == 0, done.stderr
        assert "algorithms  rewarded_bc, bc\n" in done.stdout
        assert "pruners     dense, steepest, snip\n" in done.stdout
    assert "no sweep 'first'" in refused(winnow("plan", "first", folder=project.parent))
    elsewhere = winnow("plan", "first", folder=project.parent, WINNOW_PROJECT=str(project))
    assert elsewhere.returncode == 0, elsewhere.stderr


def test_nothing_of_a_folder_is_overwritten(project: Path, winnow: Winnow) -> None:
    (project / "sweeps" / "first.py").write_text("mine")
    (project / "winnow.toml").unlink()
    assert refused(winnow("init", str(project))) == f"{project}/algorithms/rewarded_bc.py exists already; nothing was written"
    assert (project / "sweeps" / "first.py").read_text() == "mine"
    assert not (project / "winnow.toml").exists()


def test_an_algorithm_of_a_project_is_expected_to_cost_what_its_like_does(project: Path, winnow: Winnow) -> None:
    """It has one network, as BC has; nothing was measured yet."""
    said = winnow("plan", "first", "--device=cpu", "--json", folder=project, WINNOW_CACHE=str(project / "empty"))
    assert json.loads(said.stdout)["updates_per_second"] == {"rewarded_bc": 450.0, "bc": 450.0}


def test_a_folder_without_a_name_is_not_the_current_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init", ""]) == 2
    assert "the folder '' has no name" in capsys.readouterr().err
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("folder", ["/proc/mine", "file/mine", "n" * 300])
def test_a_folder_that_cannot_be_made_is_one_line_and_leaves_nothing(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    given = folder if folder.startswith("/") else f"{tmp_path}/{folder}"
    assert main(["init", given]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be made: " in line
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_disk_that_fills_leaves_no_half_of_a_project(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write = files.write

    def full(path: Path, content: bytes) -> None:
        if path.name == "first.py":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, content)

    monkeypatch.setattr(files, "write", full)
    assert main(["init", str(tmp_path / "below" / "mine")]) == 2
    assert capsys.readouterr().err.endswith("first.py: No space left on device\n")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(("text", "says"), [("def saliency(:", "SyntaxError: invalid syntax (steepest.py, line 1)"), ("\0", "null bytes")])
def test_a_plug_in_that_cannot_be_read_is_named(project: Path, winnow: Winnow, text: str, says: str) -> None:
    (project / "pruners" / "steepest.py").write_text(text)
    said = refused(winnow("plan", "first", folder=project))
    assert said.startswith(f"{project}/pruners/steepest.py cannot be read: SyntaxError: ")
    assert says in said
    assert winnow("plan", "first", "--set=pruners=snip", folder=project).returncode == 0


def test_a_folder_that_was_removed_meanwhile_is_one_line(tmp_path: Path, winnow: Winnow) -> None:
    (tmp_path / "gone").mkdir()
    program = (
        f"import os, shutil; os.chdir('gone'); shutil.rmtree('../gone'); os.execl({sys.executable!r}, 'python', '-m', 'winnow', 'list')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (2, "error: the current folder has been removed; change to another one\n")


def test_settings_are_defaults_that_the_environment_and_the_command_line_beat(project: Path, winnow: Winnow, tmp_path: Path) -> None:
    (project / "winnow.toml").write_text('storage = "results"\n[defaults]\nstack_size = 3\ngpu_fraction = 1\n')
    program = "from service.storage import paths; from trainables import project; project.apply(); print(paths.root())"

    def root(**more: str) -> str:
        command = [sys.executable, "-c", program]
        environment = {name: value for name, value in os.environ.items() if name != "WINNOW_STORAGE"} | {"PYTHONPATH": str(ROOT)} | more
        return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=True).stdout.strip()

    assert root() == str(project / "results")
    assert root(WINNOW_STORAGE=str(tmp_path / "other")) == str(tmp_path / "other")
    assert "stacks of at most 3" in winnow("plan", "first", "--device=cpu", folder=project).stdout
    assert "stacks of at most 2" in winnow("plan", "first", "--device=cpu", "--stack-size=2", folder=project).stdout


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("storage = ", "winnow.toml cannot be read: Invalid value"),
        (
            'storge = "here"',
            "winnow.toml 'storge'; there are: storage, cache, datasets, tracking, experiment, study_storage, import, defaults",
        ),
        ("storage = 3", "winnow.toml: storage = 3 is not a string"),
        ('import = "my_envs"', "winnow.toml: import = 'my_envs' is not a list of strings"),
        ("import = [1]", "winnow.toml: import = [1] is not a list of strings"),
        ("defaults = 1", "winnow.toml: defaults = 1 is not a table"),
        ("[defaults]\nstack = 3", "no option in [defaults] of winnow.toml 'stack'; there are: checkpoint_every, device, execution,"),
        ('[defaults]\nstack_size = "3"', "[defaults] of winnow.toml: stack_size = '3' is not an integer"),
        ("[defaults]\nstack_size = true", "[defaults] of winnow.toml: stack_size = True is not an integer"),
        ("[defaults]\nstack_size = 0", "--stack-size 0 is less than 1"),
        ('[defaults]\ndevice = "tpu"', "no device 'tpu'; there are: auto, all, cpu, cuda"),
    ],
)
def test_bad_settings_are_one_line(project: Path, winnow: Winnow, text: str, says: str) -> None:
    (project / "winnow.toml").write_text(text)
    assert says in refused(winnow("plan", "first", folder=project))


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("pruners/snip.py", "pruner"),
        ("algorithms/bc.py", "algorithm"),
        ("sweeps/smoke.py", "sweep"),
    ],
)
def test_a_name_that_is_taken_is_refused(project: Path, winnow: Winnow, file: str, kind: str) -> None:
    (project / file).write_text("")
    said = refused(winnow("plan", "first", folder=project))
    assert said == f"{project / file} has the name of a{'n' * (kind[0] in 'ae')} {kind} that ships with Winnow; give it another one"


def test_a_projects_file_counts_for_an_environment_that_we_know_too(project: Path) -> None:
    """Such as the one that `winnow init` writes. Reference returns of one's own are a choice, and scores are about them."""
    (project / "environments" / "zebra.py").write_text("IDS = ('Swimmer-v5', 'Hopper-v5')\nRANDOM_RETURN, EXPERT_RETURN = 1.0, 2.0\n")
    named = ("InvertedPendulum-v5", "InvertedDoublePendulum-v5", "Swimmer-v5", "Hopper-v5", "Hopper-v4")
    program = f"from trainables import environments as e; print(*(e.family_of(name) for name in {named}), e.reference('Hopper-v5').expert)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=project, env={"PYTHONPATH": str(ROOT), "PATH": ""}, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["inverted_pendulum", "inverted_pendulums", "zebra", "zebra", "hopper", "2.0"], done.stderr


def test_a_file_that_cannot_be_imported_is_named(project: Path, winnow: Winnow) -> None:
    (project / "sweeps" / "broken.py").write_text("1 / 0\n")
    said = refused(winnow("plan", "broken", folder=project))
    assert said == f"{project}/sweeps/broken.py cannot be imported: ZeroDivisionError: division by zero"
    (project / "sweeps" / "broken.py").write_text("SWEEP = 3\n")
    assert refused(winnow("plan", "broken", folder=project)) == f"{project}/sweeps/broken.py: SWEEP is a int, not a Sweep"


def test_a_project_that_is_named_must_be_one(tmp_path: Path, winnow: Winnow) -> None:
    said = refused(winnow("plan", "smoke", WINNOW_PROJECT=str(tmp_path)))
    assert said == f"WINNOW_PROJECT {tmp_path} holds no winnow.toml; `winnow init {tmp_path}` makes one"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_another_users_project_is_not_run(project: Path, winnow: Winnow) -> None:
    os.chown(project / "winnow.toml", 12345, 12345)
    assert "winnow.toml is another user's, whose code would run; WINNOW_PROJECT=" in refused(winnow("plan", "first", folder=project))
    assert winnow("plan", "first", folder=project, WINNOW_PROJECT=str(project)).returncode == 0


def test_the_hash_of_a_projects_plug_ins_is_part_of_the_revision(project: Path) -> None:
    program = "from service.planning.provenance import revision; print(revision())"

    def revision(folder: Path) -> str:
        environment = {name: value for name, value in os.environ.items() if name != "WINNOW_REVISION"} | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, "-c", program], cwd=folder, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    plain, first = revision(ROOT), revision(project)
    assert first.startswith(f"{plain}+project-")
    pruner = project / "pruners" / "steepest.py"
    pruner.write_text(pruner.read_text() + "\n")
    assert revision(project).startswith(f"{plain}+project-")
    assert revision(project) != first
