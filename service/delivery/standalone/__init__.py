"""Files that go to people who have no Winnow: beside an exported policy, and into a model of MLflow's registry."""

from pathlib import Path


def source(name: str) -> bytes:
    """The text of one of them."""
    return (Path(__file__).parent / f"{name}.py").read_bytes()
