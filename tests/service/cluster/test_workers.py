"""What workers of an embedded Ray can import."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from service.cluster import workers
from service.cluster.workers import OursFirst, folders_of
from trainables import project


def test_workers_find_the_modules_that_are_named_where_the_driver_has_found_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder, name in (("one", "named_module"), ("two", "named_package/__init__")):
        (tmp_path / folder / name).parent.mkdir(parents=True)
        (tmp_path / folder / f"{name}.py").write_text("")
        monkeypatch.syspath_prepend(tmp_path / folder)
    import named_module
    import named_package

    assert folders_of(["named_module", named_package.__name__ + ".below", "not_imported"]) == [str(tmp_path / "one"), str(tmp_path / "two")]
    monkeypatch.setenv("WINNOW_IMPORT", named_module.__name__)
    config = OursFirst()
    assert str(tmp_path / "one").encode() in config._serialize()


def test_a_projects_package_is_in_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is made, not read from a file (trainables/project.py); workers make their own."""
    monkeypatch.setitem(sys.modules, project.PACKAGE, ModuleType(project.PACKAGE))
    assert folders_of([f"{project.PACKAGE}.environments.mine"]) == []


def test_a_worker_whose_node_was_just_lost_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = {"NodeID": "a", "Alive": False, "NodeManagerAddress": "10.0.0.9"}
    monkeypatch.setattr(workers.ray, "nodes", lambda: [lost])
    place = SimpleNamespace(pid=1, hostname="10.0.0.9")
    workers.end(SimpleNamespace(temporary_state=SimpleNamespace(location=place)))
