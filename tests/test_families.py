"""One small dataset of each family of environments is read, played, scored, exported and filmed, and docs/data.md says so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.learning import families

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the program writes for each family, of three time steps and ten updates; in a process of its own, which chooses a renderer."""
    page = tmp_path_factory.mktemp("families") / "page.md"
    page.write_text("<!-- families -->\n<!-- end -->\n")
    command = [sys.executable, "-m", "benchmarks.learning.families", "table", "--page", str(page), "--steps", "3", "--updates", "10"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = page.read_text().splitlines()[3:-1]
    assert len(lines) == len(families.FAMILIES)
    return {line.split(" | ")[0].removeprefix("| "): line for line in lines}


@pytest.mark.parametrize("family", families.FAMILIES)
def test_each_stage_works_and_the_page_says_so(table: dict[str, str], family: str) -> None:
    told = next(line for line in families.PAGE.read_text().splitlines() if line.startswith(f"| {family} |"))
    if "no renderer works" in table[family]:  # the machine's lack; all but the film is there
        assert table[family].partition("no: ")[0] == told.removesuffix("yes |")
    else:
        assert table[family] == told, "python -m benchmarks.learning.families"
    assert told.count("yes") == 4


def test_every_family_of_the_hub_and_every_environment_with_a_file_is_there() -> None:
    from trainables import environments

    recorded = {environments.family_of(each.environment) for each in families.FAMILIES.values()}
    assert recorded == environments.families().keys() - {"pendulum"}, "Pendulum has no data anywhere; other tests record it"
    assert {each.stored for each in families.FAMILIES.values()} == {"hdf5", "arrow", "parquet", "npz"}
