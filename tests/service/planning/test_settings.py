"""Training options and a run's settings: typed, rendered, stored; each way there and back."""

from __future__ import annotations

import itertools
import json
import shlex
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import pytest

from service.cli import training
from service.cli.parser import parser
from service.planning.options import TrainingOptions
from service.planning.run_settings import RunSettings
from service.storage import paths
from service.terminal.redaction import hides_secret, redact
from trainables import project
from trainables.errors import UserError

OTHER = {
    "device": "cpu", "execution": "dense", "stack_size": 3, "max_concurrent": 2, "gpu_fraction": 0.25, "checkpoint_every": 50, "tf32": True,
    "stalled_after": 90.0, "max_hours": 2.0, "max_core_hours": 40.0, "max_gpu_hours": 1.5, "until": "07:00", "keep": "final",
    "pin": True, "weight": 2.5, "priority": "low",
    "imports": ("my_envs",),
}  # fmt: skip
SETTINGS = RunSettings(
    overrides=("hyper.hidden=(16, 16)", "seeds=0,1", "datasets=it's/here/a-v0"),
    options=TrainingOptions(**OTHER),
    retry_failed=True,
    fresh=True,
    study_storage="sqlite:////tmp/a b/studies.db?timeout=1",
    new_data=True,
    same_code=True,
)


@pytest.fixture
def in_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "winnow.toml").write_text('[defaults]\nkeep = "final"\npin = true\nmax_hours = 2\n')
    with monkeypatch.context() as patch:
        patch.chdir(tmp_path)
        project.renew()
        yield
    project.renew()


def test_what_a_project_has_otherwise_is_said_though_it_is_usual(in_project: None) -> None:
    """A job reads the project's defaults, too."""
    assert TrainingOptions(keep="all", pin=False).words() == ["--no-pin", "--keep=all"]
    assert TrainingOptions(keep="final", pin=True, max_hours=3.0).words() == ["--pin", "--max-hours=3.0", "--keep=final"]


def typed(words: list[str]) -> RunSettings:
    return training.run_settings(parser().parse_args(["run", "smoke", *words]))


def test_the_test_changes_every_option() -> None:
    assert set(OTHER) == {field.name for field in fields(TrainingOptions)}
    assert all(OTHER[field.name] != field.default for field in fields(TrainingOptions))


@pytest.mark.parametrize(
    "names", [names for count in (0, 1, len(OTHER) - 1) for names in itertools.combinations(OTHER, count)], ids=", ".join
)
def test_options_are_rendered_as_they_are_typed(names: tuple[str, ...]) -> None:
    options = TrainingOptions(**{name: OTHER[name] for name in names})
    assert len(options.words()) == len(names)
    assert typed(options.words()).options == options
    assert TrainingOptions.from_json(json.loads(json.dumps(options.to_json()))) == options


@pytest.mark.parametrize(
    "settings",
    [
        RunSettings(),
        SETTINGS,
        *(
            replace(RunSettings(), **{name: getattr(SETTINGS, name)})
            for name in ("overrides", "retry_failed", "fresh", "study_storage", "new_data", "same_code")
        ),
    ],
)
def test_settings_are_rendered_as_they_are_typed_and_stored_as_they_are(settings: RunSettings, tmp_path: Path) -> None:
    assert typed(settings.words()) == settings
    assert RunSettings.from_json(json.loads(json.dumps(settings.to_json()))) == settings
    shown = shlex.split(settings.command("smoke", tmp_path / "a storage"))
    assert shown[:3] == ["winnow", "run", "smoke"]
    parsed = parser().parse_args(shown[1:])
    assert training.run_settings(parsed) == settings
    assert paths.root(parsed.storage) == tmp_path / "a storage"


def test_the_storage_is_not_repeated_where_it_is_the_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WINNOW_STORAGE", str(tmp_path))
    assert RunSettings().command("smoke", tmp_path) == "winnow run smoke"
    assert RunSettings().command("smoke", paths.root("s3://bucket/a")) == "winnow run smoke --storage=s3://bucket/a"


def test_a_resumed_run_is_continued_by_resume() -> None:
    words = replace(SETTINGS, resumed=True).words()
    given = parser().parse_args(["resume", "smoke", *words])
    assert TrainingOptions(**training.typed_options(given)) == SETTINGS.options
    assert (given.study_storage, given.new_data, given.same_code) == (SETTINGS.study_storage, True, True)


def test_only_what_is_typed_replaces_what_is_stored() -> None:
    assert training.typed_options(parser().parse_args(["resume", "smoke"])) == {}
    assert training.typed_options(parser().parse_args(["resume", "smoke", "--no-tf32", "--device=auto"])) == {
        "tf32": False,
        "device": "auto",
    }


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:secret@studies.example/db", "postgresql://me:***@studies.example/db"),
        ("postgresql://me:sec:r@et@studies.example:5432/db", "postgresql://me:***@studies.example:5432/db"),
        ("postgresql://studies.example/db?user=me&password=secret&x=1", "postgresql://studies.example/db?user=me&password=***&x=1"),
        ("postgresql://me@studies.example/db", "postgresql://me@studies.example/db"),
        ("sqlite:////shared/studies.db?timeout=1", "sqlite:////shared/studies.db?timeout=1"),
    ],
)
def test_a_password_is_neither_stored_nor_shown(url: str, shown: str) -> None:
    settings = RunSettings(study_storage=url)
    assert redact(url, {}) == shown
    assert hides_secret(shown) == (shown != url)
    assert settings.to_json()["study_storage"] == shown
    assert settings.words() == [f"--study-storage={shown}"]


def test_what_older_and_newer_code_stored_can_be_read() -> None:
    assert RunSettings.from_json({}) == RunSettings()
    later = {"options": {"device": "cpu", "colour": "red"}, "mood": "good"}
    assert RunSettings.from_json(later) == RunSettings(options=TrainingOptions(device="cpu"))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"device": "tpu"}, "no device 'tpu'; there are: auto, all, cpu, cuda"),
        ({"execution": "quick"}, "no execution 'quick'; there are: auto, "),
        ({"stack_size": 0}, "--stack-size 0 is less than 1"),
        ({"max_concurrent": -1}, "--max-concurrent -1 is less than 1"),
        ({"checkpoint_every": 0}, "--checkpoint-every 0 is less than 1"),
        ({"stalled_after": 0.0}, "--stalled-after 0 is not above 0"),
        ({"max_hours": 0.0}, "--max-hours 0 is not a positive number of hours"),
        ({"max_core_hours": float("nan")}, "--max-core-hours nan is not a positive number of hours"),
        ({"max_gpu_hours": float("inf")}, "--max-gpu-hours inf is not a positive number of hours"),
        ({"keep": "nothing"}, "no choice of --keep 'nothing'; there are: all, final, curves"),
        ({"until": "24:00"}, "--until '24:00' is not a time of day from 00:00 to 23:59, e.g. 07:00 or"),
        ({"gpu_fraction": 1.5}, "--gpu-fraction 1.5 is outside"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused(wrong: dict[str, object], says: str) -> None:
    with pytest.raises(UserError, match=says):
        TrainingOptions(**wrong)  # type: ignore[arg-type]
