"""The version of this code."""

from __future__ import annotations

import importlib.metadata
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parents[1] / "pyproject.toml"


def version() -> str:
    """As pyproject.toml declares it where that lies beside the packages, as in a checkout or a job's copy; else of what is installed."""
    if PROJECT.exists():
        return str(tomllib.loads(PROJECT.read_text())["project"]["version"])
    return importlib.metadata.version("winnow-rl")
