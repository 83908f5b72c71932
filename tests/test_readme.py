"""The README's commands work. tests/test_documents.py checks its links."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from search_spaces.sweep import sweep_names
from service.cli.parser import parser
from tests.faults.support.harness import LONG
from tests.warm import Warm

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
COMMANDS = [line.split("#")[0].strip() for block in BLOCKS for line in block.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory, warm: Warm) -> dict[str, str]:
    """A recorded dataset of few transitions, and the storage, in temporary folders."""
    folder = tmp_path_factory.mktemp("readme")
    folders = {"MINARI_DATASETS_PATH": str(folder / "minari"), "WINNOW_STORAGE": str(folder / "storage")}
    variables = os.environ | folders
    run(warm, ["-m", "trainables.datasets.collect", "record", "winnow/halfcheetah/expert-v0", "--transitions", "2000"], variables)
    return variables


def run(warm: Warm, words: list[str], environment: dict[str, str]) -> str:
    """What `python` says to `words`."""
    command = [sys.executable, *words]
    done = warm(command, cwd=ROOT, env=environment, timeout=LONG)
    assert done.returncode == 0, f"{command}: {done.stderr or done.stdout}"
    return done.stdout


def of_module(module: str) -> list[str]:
    """The README's commands that call `python -m module`, also inside `ray job submit ... --`; `winnow` calls `service`."""
    inner = [re.sub("^winnow ", "python -m service ", command.split(" -- ")[-1]) for command in COMMANDS]
    return [command for command in inner if command.startswith(f"python -m {module} ")]


def test_every_command_is_of_a_kind_that_is_tested_here() -> None:
    known = ("make ", "winnow ", "ray start --head", "ray job submit ", *(f"python -m {name} " for name in MODULES))
    assert [command for command in COMMANDS if not command.startswith(known)] == []
    assert all(of_module(name) for name in MODULES)
    assert any(command.startswith("winnow ") for command in COMMANDS)


MODULES = ("trainables", "service")


def test_the_one_trial_command(environment: dict[str, str], warm: Warm) -> None:
    (command,) = of_module("trainables")
    short = ["--updates", "6", "--evaluations", "1", "--episodes", "1"]
    out = run(warm, [*shlex.split(command)[1:], *short], environment)
    assert "td3_bc/halfcheetah-expert/snip@95/s0" in out
    assert "after 6 updates: return" in out


PLANNED = re.compile(" (plan|run|resume) ")  # `plan` shows what these would do
DATASETS = [command for command in of_module("service") if " datasets " in command]


@pytest.mark.parametrize("command", [c for c in of_module("service") if PLANNED.search(c)])
def test_what_the_sweep_commands_would_run(command: str, environment: dict[str, str], warm: Warm) -> None:
    out = run(warm, shlex.split(PLANNED.sub(" plan ", command))[1:], environment)
    assert "winnow/halfcheetah/" in out


@pytest.mark.parametrize("command", [c for c in of_module("service") if not PLANNED.search(c) and c not in DATASETS])
def test_the_other_service_commands_know_their_options_and_the_sweep(command: str) -> None:
    arguments = parser().parse_args(shlex.split(command)[3:])
    assert (getattr(arguments, "sweep", None) or "quickstart") in sweep_names()


def test_the_dataset_commands(environment: dict[str, str], warm: Warm) -> None:
    assert any(" collect " in command for command in DATASETS)
    for command in DATASETS:
        few = ["--transitions", "1000"] if " collect " in command else []
        run(warm, [*shlex.split(command)[1:], *few], environment)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("make ")])
def test_the_make_targets_exist(command: str) -> None:
    subprocess.run([*shlex.split(command), "--dry-run"], cwd=ROOT, capture_output=True, check=True, timeout=LONG)
