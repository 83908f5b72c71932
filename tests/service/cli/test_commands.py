"""What people type: the help of every command and its example, what Tab offers, and what a pipe gets."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from search_spaces.sweep import Sweep, load_sweep, override, sweep_names
from search_spaces.sweep import fields as sweep_fields
from service.__main__ import main
from service.cli.commands import commands
from service.cli.parser import parser
from service.cli.trials.export import FORMATS
from service.delivery import export
from service.ledger.manifest import Manifest
from tests.service.conftest import ROOT
from trainables import plugins
from trainables.trial import CHOICES, TRAINING_CHOICES, Trial


def every(known: argparse.ArgumentParser, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of a parser, of those below it, and so on."""
    yield words
    for action in known._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                yield from every(below, (*words, name))


HELPS = list(every(parser()))


@pytest.mark.parametrize("command", HELPS, ids=["itself", *map(" ".join, HELPS[1:])])
def test_every_help_has_an_example_that_parses(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([*command, "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert "\x1b" not in text
    _, _, examples = text.partition("example")
    lines = [line for line in examples.splitlines() if line.startswith("  winnow ")]
    assert lines, text
    for line in lines:
        arguments = shlex.split(line)[1:]
        assert tuple(arguments[: len(command)]) == command
        assert parser().parse_args(arguments).command == arguments[0]


def test_all_helps_are_asked_for_and_that_of_one_trial_too(capsys: pytest.CaptureFixture[str]) -> None:
    from trainables.__main__ import parser as of_one_trial

    assert {" ".join(words) for words in HELPS} > {
        "run",
        "datasets",
        "datasets list",
        "datasets collect",
        "datasets import",
        "datasets check",
    }
    with pytest.raises(SystemExit):
        of_one_trial().parse_args(["--help"])
    lines = [line.strip() for line in capsys.readouterr().out.splitlines() if line.strip().startswith("python -m trainables ")]
    assert lines
    for line in lines:
        assert of_one_trial().parse_args(shlex.split(line)[3:]).dataset.startswith("winnow/")


def test_every_format_has_a_writer() -> None:
    assert tuple(export.WRITERS) == FORMATS


@pytest.mark.parametrize("name", commands())
def test_a_command_is_told_in_one_line_with_an_example_of_its_own(name: str) -> None:
    command = commands()[name]
    assert command.help.splitlines() == [command.help]
    assert not command.help.endswith(".")
    assert command.example.split()[0] == name
    assert parser().parse_args(shlex.split(command.example)).call is command.call


HELLO = """
from service.cli import arguments as shared

HELP = "greet a sweep"
EXAMPLE = "hello quickstart --loud"


def arguments(parser):
    shared.sweep(parser)
    parser.add_argument("--loud", action="store_true")


def call(arguments, storage):
    print("HELLO" if arguments.loud else "hello", arguments.sweep, storage.name)
    return 7
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the code."""
    folder = tmp_path_factory.mktemp("copy")
    left_out = shutil.ignore_patterns("__pycache__", "*.npz", "*.safetensors")
    for package in ("winnow", "service", "search_spaces", "trainables"):
        shutil.copytree(ROOT / package, folder / package, ignore=left_out)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def said(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "service", *arguments]
    environment = os.environ | {"PYTHONPATH": str(folder)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("room", ["sweeps", "trials", "machine"])
def test_to_add_a_command_is_to_add_a_file(room: str, copy: Path, planned: Path) -> None:
    assert said(copy, "hello", "smoke").returncode == 2
    file = copy / "service" / "cli" / room / "hello.py"
    file.write_text(HELLO)
    try:
        assert "  hello     greet a sweep\n" in said(copy, "--help").stdout
        assert "example:\n  winnow hello quickstart --loud" in said(copy, "hello", "--help").stdout
        ran = said(copy, "hello", "smoke", "--loud", "--storage=here")
        assert (ran.returncode, ran.stdout) == (7, "HELLO smoke here\n"), ran.stderr
        assert tab("winnow he", planned, copy) == ["hello"]
        assert tab("winnow hello smok", planned, copy) == ["smoke"]
        assert tab("winnow hello smoke --lo", planned, copy) == ["--loud"]
    finally:
        file.unlink()


def test_a_file_that_is_no_command_and_a_name_that_is_taken_are_told(copy: Path) -> None:
    for room, name, content, told in (
        ("trials", "hello", HELLO.replace("EXAMPLE", "SAMPLE"), "service/cli/trials/hello.py is not a command: it lacks EXAMPLE"),
        ("machine", "run", HELLO, "two commands are called 'run': one in service/cli/machine/"),
    ):
        file = copy / "service" / "cli" / room / f"{name}.py"
        file.write_text(content)
        try:
            assert told in said(copy, "--help").stderr
        finally:
            file.unlink()


def test_parsing_any_command_imports_nothing_heavy() -> None:
    program = """
import sys
from service.cli.parser import parser
parser()
print(sorted({name.split(".")[0] for name in sys.modules} & {
    "torch", "ray", "mlflow", "optuna", "numpy", "gymnasium", "minari", "h5py", "mujoco", "matplotlib", "boto3", "pyarrow"
}))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("package", ["service", "trainables"])
def test_the_version_is_the_projects(package: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    command = [sys.executable, "-m", package, "--version"]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout == f"winnow {project['version']}\n"


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
{script}
COMP_LINE={line}; COMP_POINT=${{#COMP_LINE}}; COMP_TYPE=9; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
COMP_WORDBREAKS=$' \\t\\n"\\'><=;|&(:'
_python_argcomplete_global winnow
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


PROGRAMS = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


@functools.cache
def completion() -> str:
    """What the README's line has bash source."""
    command = ["activate-global-python-argcomplete", "--dest", "-"]
    return subprocess.run(command, env=os.environ | {"PATH": PROGRAMS}, capture_output=True, text=True, check=True).stdout


def tab(line: str, storage: Path, root: Path = ROOT) -> list[str]:
    """What bash would offer after `line`."""
    words = " ".join(shlex.quote(word) for word in [*line.split(" ")])
    script = TAB.format(script=completion(), line=shlex.quote(line), words=words)
    environment = os.environ | {"PATH": PROGRAMS, "WINNOW_STORAGE": str(storage), "PYTHONPATH": str(root)}
    done = subprocess.run(["bash", "-c", script], cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [text.strip() for text in done.stdout.splitlines()]


def test_tab_offers_commands_sweeps_options_and_trials(planned: Path) -> None:
    assert tab("winnow re", planned) == ["report", "results", "resume"]
    assert tab("winnow plan s", planned) == [name for name in sweep_names() if name.startswith("s")]
    assert tab("winnow run smoke --st", planned) == ["--storage", "--stack-size", "--stalled-after", "--study-storage"]
    assert tab("winnow run smoke --set see", planned) == ["seeds="]
    assert tab("winnow rollout bc/", planned) == [TRIAL.name]
    assert tab(f"winnow logs {TRIAL.key[:4]}", planned) == [TRIAL.key]
    assert sorted(tab("winnow export x --format ", planned)) == sorted(FORMATS)


def test_tab_offers_values(planned: Path) -> None:
    assert tab("winnow run smoke --set pruners=sni", planned) == ["snip"]
    assert tab("winnow plan smoke --set algorithms=bc,iq", planned) == ["bc,iql"]
    assert tab("winnow plan smoke --set hyper.act_", planned) == ["hyper.act_samples="]
    assert tab("winnow plan smoke --set timeouts=t", planned) == ["terminal"]
    assert tab("winnow run smoke --execution sp", planned) == ["sparse"]
    assert tab("winnow datasets show winnow/hopper/rand", planned) == ["winnow/hopper/random-v0"]
    assert tab("winnow datasets collect winnow/walker2d/medium-e", planned) == [f"winnow/walker2d/medium-expert-v{n}" for n in (0, 1)]


def test_tab_and_help_import_nothing_heavy() -> None:
    program = (
        "import sys; from service.cli import completion; from service.cli.parser import parser\n"
        "assert completion.settings('pruners=') and completion.settings('datasets=') and completion.settings('')\n"
        "try: parser().parse_args(['run', '--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'ray', 'mlflow', 'optuna', 'matplotlib', 'gymnasium'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", ["run", "plan", "submit", "results"])
def test_the_help_of_set_names_every_field_and_its_choices(command: str, capsys: pytest.CaptureFixture[str], planned: Path) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for field in dataclasses.fields(Sweep):
        assert f" {field.name}" in text
    for folder in ("algorithms", "pruners"):
        assert f" {folder} {', '.join(plugins.names(folder))}" in text
    for name, choices in (CHOICES | TRAINING_CHOICES).items():
        assert f" {name} {', '.join(str(choice).lower() for choice in choices)} " in text
    assert all(f" {name}" in text for name in (*plugins.hyper_defaults("iql"), *plugins.pruner_settings("rigl"), *plugins.networks("bcq")))


def test_what_the_help_names_is_what_set_takes() -> None:
    sweep = load_sweep("smoke")
    values = {"int": "7", "float": "0.5", "bool": "true"}
    for name in sweep_fields.names():
        if name.startswith("search."):
            continue
        kind = next((type(f.default).__name__ for f in dataclasses.fields(Sweep) if f.name == name), "float")
        value = (sweep_fields.choices(name) or (values.get(kind, "1"),))[0]
        override(sweep, [f"{name}={value}"])


def test_the_words_of_a_trial_are_taken_for_those_of_a_sweep() -> None:
    sweep = load_sweep("smoke")
    trial = ["dataset=a/b-v0", "algorithm=iql", "pruner=snip,grasp", "sparsity=0.5", "seed=0-2"]
    assert override(sweep, trial) == override(
        sweep, ["datasets=a/b-v0", "algorithms=iql", "pruners=snip,grasp", "sparsities=0.5", "seeds=0-2"]
    )


def test_the_readme_says_how() -> None:
    assert "activate-global-python-argcomplete" in (ROOT / "README.md").read_text()


def test_a_pipe_gets_no_colours(planned: Path) -> None:
    for arguments in (["plan", "smoke"], ["status", "smoke"], ["logs", TRIAL.key], ["nonsense"], ["status", "nobody"]):
        command = [sys.executable, "-m", "service", *arguments, *(["--storage", str(planned)] if len(arguments) > 1 else [])]
        done = subprocess.run(command, cwd=ROOT, env=os.environ | {"TERM": "xterm-256color"}, capture_output=True, check=False)
        assert done.stdout + done.stderr
        assert not re.search(rb"\x1b", done.stdout + done.stderr)
