"""Damaged files: the one before counts, or an error names the file; never a wrong number."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from service.spool import lines as spool
from service.storage import paths

from ..conftest import EVERY, QUICK, Fresh, Record, arguments, whole
from ..support.invariants import Twin, redone
from ..support.nursery import Nursery


@pytest.fixture
def killed(nursery: Nursery, fresh: Fresh, twin: Twin) -> Path:
    """A storage whose sweep was killed after the checkpoints of updates 20 and 40 were made."""
    storage = fresh()
    faults = [*QUICK, f"work={storage / 'work'}"]
    assert nursery.run(*arguments(storage), faults=[*faults, "die_after=Trained@50"]).code == 137
    assert {update for key in twin.states for update in checkpoints(storage, key)} == {20, 40}
    return storage


def checkpoints(storage: Path, key: str) -> list[int]:
    return sorted(int(path.stem) for path in paths.checkpoints(storage, key).glob("*.json"))


def resume(nursery: Nursery, storage: Path, *switches: str) -> str:
    again = nursery.run(*arguments(storage), faults=[*QUICK, *switches, f"work={storage / 'work'}"])
    return "" if again.code == 0 else again.out


def cut(content: bytes) -> bytes:
    return content[: 2 * len(content) // 3]


def flip(content: bytes) -> bytes:
    """One bit of the last number: nothing but a hash could tell."""
    place = len(content) - 3
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def gone(content: bytes) -> bytes:
    return b""


@pytest.mark.parametrize("damage", [cut, flip, pytest.param(gone, marks=pytest.mark.slow_faults)])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    nursery: Nursery, killed: Path, twin: Twin, damage: Callable[[bytes], bytes], record: Record
) -> None:
    """Of one member only: its stack goes back together."""
    path = paths.checkpoints(killed, next(iter(twin.states))) / "000000040.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    assert resume(nursery, killed) == ""
    assert whole(nursery, killed, twin) == []
    assert redone(killed / "work") == 2 * EVERY - 10  # up to 50, from 20
    kind = {cut: "torn", flip: "one bit flipped", gone: "empty"}[damage]
    record(f"newest checkpoint of a stack's member {kind}: back to the one before", redone=2 * EVERY - 10)


@pytest.mark.parametrize("damage", [cut, flip, pytest.param(gone, marks=pytest.mark.slow_faults), None])
def test_damaged_or_lost_masks_are_written_again(
    nursery: Nursery, killed: Path, twin: Twin, damage: Callable[[bytes], bytes] | None
) -> None:
    """The checkpoint holds them, and what they are."""
    for path in (place(killed, key) for key in twin.states for place in (paths.masks, paths.masks_json)):
        if damage:
            path.write_bytes(damage(path.read_bytes()))
        else:
            path.unlink()
    assert resume(nursery, killed) == ""
    assert whole(nursery, killed, twin) == []


def test_without_the_hash_a_flipped_bit_trains_on(nursery: Nursery, fresh: Fresh, twin: Twin) -> None:
    storage = fresh()
    assert nursery.run(*arguments(storage), faults=[*QUICK, "no_checkpoint_hash", "die_after=Trained@50"]).code == 137
    for path in paths.checkpoints(storage, next(iter(twin.states))).glob("*.safetensors"):
        path.write_bytes(flip_weight(path.read_bytes()))
    assert resume(nursery, storage, "no_checkpoint_hash") == ""
    assert any("differs from the twin's" in text for text in whole(nursery, storage, twin))


def crafted(path: Path, change: Callable[[dict[str, Tensor], dict[str, Any]], Any]) -> None:
    """Change the tensors and the head of a checkpoint, and make its hash anew."""
    head = json.loads(path.read_bytes())
    tensors = load_file(path.with_suffix(".safetensors"))
    del head["sha256"]
    change(tensors, head)
    content = save(tensors)
    head["sha256"] = sha256(json.dumps(head, sort_keys=True).encode() + content).hexdigest()
    path.with_suffix(".safetensors").write_bytes(content)
    path.write_text(json.dumps(head))


def shorter(name: str) -> Callable[[dict[str, Tensor], dict[str, Any]], Any]:
    return lambda tensors, head: tensors.update({name: tensors[name][:-8].clone()})


MISFITS: dict[str, Callable[[dict[str, Tensor], dict[str, Any]], Any]] = {
    "a shorter mask": shorter("mask/actor"),
    "a shorter row": shorter("online/actor"),
    "a longer row": lambda tensors, head: tensors.update({"adam.first/actor": torch.zeros(100_000)}),
    "another type": lambda tensors, head: tensors.update({"adam.second/actor": tensors["adam.second/actor"].half()}),
    "a mask of floats": lambda tensors, head: tensors.update({"mask/actor": tensors["mask/actor"].float()}),
    "a tensor less": lambda tensors, head: tensors.pop("adam.first/actor"),
    "a tensor more": lambda tensors, head: tensors.update({"online/mystery": torch.zeros(8)}),
    "a count that is negative": lambda tensors, head: head.update(counts={"actor": -1}),
    "a count that is no number": lambda tensors, head: head.update(counts={"actor": float("inf")}),
    "no counts": lambda tensors, head: head.pop("counts"),
    "details that are a list": lambda tensors, head: head.update(details=[]),
}


@pytest.mark.parametrize("case", MISFITS)
def test_a_checkpoint_that_fits_no_network_counts_as_a_damaged_one(
    nursery: Nursery, killed: Path, twin: Twin, case: str, record: Record
) -> None:
    """Its hash is right: somebody, or other code, has written it."""
    crafted(paths.checkpoints(killed, next(iter(twin.states))) / "000000040.json", MISFITS[case])
    assert resume(nursery, killed) == ""
    assert whole(nursery, killed, twin) == []
    assert redone(killed / "work") == 2 * EVERY - 10  # up to 50, from 20
    record(f"newest checkpoint of a stack's member has {case}, and the right hash: back to the one before", redone=2 * EVERY - 10)


def test_without_that_a_shorter_mask_is_continued_by_zeros(nursery: Nursery, killed: Path, twin: Twin) -> None:
    crafted(paths.checkpoints(killed, next(iter(twin.states))) / "000000040.json", MISFITS["a shorter mask"])
    assert resume(nursery, killed, "no_fit_of_checkpoints") == ""
    assert any("differs from the twin's" in text for text in whole(nursery, killed, twin))


def flip_weight(content: bytes) -> bytes:
    """A high bit of the exponent-free part of some parameter of the actor."""
    size = int.from_bytes(content[:8], "little")
    start, _ = json.loads(content[8 : 8 + size])["online/actor"]["data_offsets"]
    place = 8 + size + start + 4 * 20 + 2
    return content[:place] + bytes([content[place] ^ 64]) + content[place + 1 :]


def test_with_all_checkpoints_damaged_it_begins_anew_and_keeps_what_it_makes(
    nursery: Nursery, killed: Path, twin: Twin, record: Record
) -> None:
    for path in paths.trials(killed).rglob("checkpoints/*.safetensors"):
        path.write_bytes(cut(path.read_bytes()))
    faults = [*QUICK, f"work={killed / 'work'}"]
    assert nursery.run(*arguments(killed), faults=[*faults, "die_after=Trained@30"]).code == 137
    for key in twin.states:  # the new ones count, not the damaged ones that are further on
        assert checkpoints(killed, key) == [0, 20]
    (killed / "work").rename(killed / "work before")
    assert resume(nursery, killed) == ""
    assert whole(nursery, killed, twin) == []
    first = sorted((killed / "work").iterdir())[0].read_bytes()[:8]
    assert int.from_bytes(first, "little") == 20
    record("all checkpoints torn, then killed again", kills=2, redone="all")


@pytest.mark.parametrize("left", [pytest.param(1, marks=pytest.mark.slow_faults), 10, pytest.param(-1, marks=pytest.mark.slow_faults)])
def test_a_torn_last_line_of_a_spool_is_cut_off(nursery: Nursery, killed: Path, twin: Twin, left: int, record: Record) -> None:
    """The first byte, some bytes and all but the line's end."""
    for key in twin.states:
        path = paths.spool(killed, key)
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(lines[:-1]) + lines[-1].rstrip(b"\n")[:left])
    assert resume(nursery, killed) == ""
    assert whole(nursery, killed, twin) == []
    record(f"last line of every spool torn, {left if left > 0 else 'all but its last'} bytes left", redone=redone(killed / "work"))


def test_without_the_cut_a_torn_line_stays(nursery: Nursery, killed: Path, twin: Twin) -> None:
    for key in twin.states:
        path = paths.spool(killed, key)
        path.write_bytes(path.read_bytes()[:-5])
    assert "is damaged" in resume(nursery, killed, "no_cut")


def test_a_spool_damaged_in_the_middle_is_named_before_anything_starts(nursery: Nursery, killed: Path, twin: Twin, record: Record) -> None:
    path = paths.spool(killed, next(iter(twin.states)))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], b'{"update"\n', *lines[3:]]))
    before = {file: file.read_bytes() for file in killed.rglob("*") if file.is_file()}
    ended = nursery.run(*arguments(killed), faults=QUICK)
    assert ended.code == 2
    (error,) = [line for line in ended.out.splitlines() if line.startswith("error: ")]
    assert str(path) in error
    assert "Traceback" not in ended.out
    assert {file: file.read_bytes() for file in killed.rglob("*") if file.is_file()} == before
    record("spool damaged in the middle: named, nothing started or changed")


def test_a_torn_last_line_of_the_manifest_is_cut_off(nursery: Nursery, killed: Path, twin: Twin, record: Record) -> None:
    path = paths.manifest(killed, "smoke")
    path.write_bytes(path.read_bytes()[:-7])
    assert resume(nursery, killed) == ""
    assert whole(nursery, killed, twin) == []
    record("last line of the manifest torn", redone=redone(killed / "work"))


def test_a_damaged_manifest_is_named_and_left_alone(nursery: Nursery, killed: Path, record: Record) -> None:
    path = paths.manifest(killed, "smoke")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], cut(lines[1]) + b"\n", *lines[2:]]))
    before = path.read_bytes()
    ended = nursery.run(*arguments(killed), faults=QUICK)
    assert ended.code == 2
    assert f"{path} line 2 is damaged" in ended.out
    assert "Traceback" not in ended.out
    assert path.read_bytes() == before
    record("manifest damaged in the middle: named and left alone")


def test_points_that_no_checkpoint_covers_are_not_counted_as_done(killed: Path, twin: Twin) -> None:
    for key in twin.states:
        lines = spool.read(paths.spool(killed, key))
        assert lines[-1].update == 50
        assert spool.committed_update(lines) == 40


FOREIGN = (
    "trials/{key}/.policy.json.bak.tmp", "trials/{key}/.masks.json..tmp", "trials/{key}/.trial.json.0.tmp", "trials/{key}/notes.txt",
    "trials/{key}/.policy.safetensors.99999999999999999999.tmp", "trials/{key}/checkpoints/README", "trials/{key}/checkpoints/best.json",
    "trials/{key}/checkpoints/\u00b2\u00b2.json", "sweeps/smoke/lease/\u00b2.json", "sweeps/my notes/manifest.jsonl", "trials/.DS_Store",
)  # fmt: skip
FOREIGN_FOLDERS = (
    "trials/{key}/.masks.safetensors.99999999.tmp",
    "trials/{key}/checkpoints/000000060.json",
    "trials/{key}/checkpoints/old",
)


def test_foreign_files_stop_no_trial_and_stay(nursery: Nursery, killed: Path, twin: Twin, record: Record) -> None:
    """Files with names like those of temporary files and of checkpoints, and folders."""
    key = next(iter(twin.states))
    files = [killed / name.format(key=key) for name in FOREIGN]
    folders = [killed / name.format(key=key) for name in FOREIGN_FOLDERS]
    for file in files:
        file.parent.mkdir(exist_ok=True)
        file.write_text("mine")
    for folder in folders:
        folder.mkdir()
    out = resume(nursery, killed)
    assert out == "", out[-1500:]
    assert {file.read_text() for file in files} == {"mine"}
    assert all(folder.is_dir() for folder in folders)
    for file in files:
        file.unlink()
    for folder in [*folders, killed / "sweeps/my notes"]:
        folder.rmdir()
    assert whole(nursery, killed, twin) == []
    record("foreign files and folders beside those of a trial, with names like ours")
