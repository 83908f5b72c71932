"""Archives from anybody: all of one is checked before anything is written."""

from __future__ import annotations

import json
import stat
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.ledger.manifest import read
from service.storage import paths

from ..conftest import QUICK, Fresh, Record, arguments
from ..support.nursery import ROOT, Nursery

KEY = "015d1f73270a9e2a"  # a trial of the study
SWEEP, TRIAL, SPOOL, MASKS = "sweeps/study.json", f"trials/{KEY}/trial.json", f"trials/{KEY}/spool.jsonl", f"trials/{KEY}/masks.json"
Parts = dict[str, bytes]
Line = dict[str, Any]


def parts() -> Parts:
    """An archive of one real trial."""
    with zipfile.ZipFile(ROOT / "benchmarks/study.zip") as file:
        whole = {name: file.read(name) for name in (SWEEP, TRIAL, SPOOL, MASKS)}
    return whole | {SWEEP: json.dumps({KEY: json.loads(whole[SWEEP])[KEY]}).encode()}


def zipped(to: Path, content: Parts) -> Path:
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in content.items():
            file.writestr(name, data)
    return to


def adopted(nursery: Nursery, file: Path, storage: Path, *faults: str) -> str:
    """The one line by which a file is refused; empty where it is adopted."""
    ended = nursery.run("adopt", str(file), f"--storage={storage}", faults=faults)
    assert "Traceback" not in ended.out
    if ended.code == 0:
        assert read(storage, "study").keys_in("done") == [KEY]
        return ""
    assert ended.code == 2
    assert ended.out.count("\n") == 2, ended.out  # the error, and the nursery's own line
    assert not storage.exists()
    return ended.out.splitlines()[0]


def lines(change: Callable[[list[Line]], Any]) -> Callable[[Parts], None]:
    """A change of a spool's lines."""

    def changed(content: Parts) -> None:
        spool = [json.loads(line) for line in content[SPOOL].splitlines()]
        spool = change(spool) or spool
        content[SPOOL] = b"".join(json.dumps(line).encode() + b"\n" for line in spool)

    return changed


def line(kind: str, /, **values: Any) -> Callable[[Parts], None]:
    """The first line of a kind with other values."""
    return lines(lambda spool: next(each for each in spool if each["kind"] == kind).update(values))


def replaced(name: str, content: bytes) -> Callable[[Parts], None]:
    return lambda whole: whole.update({name: content})


def other_masks(content: Parts) -> None:
    about = json.loads(content[MASKS])
    del about["networks"]["actor"]["flops"]["dense"]
    content[MASKS] = json.dumps(about).encode()


DEEP = b"[" * 100_000
CHANGES: dict[str, tuple[Callable[[Parts], Any], str]] = {
    "an empty spool": (replaced(SPOOL, b""), "empty or torn"),
    "a blank spool": (replaced(SPOOL, b"\n"), "line 1"),
    "a spool without reports": (lines(lambda spool: spool[:1]), "no reports"),
    "a torn spool": (lambda content: content.update({SPOOL: content[SPOOL][:-10]}), "empty or torn"),
    "a spool without its end": (lines(lambda spool: spool[:-1]), "does not end"),
    "a spool that ends early": (lines(lambda spool: spool[-1].update(update=1)), "update 1 is not an integer"),
    "no evaluation": (lines(lambda spool: [each for each in spool if each["kind"] != "evaluated"]), "0 of 5 evaluations"),
    "no final evaluation": (lines(lambda spool: [each for each in spool if each["kind"] != "final"]), "final"),
    "no mask": (lines(lambda spool: [each for each in spool if each["kind"] != "pruned"]), "no line 'pruned'"),
    "no attempt": (lines(lambda spool: spool[1:]), "attempt"),
    "another order": (lines(lambda spool: [spool[0], *reversed(spool[1:])]), "is not an integer from"),
    "a line twice": (lines(lambda spool: [*spool[:4], spool[3], *spool[4:]]), "2 lines"),
    "an unknown kind": (line("trained", kind="mystery"), "'mystery'"),
    "a diverged trial": (line("trained", kind="diverged"), "'diverged'"),
    "no time": (line("trained", time=None), "None"),
    "a time in the year 300000": (line("trained", time=10**16), "time"),
    "an update that is a text": (line("trained", update="x"), "'x'"),
    "a metric that is a text": (line("trained", metrics={"train/loss": "x"}), "'x' is not a number"),
    "a metric that is a long integer": (line("trained", metrics={"train/loss": 10**400}), "is not a number"),
    "a metric whose name is a path": (line("trained", metrics={"../loss": 1.0}), "'../loss'"),
    "metrics that are a list": (line("trained", metrics=[]), "[]"),
    "no speed": (line("trained", metrics={"speed/updates_per_second": 0.0}), "speed/updates_per_second"),
    "another number of episodes": (line("evaluated", returns=[1.0]), "1 episodes instead of 10"),
    "data that is no hash": (line("attempt", dataset_hash="x"), "is not a hash"),
    "a line that nests too deep": (replaced(SPOOL, b'{"kind": "attempt", "time": 1, "x": ' + DEEP + b"\n"), "line 1"),
    "a trial that nests too deep": (replaced(TRIAL, DEEP), KEY),
    "a trial that is a list": (replaced(TRIAL, b"[]"), KEY),
    "masks of no network": (replaced(MASKS, b'{"networks": {}}'), KEY),
    "masks without numbers": (other_masks, KEY),
    "a sweep that is a list": (replaced(SWEEP, b"[1]"), "not an archive"),
    "a sweep without trials": (replaced(SWEEP, b"{}"), "without trials"),
    "an end that is a text": (replaced(SWEEP, json.dumps({KEY: {"seconds": "x"}}).encode()), "'x' is not a number"),
    "no trial": (lambda content: content.pop(TRIAL), "lacks"),
    "a trial of no sweep": (replaced("trials/0123456789abcdef/spool.jsonl", b""), "of no sweep"),
    "folders in folders": (replaced(f"trials/{KEY}/a/b/c/spool.jsonl", b""), "a/b/c"),
    "a path that leads out": (replaced("../../x", b""), "../../x"),
    "a name with control characters": (replaced("sweeps/\x1b[31m\n.json", b""), "not an archive"),
    "much out of little": (replaced(SPOOL, b" " * (30 << 20)), "bytes"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_an_archive_that_makes_no_sense_is_refused_in_one_line(nursery: Nursery, tmp_path: Path, case: str) -> None:
    change, reason = CHANGES[case]
    content = parts()
    change(content)
    said = adopted(nursery, zipped(tmp_path / "bad.zip", content), tmp_path / "storage")
    assert said.startswith("error: ")
    assert reason in said


def test_the_archive_itself_is_adopted(nursery: Nursery, tmp_path: Path) -> None:
    assert adopted(nursery, zipped(tmp_path / "good.zip", parts()), tmp_path / "storage") == ""


@pytest.mark.parametrize("case", ["an empty spool", "a spool without its end"])
def test_without_the_check_such_a_trial_is_done_for_ever(nursery: Nursery, tmp_path: Path, case: str) -> None:
    content = parts()
    CHANGES[case][0](content)
    assert adopted(nursery, zipped(tmp_path / "bad.zip", content), tmp_path / "storage", "no_check_of_archives") == ""


def flagged(file: Path, offset: int, value: int) -> None:
    """Change a number of two bytes in the headers of a zip file's first part: `offset` is that in the central header."""
    data = bytearray(file.read_bytes())
    central = data.index(b"PK\x01\x02")
    data[central + offset : central + offset + 2] = struct.pack("<H", value)
    data[offset - 2 : offset] = struct.pack("<H", value)
    file.write_bytes(data)


def linked(file: Path) -> None:
    content = parts()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in content.items():
            about = zipfile.ZipInfo(name)
            about.external_attr = (stat.S_IFLNK | 0o777) << 16 if name == SPOOL else 0
            archive.writestr(about, data)


def doubled(file: Path) -> None:
    with zipfile.ZipFile(file, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr(SPOOL, "")


def claimed(file: Path) -> None:
    """Its headers say that the parts are small."""
    content = parts()
    zipped(file, content | {SPOOL: b" " * (30 << 20)})
    data = file.read_bytes()
    file.write_bytes(data.replace(struct.pack("<I", 30 << 20), struct.pack("<I", 30)))


FILES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "encrypted": (lambda file: flagged(file, 8, 1), "encrypted"),
    "of another method": (lambda file: flagged(file, 10, 14), "method 14"),
    "of an unknown method": (lambda file: flagged(file, 10, 77), "method 77"),
    "truncated": (lambda file: file.write_bytes(file.read_bytes()[:-100]), "not a zip file"),
    "without its beginning": (lambda file: file.write_bytes(file.read_bytes()[100:]), "bad.zip"),
    "altered in the middle": (lambda file: file.write_bytes(file.read_bytes().replace(b"a", b"b", 40)), "bad.zip"),
    "empty": (lambda file: file.write_bytes(b""), "not a zip file"),
    "no zip file": (lambda file: file.write_bytes(b"x" * 1000), "not a zip file"),
    "with a link": (linked, "symbolic link"),
    "with two files of one name": (doubled, "2 files called"),
    "larger than it claims": (claimed, "bad.zip"),
    "a folder": (lambda file: (file.unlink(), file.mkdir()), "bad.zip"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_is_no_such_zip_is_refused_in_one_line(nursery: Nursery, tmp_path: Path, case: str) -> None:
    change, reason = FILES[case]
    file = zipped(tmp_path / "bad.zip", parts())
    change(file)
    said = adopted(nursery, file, tmp_path / "storage")
    assert said.startswith("error: ")
    assert reason in said


def test_whole_archives_are_adopted_and_recorded(nursery: Nursery, tmp_path: Path, record: Record) -> None:
    """Those of the benchmarks, which older code has written."""
    storage = tmp_path / "storage"
    for name in ("study", "methods"):
        ended = nursery.run("adopt", str(ROOT / f"benchmarks/{name}.zip"), f"--storage={storage}")
        assert ended.code == 0, ended.out
    assert len(list(paths.trials(storage).iterdir())) == 468 + 330
    record("archives that make no sense, in sixty ways: refused in one line, nothing written")


@pytest.fixture(scope="module")
def begun(nursery: Nursery, fresh: Fresh) -> Parts:
    """An archive of one real trial that was killed after its checkpoint at update 20."""
    storage = fresh()
    given = arguments(storage, size=1, sparsities="0.8", evaluations="5")
    assert nursery.run(*given, faults=[*QUICK, "die_after=Trained@30"]).code == 137
    file = storage / "begun.zip"
    assert nursery.run("archive", "smoke", "--unfinished", f"--to={file}", f"--storage={storage}").code == 0
    with zipfile.ZipFile(file) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def spooled(change: Callable[[list[Line]], list[Line]]) -> Callable[[Parts, str], None]:
    """A change of the lines of a spool in the trial's folder."""

    def changed(content: Parts, folder: str) -> None:
        kept = change([json.loads(line) for line in content[f"{folder}/spool.jsonl"].splitlines()])
        content[f"{folder}/spool.jsonl"] = b"".join(json.dumps(line).encode() + b"\n" for line in kept)

    return changed


def shorter(name: str) -> Callable[[Parts, str], None]:
    return lambda content, folder: content.update({f"{folder}/{name}": content[f"{folder}/{name}"][:-1]})


def updated(value: bytes) -> Callable[[Parts, str], None]:
    """Another update that the trial goes on from."""
    return lambda content, _: content.update({UNFINISHED: content[UNFINISHED].replace(b": 20", b": " + value)})


UNFINISHED, HEAD, TENSORS = "unfinished/smoke.json", "checkpoints/000000020.json", "checkpoints/000000020.safetensors"
END = {"kind": "finished", "update": 20, "time": 1, "seconds": 1, "execution": "dense"}
BEGUN: dict[str, tuple[Callable[[Parts, str], Any], str]] = {
    "tensors cut short": (shorter(TENSORS), "checkpoint at update 20 is altered"),
    "a head cut short": (shorter(HEAD), "checkpoint at update 20 is altered"),
    "no head": (lambda content, folder: content.pop(f"{folder}/{HEAD}"), f"it lacks '{HEAD}'"),
    "two checkpoints": (lambda content, folder: content.update({f"{folder}/checkpoints/000000040.json": b""}), "beside its checkpoint"),
    "another update": (updated(b"40"), "2 evaluations up to update 40"),
    "an update that is a text": (updated(b'"x"'), "update 'x'"),
    "lines after the checkpoint": (spooled(lambda spool: [*spool, {**spool[-1], "update": 21}]), "continues after its checkpoint"),
    "its end": (spooled(lambda spool: [*spool, END]), "not that of a trial in training"),
    "no mask": (spooled(lambda spool: [each for each in spool if each["kind"] != "pruned"]), "not that of a trial in training"),
    "no evaluation": (spooled(lambda spool: [each for each in spool if each["kind"] != "evaluated"]), "0 evaluations up to update 20"),
    "of no sweep": (lambda content, _: content.pop("sweeps/smoke.json"), "it holds no sweep"),
}


@pytest.mark.parametrize("case", BEGUN)
def test_an_unfinished_trial_that_makes_no_sense_is_refused_in_one_line(nursery: Nursery, tmp_path: Path, begun: Parts, case: str) -> None:
    change, reason = BEGUN[case]
    content = dict(begun)
    change(content, next(name for name in content if name.endswith("spool.jsonl")).rpartition("/")[0])
    ended = nursery.run("adopt", str(zipped(tmp_path / "bad.zip", content)), f"--storage={tmp_path / 'storage'}")
    assert ended.code == 2
    assert reason in ended.out
    assert ended.out.startswith("error: ")
    assert ended.out.count("\n") == 2, ended.out
    assert not (tmp_path / "storage").exists()
