"""Who has asked for a run: what MLflow shows as its user, source and commit."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from service.planning import submitter as asking
from service.planning.provenance import commit
from trainables import project

COMMIT = "1f2e3d4c5b6a79880f1e2d3c4b5a69788f9e0d1c"


def test_a_submitted_job_is_of_who_submitted_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "alice")
    monkeypatch.setenv("WINNOW_REVISION", f"{COMMIT}-dirty-12345678")
    monkeypatch.setattr("service.planning.provenance._git", lambda *_, **__: [])  # as in a copy without git
    sent = asking.this_process("winnow submit smoke", asking.JOB)
    assert sent == {"user": "alice", "name": "winnow submit smoke", "type": "JOB", "commit": COMMIT}
    monkeypatch.setattr("getpass.getuser", lambda: "root")
    monkeypatch.setenv(asking.VARIABLE, json.dumps(sent))
    assert asking.submitter("winnow run smoke") == sent
    monkeypatch.setenv(asking.VARIABLE, json.dumps(sent | {"token": "sesame"}))
    assert asking.submitter("winnow run smoke") == sent, "what it holds beside is not kept"
    for broken in ("{", "[]", "7", "{}"):
        monkeypatch.setenv(asking.VARIABLE, broken)
        assert asking.submitter("winnow run smoke").get("user", "root") == "root"
    monkeypatch.delenv(asking.VARIABLE)
    assert asking.submitter("winnow run smoke") == {"user": "root", "name": "winnow run smoke", "type": "LOCAL", "commit": COMMIT}


def test_nothing_secret_is_kept_and_a_user_without_a_name_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr("getpass.getuser", nameless)
    monkeypatch.setenv("MY_TOKEN", "sesame-open")
    told = asking.this_process("winnow run smoke --set=dataset=https://me:geheim@host/sesame-open")
    assert "user" not in told
    assert told["name"] == "winnow run smoke --set=dataset=https://***@host/***"


def test_the_commit_is_that_of_the_project_where_it_is_in_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*words: str) -> str:
        about = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        return subprocess.run(["git", *about, *words], cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()

    monkeypatch.setenv("WINNOW_REVISION", "no commit")
    monkeypatch.setattr("service.planning.provenance.ROOT", tmp_path / "installed")
    (tmp_path / "installed").mkdir()
    assert commit() == ""
    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "first")
    assert commit() == "", "a repository around the installed library is not of it"
    monkeypatch.setattr(project, "root", lambda: tmp_path)
    assert commit() == git("rev-parse", "HEAD")
