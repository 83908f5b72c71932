from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from service.spool import lines as spool
from service.spool.writer import StackSpool
from service.storage import paths
from trainables.errors import UserError
from trainables.reports import Checkpointed, Diverged, Evaluated, Finished, Pruned, Report, Trained
from trainables.run import run_stack
from trainables.trial import Stack, Trial

STACK = Stack(tuple(Trial(dataset="test/hopper/random-v0", algorithm="bc", seed=seed, updates=40, evaluations=2) for seed in (0, 1)))
KEY = STACK.lead.key
ORIGIN = {"test/hopper/random-v0": {"dataset_hash": "abc"}}


def reports(first: int = 0, last: int = 40) -> Iterable[Report]:
    """A run of 40 updates: losses every 10, an evaluation and a checkpoint every 20; those after `first`, up to `last`."""
    if first == 0:
        yield Pruned(0, [{"mask/density/actor": 1.0}, {"mask/density/actor": 0.5}], [{}, {}], [[], ["fragile"]])
        yield Checkpointed(0)
    for update in range(first + 10, last + 1, 10):
        yield Trained(update, [{"train/actor_loss": update / 10}, {"train/actor_loss": update / 5}], 100.0)
        if update % 20 == 0:
            yield Evaluated(update, [{"returns": [1.0, 3.0], "scores": [10.0, 30.0]}, {"returns": [2.0, 2.0], "scores": [20.0, 20.0]}])
            yield Checkpointed(update)
    if last == 40:
        yield Finished(40, 1.5, "dense")


def listen(storage: Path, given: Iterable[Report]) -> None:
    listener = StackSpool(STACK, storage, ORIGIN, 20)
    for report in given:
        listener(report)
    listener.close()


def points(storage: Path, key: str = KEY) -> list[tuple[int, str]]:
    lines = spool.committed(spool.read(paths.spool(storage, key)))
    return [(placed.update, name) for placed in lines for name in placed.line.get("metrics", ())]


def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int, str]]:
    storage = tmp_path_factory.mktemp("twin")
    listen(storage, reports())
    return points(storage)


def test_each_member_gets_its_own_lines(tmp_path: Path) -> None:
    listen(tmp_path, reports())
    for member, trial in enumerate(STACK.trials):
        lines = [placed.line for placed in spool.read(paths.spool(tmp_path, trial.key))]
        assert lines[0]["kind"] == "attempt"
        assert lines[0]["dataset_hash"] == "abc"
        losses = {line["update"]: line["metrics"]["train/actor_loss"] for line in lines if line["kind"] == "trained"}
        assert losses == {update: update / (10, 5)[member] for update in (10, 20, 30, 40)}
        assert [line["kind"] for line in lines[-2:]] == ["checkpointed", "finished"]
        assert json.loads(paths.trial_json(tmp_path, trial.key).read_text()) == json.loads(json.dumps(trial.to_json()))


def test_an_evaluation_keeps_its_episodes_beside_mean_and_spread(tmp_path: Path) -> None:
    listen(tmp_path, reports())
    line = next(p.line for p in spool.read(paths.spool(tmp_path, KEY)) if p.line["kind"] == "evaluated")
    assert line["metrics"] == {"eval/return": 2.0, "eval/normalized_score": 20.0, "eval/normalized_score_std": 10.0}
    assert line["returns"] == [1.0, 3.0]
    assert line["scores"] == [10.0, 30.0]


def test_only_what_a_checkpoint_covers_is_committed(tmp_path: Path) -> None:
    listen(tmp_path, reports(last=30))
    assert max(update for update, _ in points(tmp_path)) == 20
    assert spool.committed_update(spool.read(paths.spool(tmp_path, KEY))) == 20
    listen(tmp_path, reports(first=20))
    assert max(update for update, _ in points(tmp_path)) == 40


@pytest.mark.parametrize("killed_after", range(1, 13))
def test_a_resumed_trial_has_every_point_once_wherever_it_was_killed(
    killed_after: int, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    before = list(reports())[:killed_after]
    listen(tmp_path, before)
    saved = max((report.update for report in before if isinstance(report, Checkpointed)), default=0)
    listen(tmp_path, reports(first=saved))
    assert points(tmp_path) == undisturbed(tmp_path_factory)


def test_points_between_a_checkpoint_and_the_line_that_tells_of_it_are_kept(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    before = list(reports(last=20))
    assert isinstance(before.pop(), Checkpointed)  # the checkpoint was written, the trainer died before it said so
    listen(tmp_path, before)
    listen(tmp_path, reports(first=20))
    assert points(tmp_path) == undisturbed(tmp_path_factory)


def test_points_of_the_last_update_are_kept_where_only_the_end_is_left_to_tell(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    given = list(reports())
    assert isinstance(given[-2], Checkpointed)
    listen(tmp_path, given[:-2])  # killed behind the last checkpoint, ahead of the line that tells of it
    listen(tmp_path, given[-1:])
    assert points(tmp_path) == undisturbed(tmp_path_factory)
    assert [placed.line["kind"] for placed in spool.read(paths.spool(tmp_path, KEY))][-2:] == ["attempt", "finished"]


def test_a_trial_that_falls_back_behind_a_broken_checkpoint_keeps_its_first_points(tmp_path: Path) -> None:
    listen(tmp_path, reports(last=20))
    before = paths.spool(tmp_path, KEY).read_bytes()
    listen(tmp_path, reports(first=0))
    assert paths.spool(tmp_path, KEY).read_bytes().startswith(before)
    assert [update for update, name in points(tmp_path) if name == "train/actor_loss"] == [10, 20, 30, 40]


def test_a_torn_last_line_is_not_read_and_is_cut_off(tmp_path: Path) -> None:
    listen(tmp_path, reports(last=20))
    path = paths.spool(tmp_path, KEY)
    whole = spool.read(path)
    with path.open("ab") as file:
        file.write(b'{"update": 30, "kind": "tra')
    assert spool.read(path) == whole
    listen(tmp_path, reports(first=20))
    assert [update for update, name in points(tmp_path) if name == "train/actor_loss"] == [10, 20, 30, 40]


def test_where_a_trial_comes_from_is_known_once_it_has_committed_something(tmp_path: Path) -> None:
    listen(tmp_path, list(reports())[:1])
    path = paths.spool(tmp_path, KEY)
    with path.open("ab") as file:
        file.write(b'{"update": 0, "kind": "checkpointed", "ti')  # torn by a crash
    assert spool.origin(path) == {}
    listen(tmp_path, reports(last=20))
    assert spool.origin(path)["dataset_hash"] == "abc"


def test_a_damaged_line_is_told(tmp_path: Path) -> None:
    path = paths.spool(tmp_path, KEY)
    path.parent.mkdir(parents=True)
    path.write_bytes(b'{"update": 1, "ki\n{}\n')
    with pytest.raises(UserError, match=r"spool\.jsonl is damaged"):
        spool.read(path)


def test_reading_goes_on_from_an_offset(tmp_path: Path) -> None:
    listen(tmp_path, reports())
    lines = spool.read(paths.spool(tmp_path, KEY))
    assert spool.read(paths.spool(tmp_path, KEY), lines[3].end) == lines[4:]


def test_a_diverged_member_gets_nothing_more_and_its_mate_goes_on(tmp_path: Path) -> None:
    given = list(reports())
    given.insert(4, Diverged(20, 0, "parameters are not finite after update 20"))
    assert given[4:6] == [Diverged(20, 0, "parameters are not finite after update 20"), given[5]]
    listen(tmp_path, given)
    listen(tmp_path, [Diverged(30, 0, "again, after a resume"), *reports(first=20)])
    lines = spool.read(paths.spool(tmp_path, KEY))
    end = spool.end_line(lines)
    assert end is not None
    assert (end["kind"], end["update"]) == ("diverged", 20)
    assert not [update for update, _ in points(tmp_path) if update > 20]
    mate = spool.end_line(spool.read(paths.spool(tmp_path, STACK.trials[1].key)))
    assert mate is not None
    assert mate["kind"] == "finished"


def test_nothing_is_written_before_the_first_report(tmp_path: Path) -> None:
    StackSpool(STACK, tmp_path, ORIGIN, 20).close()
    assert not list(tmp_path.iterdir())


def test_when_a_checkpoint_is_there_the_lines_before_it_are_on_disk(tmp_path: Path, hopper: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a power cut a trial goes on from its checkpoint, and writes nothing again of what came before."""
    trial = Trial(dataset=hopper, algorithm="bc", updates=20, evaluations=3, episodes=1, hyper={"hidden": (8,), "batch_size": 16})
    on_disk: dict[Path, int] = {}

    def synced(file: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{file}"))
        on_disk[path] = path.stat().st_size

    monkeypatch.setattr("service.spool.writer.os.fsync", synced)
    spooled = paths.spool(tmp_path, trial.key)
    listener, lengths = StackSpool(Stack((trial,)), tmp_path, {hopper: {}}, 7), []
    for report in run_stack(Stack((trial,)), tmp_path, checkpoint_every=7):
        if isinstance(report, Checkpointed):
            lengths.append((spooled.stat().st_size, on_disk[spooled]))
        listener(report)
    listener.close()
    assert len(lengths) == 4, "at updates 0, 7, 14 and 20"
    assert all(written == there for written, there in lengths), lengths
    assert len(set(lengths)) == 4


def test_a_new_spool_is_found_again_after_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its folder is on disk with its name in it, not its lines alone."""
    named: dict[Path, set[str]] = {}

    def synced(file: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{file}"))
        if path.is_dir():
            named[path] = {each.name for each in path.iterdir()}

    monkeypatch.setattr("service.spool.writer.os.fsync", synced)
    listen(tmp_path, reports())
    spooled = paths.spool(tmp_path, KEY)
    assert spooled.name in named[spooled.parent]
