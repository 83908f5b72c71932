"""Storage on S3, against a real server: conditional writes, commits that are whole or absent, fences, and what a user is told."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.parsers import ResponseParserError

from search_spaces.sweep import load_sweep
from service.__main__ import main
from service.ledger import journal, lease, manifest
from service.ledger.claims import BucketClaim, Permit
from service.ledger.journal import ObjectJournal
from service.ledger.lease import Lease
from service.ledger.manifest import Manifest
from service.search.database import open_studies
from service.storage import paths, removal, s3, trial_objects
from tests.s3 import SECRET, Server
from trainables.errors import SupersededError, UserError
from trainables.trial import Trial

TRIAL = Trial(dataset="test/hopper/random-v0", algorithm="bc")
KEY = TRIAL.key


def write_trial(attempt: BucketClaim, **files: str) -> None:
    for name, text in files.items():
        path = paths.trial(attempt.storage, KEY) / {"spool": "spool.jsonl", "one": "checkpoints/000000001.json"}.get(name, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def begin(storage: Path, epoch: int = 0) -> BucketClaim:
    found = Permit(storage, "smoke", epoch).claim([KEY])
    assert isinstance(found, BucketClaim)
    return found


def lost_answer(bucket: s3.Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next PUT reaches the server, and its answer does not reach us."""
    put, lost = bucket._client.put_object, []

    def once(**given: Any) -> Any:
        answer = put(**given)
        if not lost:
            lost.append(answer)
            raise ConnectionResetError
        return answer

    monkeypatch.setattr(bucket._client, "put_object", once)


def test_an_object_is_made_once_and_replaced_only_in_its_known_version(bucket: s3.Bucket) -> None:
    etag = bucket.create("a/b", b"1")
    with pytest.raises(FileExistsError):
        bucket.create("a/b", b"2")
    newer = bucket.replace("a/b", b"3", etag)
    with pytest.raises(FileExistsError):
        bucket.replace("a/b", b"4", etag)
    assert bucket.get("a/b") == (b"3", newer)
    assert bucket.get_newer("a/b", newer) is None
    assert bucket.list("a/") == {"a/b": newer}
    bucket.delete(["a/b", "a/b"])
    assert not bucket.exists("a/b")
    with pytest.raises(FileNotFoundError):
        bucket.get("a/b")
    with pytest.raises(FileExistsError, match="is gone"):
        bucket.replace("a/b", b"5", newer)


def test_a_writer_whose_answer_was_lost_knows_its_own_object(bucket: s3.Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.list("")
    lost_answer(bucket, monkeypatch)
    etag = bucket.create("key", b"mine")
    lost_answer(bucket, monkeypatch)
    assert bucket.get("key") == (b"mine", etag)
    etag = bucket.replace("key", b"mine again", etag)
    assert bucket.get("key") == (b"mine again", etag)


def test_a_server_that_does_not_heed_conditions_is_refused(on_host: Callable[[str], Path]) -> None:
    storage = on_host("a")
    bucket = s3.bucket_of(storage)
    assert bucket

    def strip(params: dict[str, Any], **_: Any) -> None:
        params["headers"].pop("If-None-Match", None)

    bucket._client.meta.events.register("before-call.s3.PutObject", strip)
    with pytest.raises(UserError, match="ignores IfNoneMatch on PUT"):
        Lease(storage, "smoke")


def test_a_commit_is_seen_whole_by_the_next_attempt_and_by_readers(on_host: Callable[[str], Path], bucket: s3.Bucket) -> None:
    attempt = begin(on_host("a"))
    write_trial(attempt, spool="one\n", one="state")
    attempt.commit()
    write_trial(attempt, spool="one\ntwo\n")
    attempt.commit()
    write_trial(attempt, spool="one\ntwo\nlost\n")
    attempt.close()
    assert not attempt.storage.exists()
    assert len(bucket.list("trials/")) == 2  # nothing of the first spool is left
    storage = on_host("b")
    trial_objects.pull(storage)
    assert paths.spool(storage, KEY).read_text() == "one\ntwo\n"
    assert not paths.checkpoints(storage, KEY).exists()
    following = begin(storage)
    assert (paths.checkpoints(following.storage, KEY) / "000000001.json").read_text() == "state"
    assert paths.spool(following.storage, KEY).read_text() == "one\ntwo\n"
    following.close()


@pytest.mark.parametrize("calls", [0, 1, 2])
def test_a_kill_within_a_commit_leaves_the_one_before(
    calls: int, on_host: Callable[[str], Path], bucket: s3.Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ahead of the first upload, the second, and the head."""
    attempt = begin(on_host("a"))
    write_trial(attempt, spool="1", one="state 1")
    attempt.commit()
    write_trial(attempt, spool="2", one="state 2")
    put, made = attempt._bucket._client.put_object, []

    def dying(**given: Any) -> Any:
        if len(made) == calls:
            raise KeyboardInterrupt
        made.append(given)
        return put(**given)

    monkeypatch.setattr(attempt._bucket._client, "put_object", dying)
    with pytest.raises(KeyboardInterrupt):
        attempt.commit()
    monkeypatch.undo()
    assert len(bucket.list("trials/")) == 2 + calls
    storage = on_host("b")
    following = begin(storage)
    assert len(bucket.list("trials/")) == 2  # what was uploaded in vain is gone
    trial_objects.pull(storage)
    for place in (storage, following.storage):
        assert paths.spool(place, KEY).read_text() == "1"
    assert (paths.checkpoints(following.storage, KEY) / "000000001.json").read_text() == "state 1"
    following.close()


def test_of_two_attempts_only_the_newer_one_commits(on_host: Callable[[str], Path]) -> None:
    older = begin(on_host("a"))
    write_trial(older, spool="older")
    newer = begin(on_host("b"))
    with pytest.raises(SupersededError, match=f"{KEY} is trained by smoke 0 b:1"):
        older.commit()
    write_trial(newer, spool="newer")
    newer.commit()
    storage = on_host("c")
    trial_objects.pull(storage)
    assert paths.spool(storage, KEY).read_text() == "newer"
    for attempt in (older, newer):
        attempt.close()


def test_a_damaged_checkpoint_is_left_out_and_a_damaged_spool_is_said(
    on_host: Callable[[str], Path], bucket: s3.Bucket, server: Server
) -> None:
    attempt = begin(on_host("a"))
    write_trial(attempt, spool="spool", one="state")
    attempt.commit()
    for key in bucket.list("trials/"):
        bucket.put(key, b"flipped") if "/checkpoints/" in key else None
    following = begin(on_host("b"))
    assert paths.spool(following.storage, KEY).read_text() == "spool"
    assert not [*paths.trial(following.storage, KEY).glob("checkpoints/*")]
    for key in bucket.list("trials/"):
        bucket.put(key, b"flipped")
    with pytest.raises(OSError, match="damaged"):
        trial_objects.pull(on_host("c"))


@pytest.mark.parametrize("name", ["../../../evil", "trial.json/../../x", "/etc/passwd"])
def test_a_head_cannot_name_files_elsewhere(name: str, on_host: Callable[[str], Path], bucket: s3.Bucket) -> None:
    bucket.put(f"trials/{KEY}/x", b"")
    digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    bucket.put(f"heads/{KEY}.json", json.dumps({"attempt": "x", "files": {name: [f"trials/{KEY}/x", digest]}}).encode())
    with pytest.raises(OSError, match="not a file of a trial"):
        trial_objects.pull(on_host("a"))


def test_a_host_that_knew_a_sweep_before_it_was_forgotten_reads_the_new_one(on_host: Callable[[str], Path], bucket: s3.Bucket) -> None:
    def written(storage: Path, end: str) -> None:
        with contextlib.closing(Manifest(storage, "smoke")) as journal:
            journal.plan([TRIAL])
            journal.record("leased", {KEY: {}})
            journal.record(end, {KEY: {"reason": "error"}})

    written(on_host("a"), "done")
    assert manifest.read(on_host("b"), "smoke").state(KEY) == "done"
    removal.remove_sweep(on_host("a"), "smoke")
    written(on_host("a"), "failed")
    for host in ("a", "b", "c"):
        assert manifest.read(on_host(host), "smoke").state(KEY) == "failed"


def test_a_sweep_whose_removal_was_killed_anywhere_can_be_opened_and_removed(
    on_host: Callable[[str], Path], bucket: s3.Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, delete = on_host("a"), s3.Bucket.delete

    def dying_after(deleted: int) -> Callable[[s3.Bucket, Iterable[str]], None]:
        def die(bucket: s3.Bucket, keys: Iterable[str]) -> None:
            delete(bucket, list(keys)[:deleted])
            raise SystemExit

        return die

    objects = 10
    for deleted in range(objects + 1):
        for _ in range(2):
            with contextlib.closing(Manifest(storage, "smoke")) as journal:
                journal.plan([TRIAL])
        with contextlib.closing(Manifest(storage, "smoke")) as journal:
            journal.forget([KEY], everything=True)
            assert len(bucket.list("sweeps/smoke/")) == objects
            monkeypatch.setattr(s3.Bucket, "delete", dying_after(deleted))
            with pytest.raises(SystemExit):
                removal.remove_sweep(storage, "smoke")
            monkeypatch.setattr(s3.Bucket, "delete", delete)
        with contextlib.closing(Manifest(on_host("b"), "smoke")) as journal:
            assert journal.ledger.entries == {}
            journal.plan([TRIAL])
        assert list(manifest.read(on_host("c"), "smoke").entries) == [KEY]
        removal.remove_sweep(storage, "smoke")
        assert bucket.list("sweeps/smoke/") == {}


def test_a_journal_that_is_removed_while_it_is_read_is_read_again(
    on_host: Callable[[str], Path], bucket: s3.Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a command on another sweep, which would end in a traceback."""
    with contextlib.closing(Manifest(on_host("a"), "smoke")) as journal:
        journal.plan([TRIAL])
    get, gone = s3.Bucket.get, threading.Event()

    def late(bucket: s3.Bucket, key: str, **how: Any) -> tuple[bytes, str]:
        if "/manifest/" in key and not gone.is_set():
            gone.set()
            removal.remove_sweep(on_host("a"), "smoke")
        return get(bucket, key, **how)

    monkeypatch.setattr(s3.Bucket, "get", late)
    assert manifest.read(on_host("b"), "smoke").entries == {}
    assert gone.is_set()


def test_a_host_fetches_the_parts_that_it_lacks_in_parallel_and_lists_no_folder_for_each(
    on_host: Callable[[str], Path], bucket: s3.Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = on_host("a")
    folder = paths.manifest_parts(storage, "smoke")
    lines = [b"%d\n" % number for number in range(1, 41)]
    for number, line in enumerate(lines, 1):
        bucket.create(paths.remote(folder / f"{number:08d}.jsonl")[1], line)
    folder.mkdir(parents=True)
    (left := folder / ".00000001.e.jsonl.999999999.tmp").touch()
    get, at_once, gets = bucket.get, threading.Barrier(4), list[str]()

    def together(key: str) -> tuple[bytes, str]:
        gets.append(key)
        at_once.wait(60)  # raises where fewer than four are under way
        return get(key)

    monkeypatch.setattr(bucket, "get", together)
    listed, iterdir = Counter[Path](), Path.iterdir

    def counted(self: Path) -> Iterator[Path]:
        listed[self] += 1
        return iterdir(self)

    monkeypatch.setattr(Path, "iterdir", counted)
    journal = ObjectJournal(bucket, folder)
    assert journal.content() == b"".join(lines)
    assert len(gets) == 40
    journal.append(b"41\n")
    assert journal.content() == b"".join(lines) + b"41\n"
    assert len(gets) == 40
    assert listed[folder] == 1
    assert not left.exists()


@pytest.mark.parametrize("sweeps", [2, 4])
def test_whoever_looks_again_and_again_lists_only_what_is_new(
    sweeps: int, on_host: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And sees what a list of everything sees. Where there are so many sweeps that looking at each would take longer, it lists all."""
    storage, names = on_host("a"), [f"sweep{number}" for number in range(sweeps)]
    bucket = s3.bucket_of(storage)
    assert bucket
    monkeypatch.setattr(journal, "PAGE", 40)  # so that a handful of parts stands for thousands

    def write(name: str, parts: range, content: str) -> None:
        for part in parts:
            bucket.create(f"sweeps/{name}/manifest/{part:08d}.jsonl", f"{content} {part}".encode())

    def forget(name: str) -> None:
        bucket.delete(sorted(bucket.list(f"sweeps/{name}/")))

    for name in names:
        write(name, range(1, 21 if sweeps == 2 else 5), name)
    watched, pages = journal.Versions(storage), Counter[str]()
    assert list(watched.look()) == names
    answer = bucket._client.list_objects_v2

    def counted(**query: Any) -> Any:
        page = answer(**query)
        pages["requests"] += 1
        pages["objects"] += len(page.get("Contents", []))
        return page

    monkeypatch.setattr(bucket._client, "list_objects_v2", counted)
    before = watched.look()
    assert dict(pages) == ({"requests": 3, "objects": 2} if sweeps == 2 else {"requests": 1, "objects": 16})
    changes: dict[str, Callable[[], object]] = {
        "nothing": lambda: None,
        "a part more": lambda: write(names[0], range(21, 22), "new"),
        "two parts more": lambda: write(names[0], range(22, 24), "new"),
        "a sweep that has no journal yet": lambda: bucket.put("sweeps/other/lease/000001.json", b""),
        "a new sweep": lambda: write("sweep0.part1", range(1, 2), "new"),
        "a second part": lambda: write("sweep0.part1", range(2, 3), "new"),
        "forgotten": lambda: forget(names[1]),
        "begun anew": lambda: write(names[1], range(1, 4), "anew"),
        "forgotten and begun anew, with fewer parts": lambda: (forget(names[0]), write(names[0], range(1, 6), "anew")),
        "the same with as many": lambda: (forget(names[0]), write(names[0], range(1, 6), "once more")),
        "the same with more": lambda: (forget(names[0]), write(names[0], range(1, 9), "at last")),
    }
    for change, make in changes.items():
        make()
        after = watched.look()
        assert after == journal.versions(storage), change
        assert list(after) == list(journal.versions(storage)), change
        assert (after == before) == (change in ("nothing", "a sweep that has no journal yet")), change
        before = after


def test_a_copy_of_many_heads_is_listed_once(on_host: Callable[[str], Path], bucket: s3.Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        bucket.put(f"heads/{number:016x}.json", json.dumps({"attempt": "nobody", "files": {}}).encode())
    storage = on_host("a")
    paths.heads(storage).mkdir(parents=True)
    (left := paths.heads(storage) / f".{0:016x}.json.999999999.tmp").touch()
    listed, iterdir = Counter[Path](), Path.iterdir

    def counted(self: Path) -> Iterator[Path]:
        listed[self] += 1
        return iterdir(self)

    monkeypatch.setattr(Path, "iterdir", counted)
    trial_objects.pull(storage)
    assert len([*paths.heads(storage).glob("*.json")]) == 5
    assert listed[paths.heads(storage)] == 1
    assert not left.exists()


def test_a_cache_that_cannot_be_written_does_not_end_a_driver(on_host: Callable[[str], Path]) -> None:
    storage = on_host("a")
    with contextlib.closing(Manifest(storage, "smoke")) as driver:
        copies = paths.manifest_parts(storage, "smoke")
        shutil.rmtree(copies)
        copies.touch()  # in the folder's place
        driver.plan([TRIAL])
        driver.record("leased", {KEY: {}})
        assert manifest.read(on_host("b"), "smoke").state(KEY) == "leased"


def test_of_two_drivers_one_is_refused_and_a_superseded_one_can_write_nothing(
    on_host: Callable[[str], Path], bucket: s3.Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    stale = Manifest(on_host("a"), "smoke")
    stale.plan([TRIAL])
    permit = Permit(paths.root(bucket.url), "smoke", stale.lease.epoch)
    attempt = permit.claim([KEY])
    with pytest.raises(UserError, match="'smoke' is being run by a:1"):
        Lease(on_host("a"), "smoke", bound=60)  # the same host: at once, by its lock
    storage = on_host("b")
    beat, seen = lease.time.sleep, []
    monkeypatch.setattr(lease.time, "sleep", lambda seconds: (seen.append(stale.lease.beat()), beat(0.01)))
    with pytest.raises(UserError, match="'smoke' is being run by a:1 since"):
        Lease(storage, "smoke", bound=60)
    assert lease.alive(storage, "smoke", patience=60)
    monkeypatch.setattr(lease.time, "sleep", beat)
    taken = Lease(storage, "smoke", bound=0.1)
    before = bucket.list("")
    for write in (lambda: stale.record("leased", {KEY: {}}), attempt.commit, lambda: permit.claim([KEY])):
        with pytest.raises(SupersededError, match="epoch 1 is over: held by b:1"):
            write()
    assert bucket.list("") == before
    taken.check()
    stale.close()
    taken.check()
    taken.release()
    attempt.close()
    assert Lease(on_host("c"), "smoke", bound=1e9).epoch == 4


def test_a_driver_that_slept_between_check_and_write_writes_nothing(
    on_host: Callable[[str], Path], bucket: s3.Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    stale = Manifest(on_host("a"), "smoke")
    stale.plan([TRIAL])
    monkeypatch.setattr(stale.lease, "check", lambda: None)  # it has checked long ago
    monkeypatch.setitem(Lease.__init__.__kwdefaults__, "bound", 0.1)
    storage = on_host("b")
    newer = Manifest(storage, "smoke")
    newer.record("leased", {KEY: {}})
    with pytest.raises(SupersededError, match="another driver has written part 3"):
        stale.record("done", {KEY: {}})
    assert manifest.read(storage, "smoke").state(KEY) == "leased"
    newer.close()


def test_last_words_before_the_takeover_do_not_stop_the_new_driver(on_host: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The old driver writes after the new one has read the journal and before the new one writes to it."""
    stale = Manifest(on_host("a"), "smoke")
    stale.plan([TRIAL])
    monkeypatch.setattr(stale.lease, "check", lambda: None)
    monkeypatch.setitem(Lease.__init__.__kwdefaults__, "bound", 0.1)
    replay, said = manifest._replay, []

    def late(journal: Any) -> Any:
        found = replay(journal)
        if not said:
            said.append(stale.record("leased", {KEY: {}}))
        return found

    monkeypatch.setattr(manifest, "_replay", late)
    newer = Manifest(on_host("b"), "smoke")
    assert newer.ledger.state(KEY) == "leased"
    assert newer.ledger.epoch == 2
    newer.close()


REFUSED = {
    "no such bucket": ("s3://not-there/x", {}, "there is no such bucket"),
    "no credentials": ("s3://some-bucket", {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "NoCredentialsError; set AWS_"),
    "nobody there": ("s3://some-bucket", {"AWS_ENDPOINT_URL": "http://user:hunter2@127.0.0.1:9"}, "the server does not answer"),
    "no address": ("s3://some-bucket", {"AWS_ENDPOINT_URL": "nonsense"}, "AWS_ENDPOINT_URL or AWS_PROFILE is invalid"),
    "no bucket": ("s3://", {}, "'s3://' is not of the form s3://bucket"),
    "a password": ("s3://key:hunter2@bucket/x", {}, "'s3://key:***@bucket/x' is not of the form"),
    "a way out": ("s3://bucket/../x", {}, "is not of the form"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("command", ["status", "run"])
def test_a_storage_that_cannot_be_used_is_one_line(
    case: str,
    command: str,
    server: Server,
    hopper: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    address, changes, says = REFUSED[case]
    for name, value in (server.environment | {"WINNOW_CACHE": str(tmp_path)} | changes).items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(s3, "FIRST_PATIENCE", 0.5)
    s3._bucket.cache_clear()
    assert main([command, "smoke", f"--storage={address}"]) == 2
    out, err = capsys.readouterr()
    assert says in err
    assert err.count("\n") == 1
    assert not any(secret in out + err for secret in (SECRET, "hunter2", "Traceback"))


def test_credentials_that_are_refused_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    strict = Server(tmp_path / "log", INITIAL_NO_AUTH_ACTION_COUNT="0")
    try:
        for name, value in (strict.environment | {"WINNOW_CACHE": str(tmp_path)}).items():
            monkeypatch.setenv(name, value)
        s3._bucket.cache_clear()
        assert main(["status", "smoke", "--storage=s3://some-bucket"]) == 2
        err = capsys.readouterr().err
        assert "s3://some-bucket: refused (InvalidAccessKeyId)" in err
        assert err.count("\n") == 1
        assert SECRET not in err
    finally:
        strict.end()


def test_without_boto3_the_line_says_what_to_install(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    s3._bucket.cache_clear()
    assert main(["status", "smoke", f"--storage={url}"]) == 2
    assert capsys.readouterr().err == f"error: storage {url} needs boto3: pip install 'winnow-rl[s3]'\n"


def test_folders_of_dead_workers_are_removed(on_host: Callable[[str], Path]) -> None:
    storage = on_host("a")
    attempt = begin(storage)
    dead = paths.attempts(storage) / "dead"
    (dead / "trials").mkdir(parents=True)
    dead.with_suffix(".lock").touch()
    other = begin(storage)
    assert not dead.exists()
    assert attempt.storage.exists()
    for each in (attempt, other):
        each.close()
    assert not [*paths.attempts(storage).iterdir()]


def test_a_page_of_a_proxy_in_place_of_an_answer_is_asked_again(bucket: s3.Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.put("a", b"1")
    get, pages = bucket._client.get_object, [ResponseParserError("Unable to parse response: <html>")]

    def proxy(**given: Any) -> Any:
        if pages:
            raise pages.pop()
        return get(**given)

    monkeypatch.setattr(bucket._client, "get_object", proxy)
    assert bucket.get("a")[0] == b"1"
    assert not pages


def test_a_study_that_hosts_would_not_share_is_refused() -> None:
    with pytest.raises(UserError, match="keeps its studies in a database: --study-storage URL"):
        open_studies(load_sweep("td3bc_adaptive"), paths.root("s3://some-bucket/x"), None)


def test_after_a_call_that_has_waited_in_vain_others_try_once_until_the_server_answers(
    bucket: s3.Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver that leaves because its storage is out of reach makes several more calls on its way out."""
    bucket.put("a", b"1")
    monkeypatch.setattr(s3, "PATIENCE", 1.0)
    put, away, tries = bucket._client.put_object, [True], []

    def cable(**given: Any) -> Any:
        tries.append(given)
        if away[0]:
            raise ConnectionResetError
        return put(**given)

    monkeypatch.setattr(bucket._client, "put_object", cable)
    with pytest.raises(OSError, match="the server does not answer"):
        bucket.put("a", b"2", patience=0.3)
    tries.clear()
    with pytest.raises(OSError, match="the server does not answer"):
        bucket.put("a", b"2", patience=1.0)
    assert len(tries) > 1, "a short wait in vain does not count"
    for _ in range(2):
        tries.clear()
        with pytest.raises(OSError, match="the server does not answer"):
            bucket.put("a", b"2", patience=1.0)
        assert len(tries) == 1
    away[0] = False
    bucket.put("a", b"2", patience=1.0)
    away[0] = True
    tries.clear()
    with pytest.raises(OSError, match="the server does not answer"):
        bucket.put("a", b"3", patience=1.0)
    assert len(tries) > 1
