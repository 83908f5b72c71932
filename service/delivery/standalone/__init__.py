"""Files that run without Winnow; copied into exported policies and registered models."""

from pathlib import Path


def source(name: str) -> bytes:
    """The text of one of them."""
    return (Path(__file__).parent / f"{name}.py").read_bytes()
