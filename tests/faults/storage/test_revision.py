"""The revision of the code that trials are tagged with: two uncommitted states of one commit are not the same code."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from service.planning import provenance
from service.planning.provenance import revision

from ..conftest import Record

COMMIT = ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qam", "all"]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git checkout with two files of code, one sweep and one document."""
    for name in ("trainables/a.py", "service/__init__.py", "search_spaces/mine.py", "README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("one\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, *COMMIT)
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    monkeypatch.delenv("WINNOW_REVISION", raising=False)
    return tmp_path


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def test_two_uncommitted_states_are_two_revisions(checkout: Path, record: Record) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    seen = [revision()]
    assert seen == [commit]
    (checkout / "README.md").write_text("two\n")
    assert revision() == f"{commit}-dirty", "no code was changed"
    for text in ("two\n", "three\n"):
        (checkout / "trainables" / "a.py").write_text(text)
        seen.append(revision())
    (checkout / "trainables" / "new.py").write_text("a plug-in that git does not know\n")
    seen.append(revision())
    git(checkout, "add", ".")
    assert revision() == seen[-1], "added, but with the same content"
    (checkout / "trainables" / "a.py").unlink()
    seen.append(revision())
    assert len(set(seen)) == len(seen)
    assert all(code.startswith(f"{commit}-dirty-") for code in seen[1:])
    git(checkout, *COMMIT)
    assert revision() == git(checkout, "rev-parse", "HEAD")
    record("code changed twice without a commit: two revisions", kills="")


def test_what_is_not_in_git_is_named_by_its_content(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = checkout / "library"  # installed inside somebody's checkout, whose commit says nothing about it
    (library / "service").mkdir(parents=True)
    (library / "service" / "__init__.py").write_text("one\n")
    monkeypatch.setattr(provenance, "ROOT", library)
    first = revision()
    assert first.startswith("source-")
    (library / "service" / "kernel.c").write_text("int x;\n")
    assert revision() != first
    assert revision().startswith("source-")
    monkeypatch.setenv("PATH", "/nowhere")  # no git
    monkeypatch.setattr(provenance, "ROOT", checkout)
    assert revision().startswith("source-")
    monkeypatch.setenv("WINNOW_REVISION", "given")
    assert revision() == "given"
