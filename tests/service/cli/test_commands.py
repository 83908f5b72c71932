"""What people type: the help of every command and its example, what Tab offers, and what a pipe gets."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from search_spaces.sweep import sweep_names
from service.__main__ import main
from service.cli import parser as commands
from service.delivery import export
from service.ledger.manifest import Manifest
from tests.service.conftest import ROOT
from trainables.trial import Trial


def every(parser: argparse.ArgumentParser, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of a parser, of those below it, and so on."""
    yield words
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                yield from every(below, (*words, name))


HELPS = list(every(commands.parser()))


@pytest.mark.parametrize("command", HELPS, ids=["itself", *map(" ".join, HELPS[1:])])
def test_every_help_has_an_example_that_parses(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([*command, "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert "\x1b" not in text
    _, _, examples = text.partition("example")
    lines = [line for line in examples.splitlines() if line.startswith("  python -m service ")]
    assert lines, text
    for line in lines:
        arguments = shlex.split(line)[3:]
        assert tuple(arguments[: len(command)]) == command
        assert commands.parser().parse_args(arguments).command == arguments[0]


def test_all_helps_are_asked_for_and_that_of_one_trial_too(capsys: pytest.CaptureFixture[str]) -> None:
    from trainables.__main__ import parser

    assert {" ".join(words) for words in HELPS} > {
        "run",
        "datasets",
        "datasets list",
        "datasets collect",
        "datasets import",
        "datasets check",
    }
    with pytest.raises(SystemExit):
        parser().parse_args(["--help"])
    lines = [line.strip() for line in capsys.readouterr().out.splitlines() if line.strip().startswith("python -m trainables ")]
    assert lines
    for line in lines:
        assert parser().parse_args(shlex.split(line)[3:]).dataset.startswith("winnow/")


def test_every_command_has_a_function_and_every_format_a_writer() -> None:
    import service.__main__ as module

    assert all(callable(getattr(module, name)) for name in commands.COMMANDS)
    assert tuple(export.WRITERS) == commands.FORMATS


TRIAL = Trial(dataset="winnow/hopper/medium-v0", algorithm="bc", updates=10, evaluations=1)


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage with one planned trial."""
    storage = tmp_path_factory.mktemp("completion") / "storage"
    manifest = Manifest(storage, "smoke")
    manifest.plan([TRIAL])
    manifest.close()
    return storage


# Asks bash, set up by the README's line, as Tab does: the words, and which of them the cursor is in.
TAB = """
source <(activate-global-python-argcomplete --dest -)
COMP_LINE={line}; COMP_POINT=${{#COMP_LINE}}; COMP_TYPE=9; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
COMP_WORDBREAKS=$' \\t\\n"\\'><=;|&(:'
_python_argcomplete_global python
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def tab(line: str, storage: Path) -> list[str]:
    """What bash would offer after `line`."""
    words = " ".join(shlex.quote(word) for word in [*line.split(" ")])
    script = TAB.format(line=shlex.quote(line), words=words)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "WINNOW_STORAGE": str(storage), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [text.strip() for text in done.stdout.splitlines()]


def test_tab_offers_commands_sweeps_options_and_trials(planned: Path) -> None:
    assert tab("python -m service re", planned) == ["resume", "results", "report"]
    assert tab("python -m service plan s", planned) == [name for name in sweep_names() if name.startswith("s")]
    assert tab("python -m service run smoke --st", planned) == ["--storage", "--stack-size", "--study-storage"]
    assert tab("python -m service run smoke --set see", planned) == ["seeds="]
    assert tab("python -m service rollout bc/", planned) == [TRIAL.name]
    assert tab(f"python -m service logs {TRIAL.key[:4]}", planned) == [TRIAL.key]
    assert sorted(tab("python -m service export x --format ", planned)) == sorted(commands.FORMATS)


def test_the_readme_says_how() -> None:
    assert "activate-global-python-argcomplete" in (ROOT / "README.md").read_text()


def test_a_pipe_gets_no_colours(planned: Path) -> None:
    for arguments in (["plan", "smoke"], ["status", "smoke"], ["logs", TRIAL.key], ["nonsense"], ["status", "nobody"]):
        command = [sys.executable, "-m", "service", *arguments, *(["--storage", str(planned)] if len(arguments) > 1 else [])]
        done = subprocess.run(command, cwd=ROOT, env=os.environ | {"TERM": "xterm-256color"}, capture_output=True, check=False)
        assert done.stdout + done.stderr
        assert not re.search(rb"\x1b", done.stdout + done.stderr)
