"""`winnow ... | head`: when the reader has gone, a command ends quietly, with the exit code that shells expect."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.ledger.manifest import Manifest
from service.spool.writer import StackSpool
from tests.faults.support.harness import LONG
from tests.service.conftest import ROOT, Command
from trainables.reports import Checkpointed, Trained
from trainables.trial import Stack, Trial


def told(arguments: list[str], service: Command, out: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "service", *arguments]
    environment = {name: value for name, value in service.environment.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=subprocess.PIPE)


def test_the_reader_goes_in_the_middle_of_a_long_story(service: Command, storage: Path) -> None:
    trial = Trial(dataset="test/hopper/random-v0", algorithm="bc", updates=3000)
    journal = Manifest(storage, "smoke")
    journal.plan([trial])
    journal.close()
    listener = StackSpool(Stack((trial,)), storage, {trial.dataset: {}}, 3000)
    for update in range(1, 3001):
        listener(Trained(update, [{"train/actor_loss": 1 / update}], 50.0))
    listener(Checkpointed(3000))
    listener.close()
    process = told(["logs", trial.key], service, subprocess.PIPE)
    assert process.stdout
    assert process.stdout.readline() == f"{trial.key}  {trial.name}\n".encode()
    process.stdout.close()
    _, errors = process.communicate(timeout=LONG)
    assert (process.returncode, errors) == (141, b"")


@pytest.mark.parametrize("arguments", [["plan", "quickstart"], ["--help"]])
def test_the_reader_has_gone_before_a_short_answer(arguments: list[str], service: Command) -> None:
    """Which is written when all is done."""
    reading, writing = os.pipe()
    os.close(reading)
    process = told(arguments, service, writing)
    os.close(writing)
    _, errors = process.communicate(timeout=LONG)
    assert (process.returncode, errors) == (141, b"")


def test_another_pipe_that_breaks_is_an_error_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    import service.__main__ as commands

    def broken(argv: object) -> int:
        raise BrokenPipeError("a server hung up")

    monkeypatch.setattr(commands, "_run", broken)
    with pytest.raises(BrokenPipeError, match="a server hung up"):
        commands.main([])
