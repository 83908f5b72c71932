from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
Winnow = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def winnow(tmp_path: Path, table_cache: Path) -> Winnow:
    """`winnow("plan", "first", folder=...)`, with nothing set by the environment."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("WINNOW_", "MLFLOW_", "MINARI_", "RAY_"))}

    def run(*arguments: str, folder: Path = tmp_path, module: str = "winnow", **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", module, *arguments]
        given = environment | {"PYTHONPATH": str(ROOT), "WINNOW_CACHE": str(table_cache)} | more
        return subprocess.run(command, cwd=folder, env=given, capture_output=True, text=True, check=False, timeout=600)

    return run


@pytest.fixture
def project(tmp_path: Path, winnow: Winnow) -> Path:
    made = winnow("init", "mine")
    assert made.returncode == 0, made.stderr
    assert made.stdout.endswith(f"now: cd {tmp_path / 'mine'}; winnow run first\n")
    return tmp_path / "mine"


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of a refusal."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line.removeprefix("error: ")
