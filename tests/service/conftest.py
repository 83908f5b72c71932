from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.support.harness import LONG

Command = Callable[..., subprocess.CompletedProcess[str]]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage root that does not exist yet."""
    return tmp_path_factory.mktemp("service") / "storage"


@pytest.fixture(scope="module")
def service(storage: Path, hopper_folder: Path, table_cache: Path) -> Command:
    """`service("plan", "smoke")`: a command in a process of its own, as users start it, with the small Hopper dataset at hand."""
    places = {"MINARI_DATASETS_PATH": str(hopper_folder), "WINNOW_CACHE": str(table_cache), "WINNOW_STORAGE": str(storage)}
    environment = os.environ | places | {"WINNOW_REVISION": "abc123"}
    for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
        environment.pop(name, None)

    def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "service", *arguments]
        return subprocess.run(command, cwd=ROOT, env=environment | more, capture_output=True, text=True, check=False, timeout=LONG)

    run.environment = environment  # type: ignore[attr-defined]
    return run
