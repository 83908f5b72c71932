"""Files that state the same thing agree: the version, the license, the linters, the targets that `make help` lists."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OUTSIDE_MAKE = {
    name: value for name, value in os.environ.items() if name not in ("MAKELEVEL", "MAKEFLAGS", "MFLAGS")
}  # prints no "make[1]:"
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())


def recipe(target: str) -> list[str]:
    """The commands of a target, with $(BIN) filled in."""
    (lines,) = re.findall(rf"^{target}:.*\n((?:\t.*\n)+)", MAKEFILE, re.M)
    return [line.strip().removeprefix("@").replace("$(BIN)", ".venv/bin") for line in lines.splitlines()]


def test_pre_commit_runs_what_make_lint_runs() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    hooks = repository["hooks"]
    assert [hook["entry"] for hook in hooks] == recipe("lint")
    assert len({hook["id"] for hook in hooks}) == len(hooks)
    assert all(hook["always_run"] and not hook["pass_filenames"] for hook in hooks)


def test_ci_runs_the_linters_and_the_tests() -> None:
    assert [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if line.startswith("make")] == ["make lint", "make test"]


def test_the_version_is_the_newest_one_of_the_changelog() -> None:
    released = re.findall(r"^## \[?([\d.]+)\]? - (\S+)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert released[0] == (PROJECT["version"], CITATION["date-released"])
    assert CITATION["version"] == PROJECT["version"]


def test_the_license_is_the_one_that_is_named() -> None:
    assert PROJECT["license"] == CITATION["license"] == "Apache-2.0"
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License\n                           Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert "!LICENSE" in (ROOT / ".dockerignore").read_text().splitlines()


def test_make_help_lists_every_target() -> None:
    (phony,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.M)
    done = subprocess.run(["make", "help"], cwd=ROOT, env=OUTSIDE_MAKE, capture_output=True, text=True, check=True)
    listed = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert list(listed) == phony.split()
    assert listed["lint"] == "formatting, style, types, direction of imports"


def test_make_alone_runs_the_sweep() -> None:
    assert re.findall(r"^([a-z-]+):", MAKEFILE, re.M)[0] == "sweep"
