"""Nothing read from a storage runs code, no name leaves the storage, no secret is told."""

from __future__ import annotations

import ast
import json
import pickle
import re
import shutil
from pathlib import Path

import pytest
import torch

from service.storage import paths
from trainables.trial import Trial

from ..conftest import QUICK, Fresh, Record, arguments
from ..support.invariants import Twin, check
from ..support.nursery import ROOT, Nursery
from .test_archives import KEY, MASKS, SPOOL, SWEEP, TRIAL, line, parts, zipped

SECRET = "hunter2hunter2"


class Trap:
    """Unpickled, it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.fixture(scope="module")
def begun(nursery: Nursery, fresh: Fresh, twin: Twin) -> Path:
    """A storage whose sweep was killed halfway."""
    storage = fresh()
    assert nursery.run(*arguments(storage), faults=["no_table", "die_after=Trained@45"]).code == 137
    nursery.run("sync", "smoke", f"--storage={storage}")
    return storage


def kinds(storage: Path) -> dict[str, list[Path]]:
    """Every file that is there, by what it is."""
    found: dict[str, list[Path]] = {}
    for folder in (paths.trials(storage), paths.sweeps(storage)):
        for path in (path for path in sorted(folder.rglob("*")) if path.is_file()):
            kind = f"checkpoint{path.suffix}" if path.parent.name == "checkpoints" else path.name
            found.setdefault(kind, []).append(path)
    return found


@pytest.mark.parametrize(
    "kind",
    [
        "checkpoint.json",
        "checkpoint.safetensors",
        "lock",
        "manifest.jsonl",
        "masks.json",
        "masks.safetensors",
        "shipped.json",
        "spool.jsonl",
        "trial.json",
    ],
)
@pytest.mark.parametrize("form", ["pickle", pytest.param("torch", marks=pytest.mark.slow_faults)])
def test_a_pickle_in_place_of_any_file_does_not_run(
    nursery: Nursery, fresh: Fresh, begun: Path, twin: Twin, tmp_path: Path, kind: str, form: str
) -> None:
    storage, mark = fresh(), tmp_path / "mark"
    shutil.copytree(begun, storage, dirs_exist_ok=True)
    for path in kinds(storage)[kind]:
        if form == "pickle":
            path.write_bytes(pickle.dumps(Trap(mark)))
        else:
            torch.save(Trap(mark), path)
    ended = nursery.run(*arguments(storage), faults=QUICK)
    assert not mark.exists()
    if ended.code == 0:  # what it stood for was made again
        assert check(storage, twin, tracking=None) == []
    else:
        assert ended.code in (1, 2), ended.out
        assert "Traceback" not in ended.out


def test_the_trap_is_one(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Trap(tmp_path / "mark")))
    assert (tmp_path / "mark").exists()


def test_no_module_can_unpickle() -> None:
    """No pickle and its like anywhere in our packages, and no loader that would use it."""
    sources = {room: sorted((ROOT / room).rglob("*.py")) for room in ("trainables", "search_spaces", "service")}
    assert all(sources.values())
    for path in (path for own in sources.values() for path in own):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", "") or ""]
                assert not {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"} & set(names), path
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in ("torch.load", "eval", "exec", "yaml.load"), f"{path}: {called}"
                assert not any(keyword.arg == "allow_pickle" for keyword in node.keywords), path


@pytest.mark.parametrize("name", ["../smoke", "/etc/passwd", "smoke/../../x", "..", "a b", "smoke\n", ""])
def test_a_name_that_is_a_path_is_refused(nursery: Nursery, fresh: Fresh, name: str) -> None:
    storage = fresh()
    before = [*storage.parent.iterdir(), *storage.rglob("*")]
    for command in ("run", "status"):
        ended = nursery.run(command, name, f"--storage={storage}")
        assert ended.code == 2, ended.out
        assert "error: no sweep " in ended.out
    assert [*storage.parent.iterdir(), *storage.rglob("*")] == before


@pytest.mark.parametrize("dataset", ["../../x-v0", "/x-v0", "a/../b-v0", "a//b-v0", "~/x-v0"])
def test_a_dataset_that_is_a_path_is_refused(nursery: Nursery, fresh: Fresh, dataset: str) -> None:
    storage = fresh()
    ended = nursery.run(*arguments(storage, datasets=dataset))
    assert ended.code == 2, ended.out
    assert f"dataset {dataset!r} is not a Minari id" in ended.out
    assert [path.name for path in storage.iterdir()] == ["mlflow.db"]


def test_a_trial_key_of_the_journal_never_becomes_a_path(nursery: Nursery, begun: Path, fresh: Fresh) -> None:
    storage = fresh()
    shutil.copytree(begun, storage, dirs_exist_ok=True)
    journal = paths.manifest(storage, "smoke")
    key = next(paths.trials(storage).iterdir()).name
    journal.write_text(journal.read_text().replace(key, "../../../../x"))
    before = sorted(storage.parent.iterdir())
    ended = nursery.run(*arguments(storage))
    assert "'../../../../x' is not of the form" in ended.out
    assert sorted(storage.parent.iterdir()) == before
    assert not (storage / "x").exists()


@pytest.mark.parametrize("address", [f"http://user:{SECRET}@127.0.0.1:9", f"postgresql://user:{SECRET}@127.0.0.1:9/mlflow"])
def test_no_secret_is_told(nursery: Nursery, fresh: Fresh, address: str) -> None:
    """A password in MLflow's address, a token for it and one for Ray: not in what is printed, not in what is written."""
    storage = fresh()
    tokens = {"MLFLOW_TRACKING_TOKEN": SECRET + "a", "MLFLOW_TRACKING_PASSWORD": SECRET + "b", "RAY_AUTH_TOKEN": SECRET + "c"}
    ended = nursery.run(*arguments(storage), faults=["patience=1"], MLFLOW_TRACKING_URI=address, **tokens)
    told = ended.out
    for command in ("sync", "verify"):
        told += nursery.run(command, "smoke", f"--storage={storage}", MLFLOW_TRACKING_URI=address, **tokens).out
    assert ("MLflow did not take everything" in told) or ("check MLFLOW_TRACKING_URI" in ended.out and ended.code == 2)  # no driver for it
    assert "Traceback" not in told
    assert SECRET not in told
    written = [path for path in storage.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert written == []


CONTROL = "\x1b[2J\x9b31m\u202e\r\nerror: all is lost\x07"  # clears the screen, colours, turns the direction, forges a line, rings


def shown(nursery: Nursery, storage: Path, tmp_path: Path, *faults: str) -> str:
    """What commands print of an adopted trial whose dataset, host and warnings command a terminal."""
    content = parts()
    line("attempt", host=f"host{CONTROL}")(content)
    line("pruned", warnings=[CONTROL])(content)
    trial = Trial.from_json({**json.loads(content[TRIAL]), "dataset": f"a/{CONTROL}-v0"})
    masks = {**json.loads(content[MASKS]), "trial": trial.to_json()}
    end = {"device": CONTROL, "execution": CONTROL, "seconds": 1.0}
    content |= {
        TRIAL: json.dumps(trial.to_json()).encode(),
        MASKS: json.dumps(masks).encode(),
        SWEEP: json.dumps({trial.key: end}).encode(),
    }
    crafted = {name.replace(KEY, trial.key): data for name, data in content.items()}
    assert SPOOL not in crafted
    told = ""
    for command in (
        ("adopt", str(zipped(tmp_path / "crafted.zip", crafted))),
        ("logs", trial.key),
        ("status", "study"),
        ("logs", f"x{CONTROL}"),
    ):
        ended = nursery.run(*command, f"--storage={storage}", faults=faults)
        assert ended.code == (2 if command[1].startswith("x") else 0), ended.out
        told += ended.out
    assert "all is lost" in told
    return told


def test_what_files_hold_commands_no_terminal(nursery: Nursery, tmp_path: Path, record: Record) -> None:
    told = shown(nursery, tmp_path / "storage", tmp_path)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", told)
    assert [each for each in told.splitlines() if each.startswith("error: all is lost")] == []
    assert r"\x1b[2J" in told
    record("control characters in an archive's texts: escaped wherever they are printed")


def test_without_escapes_a_terminal_obeys(nursery: Nursery, tmp_path: Path) -> None:
    assert "\x1b[2J" in shown(nursery, tmp_path / "storage", tmp_path, "no_escapes")
