from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from service.storage import paths
from tests.stacks import World, assert_same, member_of, small_trial
from trainables.storage.files import write as write_file
from trainables.training import checkpoint
from trainables.trial import Stack, Trial


@pytest.fixture
def world() -> World:
    """Two members, one pruned, after three updates."""
    made = World([small_trial("td3_bc", "snip", 0.6), small_trial("td3_bc", seed=1)]).start()
    made.train(0, 3)
    return made


def save(world: World, storage: Path, update: int) -> None:
    details = [{"actor": {"kept": trial.sparsity}} for trial in world.stack.trials]
    checkpoint.save(storage, world.stack, checkpoint.state_of(world.agent, world.masks, update, details))


def files(storage: Path, trial: Trial) -> list[str]:
    return sorted(path.name for path in paths.checkpoints(storage, trial.key).iterdir())


def test_what_was_saved_comes_back_bit_for_bit(world: World, tmp_path: Path) -> None:
    save(world, tmp_path, 3)
    found = checkpoint.newest(tmp_path, world.stack, world.agent.specs)
    assert found is not None
    assert found.update == 3
    assert found.counts == world.counts() == {"actor": 1, "critic": 3}
    assert_same(found.rows, world.rows())
    for name, mask in world.masks.items():
        assert all(torch.equal(a, b) for a, b in zip(found.masks[name], mask, strict=True))


def test_members_come_back_in_any_stack(world: World, tmp_path: Path) -> None:
    save(world, tmp_path, 3)
    first, second = world.stack.trials
    for order in ((second, first), (second,), (first,)):
        found = checkpoint.newest(tmp_path, Stack(order), world.agent.specs)
        assert found is not None
        for place, trial in enumerate(order):
            assert_same(member_of(found.rows, place), member_of(world.rows(), world.stack.trials.index(trial)))
            assert found.details[place] == {"actor": {"kept": trial.sparsity}}


def test_there_is_nothing_where_nothing_was_saved(world: World, tmp_path: Path) -> None:
    assert checkpoint.newest(tmp_path, world.stack, world.agent.specs) is None
    assert checkpoint.committed(tmp_path, world.stack.lead) == []
    assert list(tmp_path.iterdir()) == []


def test_the_newest_two_are_kept_and_nothing_else_lies_about(world: World, tmp_path: Path) -> None:
    for update in (3, 8, 1000, 12_345):
        save(world, tmp_path, update)
    for trial in world.stack.trials:
        assert checkpoint.committed(tmp_path, trial) == [12_345, 1000]
        assert files(tmp_path, trial) == [f"{update:09d}.{kind}" for update in (1000, 12_345) for kind in ("json", "safetensors")]


def test_what_a_kill_behind_the_last_checkpoint_left_is_tidied(world: World, tmp_path: Path) -> None:
    for update in (10, 20, 30):
        checkpoint.save(tmp_path, world.stack, checkpoint.state_of(world.agent, world.masks, update))
    folder = paths.checkpoints(tmp_path, world.stack.trials[-1].key)
    for kind in ("json", "safetensors"):
        (folder / f"000000010.{kind}").write_bytes((folder / f"000000020.{kind}").read_bytes())
    checkpoint.tidy(tmp_path, world.stack, 30)
    for trial in world.stack.trials:
        assert {path.stem for path in paths.checkpoints(tmp_path, trial.key).iterdir()} == {"000000020", "000000030"}


def test_a_stack_takes_the_newest_state_that_all_members_have(world: World, tmp_path: Path) -> None:
    save(world, tmp_path, 3)
    save(world, tmp_path, 4)
    newest = paths.checkpoints(tmp_path, world.stack.trials[1].key) / "000000004.json"
    newest.unlink()
    found = checkpoint.newest(tmp_path, world.stack, world.agent.specs)
    assert found is not None
    assert found.update == 3
    alone = checkpoint.newest(tmp_path, Stack(world.stack.trials[:1]), world.agent.specs)
    assert alone is not None
    assert alone.update == 4


def assert_refused(world: World, storage: Path) -> None:
    found = checkpoint.newest(storage, world.stack, world.agent.specs)
    assert found is not None
    assert found.update == 3
    assert checkpoint.committed(storage, world.stack.lead) == [3]


@pytest.mark.parametrize("kind", ["json", "safetensors"])
def test_a_torn_file_is_not_a_checkpoint(world: World, tmp_path: Path, kind: str) -> None:
    save(world, tmp_path, 3)
    save(world, tmp_path, 4)
    path = paths.checkpoints(tmp_path, world.stack.lead.key) / f"000000004.{kind}"
    whole = path.read_bytes()
    for length in (0, 1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert_refused(world, tmp_path)
    path.unlink()
    assert_refused(world, tmp_path)


def test_a_flipped_bit_anywhere_is_found(world: World, tmp_path: Path) -> None:
    """Every byte of the head, the counts among them, and some of the tensors."""
    save(world, tmp_path, 3)
    save(world, tmp_path, 4)
    folder = paths.checkpoints(tmp_path, world.stack.lead.key)
    for kind, places in (("json", None), ("safetensors", 25)):
        path = folder / f"000000004.{kind}"
        whole = path.read_bytes()
        step = 1 if places is None else len(whole) // places
        for place in range(0, len(whole), step):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << place % 8
            path.write_bytes(damaged)
            if _same_json(kind, bytes(damaged), whole):
                continue
            assert checkpoint.committed(tmp_path, world.stack.lead) == [3], f"byte {place} of the {kind}"
        path.write_bytes(whole)
    assert checkpoint.committed(tmp_path, world.stack.lead) == [4, 3]


def _same_json(kind: str, damaged: bytes, whole: bytes) -> bool:
    """A space turned into a tab says the same."""
    try:
        return kind == "json" and json.loads(damaged) == json.loads(whole)
    except ValueError:
        return False


@pytest.mark.parametrize("content", [b"[]", b"null", b"3", b'"x"', b"{}", b'{"sha256": 3}', b"\xff\xfe"])
def test_a_head_of_another_kind_is_refused(world: World, tmp_path: Path, content: bytes) -> None:
    save(world, tmp_path, 3)
    save(world, tmp_path, 4)
    (paths.checkpoints(tmp_path, world.stack.lead.key) / "000000004.json").write_bytes(content)
    assert_refused(world, tmp_path)


def test_anothers_checkpoint_and_a_renamed_one_are_refused(world: World, tmp_path: Path) -> None:
    save(world, tmp_path, 3)
    first, second = (paths.checkpoints(tmp_path, trial.key) for trial in world.stack.trials)
    for kind in ("json", "safetensors"):
        (first / f"000000009.{kind}").write_bytes((first / f"000000003.{kind}").read_bytes())
        (first / f"000000003.{kind}").write_bytes((second / f"000000003.{kind}").read_bytes())
    assert checkpoint.committed(tmp_path, world.stack.lead) == []


def test_writing_is_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "file.bin"
    write_file(path, b"old")

    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    for step in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, step, fail)
            with pytest.raises(OSError, match="no space"):
                write_file(path, b"new and longer")
        assert path.read_bytes() == b"old"
        assert [p.name for p in path.parent.iterdir()] == ["file.bin"]
    write_file(path, b"new")
    assert path.read_bytes() == b"new"


def test_data_is_on_disk_before_the_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (order.append("fsync"), fsync(fd))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append("replace"), replace(a, b))[1])
    write_file(tmp_path / "x", b"x")
    assert order == ["fsync", "replace", "fsync"]


def test_tensors_come_before_the_head_that_vouches_for_them(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    write = checkpoint.write
    monkeypatch.setattr(checkpoint, "write", lambda path, *how, **more: (written.append(path.suffix), write(path, *how, **more))[1])
    save(world, tmp_path, 3)
    assert written == [".safetensors", ".json"] * 2


def test_a_worker_that_was_held_up_takes_nothing_from_the_one_that_has_passed_it(world: World, tmp_path: Path) -> None:
    """It slept within a save while a newer attempt went on: its late files change nothing, and what is whole ahead of them stays."""
    for update in (3, 60, 80):
        save(world, tmp_path, update)
    late = paths.checkpoints(tmp_path, world.stack.lead.key)
    (late / "000000090.json").write_text("{}")  # damaged ahead: goes
    save(world, tmp_path, 40)
    assert checkpoint.committed(tmp_path, world.stack.lead) == [80, 60, 40]
    assert not (late / "000000090.json").exists()
    save(world, tmp_path, 100)
    assert checkpoint.committed(tmp_path, world.stack.lead) == [100, 80]
