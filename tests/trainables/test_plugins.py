from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from trainables import plugins
from trainables.errors import UserError


@pytest.mark.parametrize("folder", ["algorithms", "pruners", "environments"])
def test_names_are_the_files_of_the_folder(folder: str) -> None:
    found = {path.stem for path in (plugins.ROOT / folder).rglob("*.py") if path.stem[0] != "_"}
    assert set(plugins.names(folder)) == found
    assert list(plugins.names(folder)) == sorted(found)


def test_what_the_first_release_promises_is_there() -> None:
    assert {"bc", "td3_bc", "iql"} <= set(plugins.names("algorithms"))
    assert {"dense", "random_uniform", "random_erk", "magnitude", "snip", "grasp", "synflow"} <= set(plugins.names("pruners"))


@pytest.mark.parametrize("name", ["snap", "", "__init__", "../trial", "snip.py", "SNIP"])
def test_a_wrong_name_is_answered_with_the_right_ones(name: str) -> None:
    with pytest.raises(UserError) as caught:
        plugins.load("pruners", name)
    assert repr(name) in str(caught.value)
    assert all(right in str(caught.value) for right in plugins.names("pruners"))


@pytest.mark.parametrize("folder", ["algorithms", "pruners"])
def test_titles_are_read_from_the_source_and_no_two_are_alike(folder: str) -> None:
    titles = {name: plugins.title(folder, name) for name in plugins.names(folder)}
    assert titles == {name: plugins.load(folder, name).TITLE for name in titles}
    assert len(set(titles.values())) == len(titles)


def test_papers_names_are_the_titles() -> None:
    assert [plugins.title("algorithms", name) for name in ("td3_bc", "rebrac")] == ["TD3+BC", "ReBRAC"]
    assert [plugins.title("pruners", name) for name in ("grasp", "random_erk")] == ["GraSP", "Random (ERK)"]


def test_a_plug_in_without_a_title_goes_by_its_files_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pruners").mkdir()
    (tmp_path / "pruners" / "untitled.py").write_text("def saliency(network): ...\n")
    monkeypatch.setattr(plugins, "ROOT", tmp_path)
    for cached in ("_files", "names"):
        monkeypatch.setattr(plugins, cached, getattr(plugins, cached).__wrapped__)
    assert plugins.title("pruners", "untitled") == "untitled"


def test_constants_are_read_with_a_type_and_refused_where_they_are_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "algorithms").mkdir()
    lines = ["NORMALIZE: bool = True", 'LEARNING_RATES: dict[str, str] = {"actor": "rate"}', "TITLE = str(1)", "RETURNS: bool"]
    (tmp_path / "algorithms" / "typed.py").write_text("\n".join(lines))
    monkeypatch.setattr(plugins, "ROOT", tmp_path)
    for cached in ("_files", "names"):
        monkeypatch.setattr(plugins, cached, getattr(plugins, cached).__wrapped__)
    assert plugins.normalizes("typed")
    assert plugins.networks("typed") == ("actor",)
    assert plugins.defines("algorithms", "typed") == {"NORMALIZE", "LEARNING_RATES", "TITLE"}
    assert plugins.constant("algorithms", "typed", "RETURNS") is None
    with pytest.raises(UserError, match=r"^algorithms/typed\.py: TITLE = str\(1\), which is read without running the file"):
        plugins.title("algorithms", "typed")


@pytest.mark.parametrize("name", plugins.names("algorithms"))
def test_hyperparameters_read_from_the_source_are_those_of_the_class(name: str) -> None:
    made = plugins.load("algorithms", name).Hyper()
    assert plugins.hyper_defaults(name) == {field.name: getattr(made, field.name) for field in fields(made)}


@pytest.mark.parametrize("name", plugins.names("algorithms"))
def test_every_hyperparameter_names_its_source(name: str) -> None:
    text = (plugins.ROOT / "algorithms" / f"{name}.py").read_text()
    for line in text.split("class Hyper:")[1].split("\n\n\n")[0].strip().splitlines():
        assert " # " in line, line
