from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from service.ledger import journal
from service.ledger.journal import FileJournal
from service.ledger.ledger import Event, Ledger
from service.ledger.manifest import Followed, Manifest, read, read_all
from service.storage import paths
from trainables.errors import UserError
from trainables.trial import Trial

TRIALS = tuple(Trial(dataset="test/hopper/random-v0", algorithm="bc", seed=seed) for seed in range(3))
A, B, C = (trial.key for trial in TRIALS)


def test_what_was_recorded_is_replayed(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path, "smoke")
    manifest.plan(TRIALS)
    manifest.record("leased", {A: {"size": 1}, B: {"size": 1}})
    manifest.record("done", {A: {"seconds": 2.5}})
    manifest.record("failed", {B: {"reason": "out_of_memory"}})
    manifest.close()
    ledger = read(tmp_path, "smoke")
    assert {key: ledger.state(key) for key in (A, B, C)} == {A: "done", B: "failed", C: "planned"}
    assert ledger.entries[A].detail["seconds"] == 2.5
    assert [entry.trial for entry in ledger.entries.values()] == list(TRIALS)
    assert ledger.keys_in("done", "planned") == [A, C]


def test_each_opening_is_a_higher_epoch_and_only_new_trials_are_planned(tmp_path: Path) -> None:
    for count in (1, 3):
        manifest = Manifest(tmp_path, "smoke")
        manifest.plan(TRIALS[:count])
        manifest.close()
    ledger = read(tmp_path, "smoke")
    assert ledger.epoch == 3, "the release of the first was epoch 2"
    assert [event.epoch for key in (A, B) for event in ledger.entries[key].events] == [1, 3]


def test_a_driver_that_cannot_write_keeps_no_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(journal, "append", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(UserError, match="No space left on device"):
            Manifest(tmp_path, "smoke")
    Manifest(tmp_path, "smoke").close()


def test_a_driver_that_stood_still_while_it_opened_cuts_off_nothing_of_another_one(tmp_path: Path) -> None:
    Manifest(tmp_path, "smoke").close()
    path = paths.manifest(tmp_path, "smoke")
    slow = FileJournal(path)
    before = slow.content()
    with path.open("ab") as file:  # another host has taken the lease meanwhile
        file.write(b"what it writes\n")
    slow.begin(len(before))
    slow.close()
    assert path.read_bytes() == before + b"what it writes\n"


def test_a_torn_last_line_is_forgotten_and_cut_off_before_the_next_is_written(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path, "smoke")
    manifest.plan(TRIALS[:1])
    manifest.close()
    path = paths.manifest(tmp_path, "smoke")
    whole = path.read_bytes()
    for cut in (1, 20, 60):
        path.write_bytes(whole + json.dumps({"key": A, "state": "leased", "epoch": 1, "detail": {}, "time": 0.0}).encode()[:cut])
        assert read(tmp_path, "smoke").state(A) == "planned"
    manifest = Manifest(tmp_path, "smoke")
    manifest.record("leased", {A: {}})
    manifest.close()
    assert read(tmp_path, "smoke").state(A) == "leased"
    assert path.read_bytes().startswith(whole)


def test_a_damaged_line_in_the_middle_is_told(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path, "smoke")
    manifest.plan(TRIALS)
    manifest.close()
    path = paths.manifest(tmp_path, "smoke")
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = b"@" + lines[1][1:]
    path.write_bytes(b"".join(lines))
    with pytest.raises(UserError, match=r"manifest\.jsonl line 2 is damaged"):
        read(tmp_path, "smoke")


def test_a_second_driver_is_told_who_runs_the_sweep(tmp_path: Path) -> None:
    program = "from pathlib import Path; from service.ledger.manifest import Manifest; import sys; m = Manifest(Path(sys.argv[1]), 'smoke')"
    holder = subprocess.Popen(
        [sys.executable, "-c", program + "; print('ready', flush=True); sys.stdin.read()", str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdout is not None
    assert holder.stdout.readline() == "ready\n"
    before = paths.manifest(tmp_path, "smoke").read_bytes()
    with pytest.raises(UserError, match=f"'smoke' is being run by .*:{holder.pid}"):
        Manifest(tmp_path, "smoke")
    assert paths.manifest(tmp_path, "smoke").read_bytes() == before
    holder.kill()
    holder.communicate()
    Manifest(tmp_path, "smoke").close()  # a killed driver leaves no lock behind
    assert read(tmp_path, "smoke").epoch == 2


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".", "a b"])
def test_a_name_that_is_no_sweeps_name_never_becomes_a_path(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="sweep name"):
        Manifest(tmp_path, name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_event_that_could_not_be_written_has_not_happened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """A disk that is full for a moment, a signal within the write: what is recorded next must follow what is on disk."""
    manifest = Manifest(tmp_path, "smoke")
    manifest.plan(TRIALS[:2])
    before = paths.manifest(tmp_path, "smoke").read_bytes()

    def fail(file: int) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("service.ledger.journal.os.fsync", fail)
        with pytest.raises((UserError, KeyboardInterrupt)):
            manifest.record_all([(A, "leased", {}), (C, "planned", {"trial": TRIALS[2].to_json()}), (C, "leased", {})])
    assert paths.manifest(tmp_path, "smoke").read_bytes() == before
    assert [manifest.ledger.state(key) for key in (A, B, C)] == ["planned", "planned", ""]
    assert list(manifest.ledger.first) == [A, B], "nor is it in the sweep's first plan"
    manifest.record("leased", {B: {}})
    manifest.close()
    ledger = read(tmp_path, "smoke")
    assert [ledger.state(key) for key in (A, B, C)] == ["planned", "leased", ""]


def test_trials_whose_plug_in_is_gone_are_set_aside_and_hold_up_no_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("smoke", "quickstart"):
        manifest = Manifest(tmp_path, name)
        manifest.plan(TRIALS[:2])
        manifest.record("leased", {A: {"size": 1}, B: {"size": 1}})
        manifest.close()
    path = paths.manifest(tmp_path, "quickstart")
    gone, rest = path.read_text().replace('"dense"', '"mine"', 1), "1 trial cannot be read here and left out (no pruner 'mine')\n"
    path.write_text(gone)
    assert list(read_all(tmp_path, required="smoke")) == ["quickstart", "smoke"]
    assert capsys.readouterr().err == "", "what others have lost is theirs"
    ledger = read_all(tmp_path, required="quickstart")["quickstart"]
    assert (ledger.state(A), ledger.state(B), list(ledger.unreadable)) == ("", "leased", [A])
    assert capsys.readouterr().err == f"sweep 'quickstart': {rest}"
    read_all(tmp_path)
    assert capsys.readouterr().err == f"sweep 'quickstart': {rest}"
    assert Followed(tmp_path, "quickstart").read().length == Followed(tmp_path, "smoke").read().length
    manifest = Manifest(tmp_path, "quickstart")
    manifest.record("done", {B: {}})
    manifest.close()
    assert path.read_text().startswith(gone), "what is set aside stays where it is"
    manifest = Manifest(tmp_path, "quickstart")
    manifest.plan(TRIALS[:1])  # a line that was damaged, of a trial that the sweep's file still names: it begins anew
    manifest.record("leased", {A: {"size": 1}})
    manifest.close()
    ledger = read(tmp_path, "quickstart")
    assert (ledger.state(A), ledger.unreadable) == ("leased", {})
    path.write_text(gone.replace('"mine"', '"dense"'))
    assert read(tmp_path, "quickstart").keys_in("leased") == [A, B], "what it needs was restored"


def test_who_follows_a_journal_replays_each_line_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver asks before each stack what the drivers of other sweeps train, which may have thousands of trials."""
    manifest = Manifest(tmp_path, "smoke")
    manifest.plan(TRIALS[:2])
    made, apply = list[str](), Ledger.apply

    def noted(ledger: Ledger, event: Event, *how: Any) -> None:
        apply(ledger, event, *how)
        made.extend([event.key] if "trial" in event.detail else [])

    monkeypatch.setattr(Ledger, "apply", noted)
    followed = Followed(tmp_path, "smoke")
    assert followed.read().keys_in("planned") == [A, B]
    manifest.record("leased", {A: {"size": 1}})
    assert followed.read().keys_in("leased") == [A]
    manifest.record("done", {A: {}})
    manifest.plan(TRIALS)
    assert followed.read().keys_in("done", "planned") == [A, B, C]
    assert len(made) == 2 + 2, "two at first, and the third by its driver and by the follower"
    manifest.close()


def test_who_follows_a_journal_sees_what_any_reader_sees(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path, "smoke")
    manifest.plan(TRIALS)
    manifest.close()
    path, followed = paths.manifest(tmp_path, "smoke"), Followed(tmp_path, "smoke")
    whole = path.read_bytes()
    line = json.dumps({"key": A, "state": "leased", "epoch": 1, "detail": {}, "time": 0.0}).encode() + b"\n"
    for content in (whole, whole + line[:20], whole + line, whole[:-5], whole + line.replace(A.encode(), B.encode()), b"", whole):
        path.write_bytes(content)
        assert followed.read().keys_in("leased") == read(tmp_path, "smoke").keys_in("leased")
        assert list(followed.read().entries) == list(read(tmp_path, "smoke").entries)
    path.write_bytes(whole + b"no line\n")
    for _ in range(2):
        with pytest.raises(UserError, match="line 5 is damaged"):
            followed.read()
    path.write_bytes(whole + line)
    assert followed.read().keys_in("leased") == [A]
    manifest = Manifest(tmp_path, "smoke")
    manifest.forget([A, B, C], everything=True)
    assert not followed.read().entries
    manifest.close()
