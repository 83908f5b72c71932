"""Data that changes under a sweep: a prepared table that was altered, a library that was planted, a disk with no room for a table."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from service.delivery.archive import archive
from service.ledger import manifest
from service.results.cells import tasks_of
from service.results.report.gather import gather
from service.spool import lines
from service.storage import paths
from service.tracking.runs import Tracking
from trainables.datasets import table_cache as tables
from trainables.datasets.known_hashes import known_hash
from trainables.datasets.table import load_table
from trainables.errors import UserError
from trainables.native import build
from trainables.run import run_stack
from trainables.trial import Stack, Trial

from ..conftest import QUICK, Fresh, Record, arguments
from ..support.nursery import ROOT, Ended, Nursery


@pytest.fixture
def cache(tmp_path: Path, hopper: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("WINNOW_CACHE", str(folder))
    return folder


FLAGS = tuple(flag for flag in build.FLAGS if flag != "-O3")  # where only the compiling is tested


def altered(cache: Path, *, same_time: bool) -> Path:
    """One reward of the prepared table is changed in place: the file has the same name and size and, if asked, the same time."""
    path = next(cache.glob("*.npy"))
    before = path.stat()
    rows = np.load(path, mmap_mode="r+")
    rows[5, -2] += 100
    rows.flush()
    if same_time:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return path


@pytest.mark.parametrize("same_time", [False, True], ids=["new time", "same time"])
def test_a_table_that_was_altered_is_prepared_again(cache: Path, hopper: str, same_time: bool, record: Record) -> None:
    table = load_table(hopper)
    good, name = np.array(table.rows), table.hash
    path = altered(cache, same_time=same_time)
    again = load_table(hopper)
    assert again.hash == name
    np.testing.assert_array_equal(again.rows, good)
    np.testing.assert_array_equal(np.load(path), good)
    record(f"prepared table altered in place, {'with its old time' if same_time else 'written anew'}: prepared again")


def test_without_verification_an_altered_table_is_trained_on(cache: Path, hopper: str, monkeypatch: pytest.MonkeyPatch) -> None:
    good = np.array(load_table(hopper).rows)
    monkeypatch.setattr(tables, "_verified", lambda digest: True)
    altered(cache, same_time=False)
    assert not np.array_equal(load_table(hopper).rows, good)


def test_the_other_file_of_a_table_is_verified_too(cache: Path, hopper: str) -> None:
    good = load_table(hopper).mean
    path = next(cache.glob("*.npz"))
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    np.savez(path, **(arrays | {"mean": arrays["mean"] + 1}))
    path.chmod(0o600)
    np.testing.assert_array_equal(load_table(hopper).mean, good)


def test_a_table_is_hashed_once_per_version(cache: Path, hopper: str, monkeypatch: pytest.MonkeyPatch) -> None:
    load_table(hopper)
    hashed = []
    real = tables._digest_of
    monkeypatch.setattr(tables, "_digest_of", lambda *files: hashed.append(files) or real(*files))
    load_table(hopper)
    assert hashed == []
    load_table(hopper, verify=True)
    assert len(hashed) == 1
    shutil.rmtree(cache / "verified")
    load_table(hopper)
    load_table(hopper)
    assert len(hashed) == 2


@pytest.mark.parametrize("protected", [True, False])
def test_a_library_that_others_can_write_is_not_loaded(
    cache: Path, protected: bool, monkeypatch: pytest.MonkeyPatch, record: Record
) -> None:
    """A library with the right name that would say so when it is loaded."""
    monkeypatch.setattr(build, "FLAGS", FLAGS)
    cache.mkdir(mode=0o777)
    cache.chmod(0o777)
    source, proof = cache.parent / "planted.c", cache.parent / "loaded"
    source.write_text(f'#include <stdlib.h>\n__attribute__((constructor)) static void go(void) {{ system("touch {proof}"); }}\n')
    target = cache / build._compiled(build.simd()).name
    subprocess.run(["cc", "-shared", "-fPIC", str(source), "-o", str(target)], check=True)
    target.chmod(0o777)
    if not protected:
        monkeypatch.setattr("trainables.storage.cache.trusted", lambda file: file.exists())
    program = f"import sys\nfrom trainables.storage import cache\n{'' if protected else 'cache.trusted = lambda file: file.exists()'}\n"
    program += f"from trainables.native import build\nbuild.FLAGS = {FLAGS}\nprint(build.available())\n"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False)
    assert proof.exists() is not protected
    if protected:
        assert done.stdout == "True\n", done.stderr
        assert cache.stat().st_mode & 0o777 == 0o755
        assert target.stat().st_mode & 0o777 == 0o700
        record("a library planted in a cache that others can write: compiled again, the folder closed")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_cache_of_another_user_is_refused(cache: Path, hopper: str) -> None:
    cache.mkdir(mode=0o755)
    os.chown(cache, 12345, 12345)
    with pytest.raises(UserError, match=r"belongs to another user \(id 12345\); set WINNOW_CACHE"):
        load_table(hopper)


def test_in_a_folder_like_tmp_each_user_has_a_cache_of_their_own(cache: Path, hopper: str) -> None:
    cache.mkdir()
    cache.chmod(0o1777)
    before = load_table(hopper).hash
    assert [path.name for path in cache.iterdir()] == [f"winnow-{os.geteuid()}"]
    assert {path.stat().st_mode & 0o077 for path in cache.rglob("*")} == {0}
    assert cache.stat().st_mode & 0o7777 == 0o1777, "it is not ours to close"
    assert load_table(hopper).hash == before


@pytest.mark.skipif(os.geteuid() != 0, reason="what is made here has to count as root's")
def test_an_empty_volume_of_kubernetes_holds_a_cache(cache: Path, hopper: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is root's and open to all, and the container's user may not close it."""
    cache.mkdir()
    cache.chmod(0o2777)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    load_table(hopper)
    assert [path.name for path in cache.iterdir()] == ["winnow-1000"]
    assert cache.stat().st_mode & 0o7777 == 0o2777


def test_files_of_the_cache_are_their_owners_alone(cache: Path, hopper: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "FLAGS", FLAGS)
    before = os.umask(0)
    try:
        load_table(hopper)
        build._compiled(build.simd())
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o077 for path in [cache, *cache.rglob("*")]} == {0}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 kB, of which the small dataset's table takes more."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("protected", [True, False])
def test_a_full_disk_under_the_cache_is_one_line(small_disk: Path, hopper: str, protected: bool, record: Record) -> None:
    program = f"import sys, os\nfrom trainables.datasets.table import load_table\n{'' if protected else 'del os.posix_fallocate'}\n"
    program += f"try:\n    load_table({hopper!r})\nexcept Exception as error:\n    sys.exit(str(error))\n"
    environment = os.environ | {"WINNOW_CACHE": str(small_disk / "cache")}
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    left = [path.name for path in small_disk.rglob("*") if path.is_file()]
    if protected:
        assert (done.returncode, left) == (1, [])
        assert done.stderr.startswith(f"the prepared table of {hopper!r} cannot be written below {small_disk}/cache (WINNOW_CACHE): ")
        assert "No space left on device" in done.stderr
        assert len(done.stderr.splitlines()) == 1
        record("disk full under a table that is being prepared: one line, nothing left")
    else:
        assert done.returncode == -7  # a bus error, without a word


DATASET = "test/hopper/random-v0"


@pytest.fixture
def data(tmp_path: Path, hopper_folder: Path, table_cache: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A copy of the small dataset that a test may change, and a cache of its own: the environment of its commands, and the test's."""
    found = {"MINARI_DATASETS_PATH": str(tmp_path / "minari"), "WINNOW_CACHE": str(tmp_path / "tables")}
    shutil.copytree(hopper_folder, tmp_path / "minari")
    (tmp_path / "tables").mkdir(mode=0o700)
    for library in table_cache.glob("*.so"):  # else each test would compile its own
        shutil.copy(library, tmp_path / "tables")
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    return found


def replace_data(data: dict[str, str], factor: float = 2.0) -> None:
    """Other rewards under the same id, with the same time and size."""
    path = Path(data["MINARI_DATASETS_PATH"], DATASET, "data", "main_data.hdf5")
    before = path.stat()
    with h5py.File(path, "r+") as file:
        for episode in file.values():
            episode["rewards"][...] *= factor
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))


def hashes(storage: Path, *keys: str) -> list[list[str]]:
    """The data of the attempts of each trial."""
    found = []
    for key in keys or sorted(manifest.read(storage, "smoke").entries):
        attempts = [placed.line for placed in lines.read(paths.spool(storage, key)) if placed.line["kind"] == "attempt"]
        found.append(list(dict.fromkeys(line["dataset_hash"] for line in attempts)))
    return found


def refused(ended: Ended, *says: str) -> str:
    """The one line of a command that was refused."""
    assert ended.code == 2, ended.out
    (line,) = [line for line in ended.out.splitlines() if not line.startswith("boundaries ")]
    assert line.startswith("error: ")
    assert all(text in line for text in says), line
    return line


NO_CHECK = ("no_data_check_of_the_driver", "no_data_check_of_workers")


@pytest.mark.parametrize("off", [(), NO_CHECK[:1], NO_CHECK], ids=["protected", "workers alone", "off"])
def test_data_that_changes_between_kill_and_resume_is_refused(
    off: tuple[str, ...], nursery: Nursery, fresh: Fresh, data: dict[str, str], record: Record
) -> None:
    storage = fresh()
    assert nursery.run(*arguments(storage), faults=[*QUICK, "die_after=Trained@31"], **data).code == 137
    old = load_table(DATASET).hash
    replace_data(data)
    new = load_table(DATASET).hash
    assert old != new
    for command in (arguments(storage), ["resume", "smoke", f"--storage={storage}"]):
        ended = nursery.run(*command, faults=[*QUICK, *off], **data)
        if not off:
            refused(
                ended,
                f"2 trials (bc/hopper-random/snip@80/s0, ...) trained on {DATASET} {old[:12]}, which is {new[:12]} here",
                "--new-data",
            )
            assert hashes(storage) == [[old], [old]], "nothing was written"
        elif off == NO_CHECK:
            assert ended.code == 0
        else:
            assert ended.code == 1
            assert f"the checkpoint after update 20 was trained on {old[:12]}" in ended.out
            assert new[:12] in ended.out
    assert hashes(storage) == ([[old, new]] * 2 if off == NO_CHECK else [[old]] * 2)
    if off == NO_CHECK:
        verified = nursery.run("verify", "smoke", "--data", f"--storage={storage}", **data)
        assert f"trained on several versions of {DATASET}: {old[:12]}, {new[:12]}" in verified.out
    else:
        record(f"dataset replaced between kill and resume{', which the driver overlooks' if off else ''}: refused with both hashes")


@pytest.mark.parametrize("protected", [True, False])
@pytest.mark.parametrize("cached", [True, False], ids=["hash known", "cache removed"])
def test_what_is_done_on_other_data_is_not_reused(
    protected: bool, cached: bool, nursery: Nursery, fresh: Fresh, data: dict[str, str], record: Record
) -> None:
    """By the same sweep and by another one; trained apart with --new-data, and shown apart."""
    storage, off = fresh(), [] if protected else ["no_data_check_of_the_driver"]
    assert nursery.run(*arguments(storage), faults=["no_table"], **data).code == 0
    old = load_table(DATASET).hash
    replace_data(data)
    if cached:
        load_table(DATASET)
    else:
        for name in ("index", "hashes"):
            shutil.rmtree(Path(data["WINNOW_CACHE"], name))
    other = ["run", "quickstart", *arguments(storage)[2:]]
    for command in (arguments(storage), other):
        ended = nursery.run(*command, faults=["no_table", *off], **data)
        if not protected:
            assert ended.code == 0
            continue
        refused(ended, f"trained on {DATASET} {old[:12]}, which is {load_table(DATASET).hash[:12]} here", "--new-data")
    if not protected:
        return
    new = load_table(DATASET).hash
    assert f"other data  2 trials (bc/hopper-random/snip@80/s0, ...) trained on {DATASET} {old[:12]}" in plan(nursery, storage, data)
    ended = nursery.run(*arguments(storage), "--new-data", faults=["no_table"], **data)
    assert ended.code == 0, ended.out
    ledger = manifest.read(storage, "smoke")
    assert [(entry.trial.data, entry.state) for entry in ledger.entries.values()] == [("", "done")] * 2 + [(new[:16], "done")] * 2
    assert hashes(storage, *ledger.entries) == [[old]] * 2 + [[new]] * 2
    again = nursery.run(*arguments(storage), faults=["no_table"], **data)
    assert (again.code, "done        2 here" in again.out) == (0, True), "what was trained apart is the sweep's own from then on"
    assert nursery.run("resume", "smoke", f"--storage={storage}", faults=["no_table"], **data).code == 0
    replace_data(data, 0.5)
    back = nursery.run(*arguments(storage), faults=["no_table"], **data)
    assert back.code == 0, "and with the old data back, so is the old"
    assert len(manifest.read(storage, "smoke").entries) == 4
    record(f"dataset replaced under trials that are done{'' if cached else ', and the cache removed'}: refused, or trained apart")


def plan(nursery: Nursery, storage: Path, data: dict[str, str]) -> str:
    return nursery.run("plan", *arguments(storage)[1:], **data).out


def test_seeds_of_two_versions_are_never_averaged(nursery: Nursery, fresh: Fresh, data: dict[str, str], record: Record) -> None:
    """Two seeds on one version and one on the next, which no command could know of: in one storage, and adopted into another."""
    storage, third = fresh(), fresh()
    assert nursery.run(*arguments(storage, seeds="0,1"), faults=["no_table"], **data).code == 0
    old = load_table(DATASET).hash
    replace_data(data)
    assert nursery.run(*arguments(storage, seeds="2"), faults=["no_table"], **data).code == 0
    new = load_table(DATASET).hash
    more = [f"--storage={storage}", *[word for word in arguments(storage, seeds="0,1,2") if word.startswith("--set")]]
    shown = nursery.run("results", "smoke", *more, **data)
    assert shown.code == 0, shown.out
    assert shown.out.count(f"n=2 of 3 (1 other data {new[:12]})") == 2
    assert f"several versions of its data: 4 on {old[:12]}, 2 on {new[:12]}" in shown.out
    whole = nursery.run("results", "smoke", "--json", *more, **data).out
    cells = json.loads(whole[whole.index("[\n") : whole.rindex("]") + 1])[0]["cells"]
    assert [len(cell["scores"]) for cell in cells] == [2, 2]
    found = gather(["smoke"], Tracking(storage), storage)
    assert any(f"4 on {old[:12]}, 2 on {new[:12]}" in note for note in found.notes)
    assert [cell.absence for task in tasks_of(found.runs) for cell in task.cells.values()] == [f"1 other data {new[:12]}"] * 2
    assert all(bool(run.points) is not run.apart for run in found.runs), "no curve either"
    archive(["smoke"], storage / "smoke.zip", storage)
    for command in (["archive", "smoke", "--to", str(storage / "again.zip"), f"--storage={storage}"],
                    ["adopt", str(storage / "smoke.zip"), f"--storage={third}"]):  # fmt: skip
        ended = nursery.run(*command, **data)
        assert ended.code == 0
        assert f"of the trials of {DATASET}, 4 on {old[:12]}, 2 on {new[:12]}; {new[:12]} is here" in ended.out
    assert nursery.run("sync", "smoke", f"--storage={third}", **data).code == 0
    assert "n=2 of 3" in nursery.run("results", "smoke", f"--storage={third}", *more[1:], **data).out
    record("seeds of two versions of a dataset, trained here and adopted: each cell of one version, with a warning")


def test_without_versions_seeds_are_pooled(nursery: Nursery, fresh: Fresh, data: dict[str, str]) -> None:
    storage = fresh()
    assert nursery.run(*arguments(storage), faults=["no_table"], **data).code == 0
    replace_data(data)
    assert nursery.run(*arguments(storage, seeds="1"), faults=["no_table"], **data).code == 0
    more = [f"--storage={storage}", *[word for word in arguments(storage, seeds="0,1") if word.startswith("--set")]]
    assert "n=2\n" in nursery.run("results", "smoke", *more, faults=["no_versions"], **data).out
    assert "n=1 of 2" in nursery.run("results", "smoke", *more, **data).out


def test_other_data_on_a_workers_host_is_refused(data: dict[str, str], tmp_path: Path, record: Record) -> None:
    trial = Trial(dataset=DATASET, algorithm="bc", updates=4, evaluations=1, episodes=1, hyper={"hidden": (8, 8)})
    here = load_table(DATASET).hash
    with pytest.raises(UserError, match=rf"has the hash {here[:12]} on .*, but the driver of this sweep has ab12; put that data back"):
        next(run_stack(Stack((trial,)), tmp_path / "kept", dataset_hash="ab12"))
    assert not (tmp_path / "kept").exists()
    with pytest.raises(UserError, match=r"bc/hopper-random/dense/s0 \(.*\): dataset .*, but the trial is of cd34"):
        next(run_stack(Stack((replace(trial, data="cd34"),))))
    assert list(run_stack(Stack((replace(trial, data=here[:16]),)), dataset_hash=here))[-1].update == 4
    record("another version of the dataset on a worker's host: refused there")


@pytest.mark.parametrize("same_code", [True, False])
def test_other_code_is_said_once_or_refused(same_code: bool, nursery: Nursery, fresh: Fresh, record: Record) -> None:
    storage = fresh()
    assert nursery.run(*arguments(storage), faults=[*QUICK, "die_after=Trained@31"]).code == 137
    command = [*arguments(storage), *["--same-code"] * same_code]
    ended = nursery.run(*command, faults=QUICK, WINNOW_REVISION="def456")
    if same_code:
        refused(ended, "2 trials were trained by code abc123; this is code def456", "leave out --same-code")
        assert nursery.run(*command, faults=QUICK).code == 0
        record("other code, with --same-code: refused with both revisions")
        return
    assert ended.code == 0
    assert ended.out.count("note: 2 trials were trained by code abc123; this is code def456") == 1
    assert "note:" not in nursery.run(*command, faults=QUICK).out, "nothing is trained any more"
    record("other code: said once, with both revisions")


def test_verify_hashes_the_data_again(nursery: Nursery, fresh: Fresh, data: dict[str, str], record: Record) -> None:
    storage = fresh()
    assert nursery.run(*arguments(storage), faults=["no_table"], **data).code == 0
    command = ["verify", "smoke", "--data", f"--storage={storage}"]
    good = nursery.run(*command, **data)
    assert good.code == 0, good.out
    assert "the data here is what every trial was trained on" in good.out
    old = load_table(DATASET).hash
    altered(Path(data["WINNOW_CACHE"]), same_time=True)
    assert nursery.run(*command, **data).code == 0, "prepared again from the dataset, which is as it was"
    replace_data(data)
    bad = nursery.run(*command, **data)
    assert bad.code == 1
    assert bad.out.count(f"trained on {DATASET} {old[:12]}, which is {load_table(DATASET).hash[:12]} here") == 2
    assert nursery.run("verify", "smoke", f"--storage={storage}", **data).code == 0
    shutil.rmtree(data["MINARI_DATASETS_PATH"])
    gone = nursery.run(*command, **data)
    assert gone.code == 1
    assert f"data: no dataset '{DATASET}'" in gone.out
    record("the data of done trials replaced or removed: verify --data names each trial")


def test_a_hash_is_known_without_opening_the_dataset_until_a_file_changes(data: dict[str, str]) -> None:
    assert known_hash(DATASET) == ""
    table = load_table(DATASET)
    assert known_hash(DATASET) == table.hash
    about = Path(data["MINARI_DATASETS_PATH"], DATASET, "data", "metadata.json")
    about.write_text(about.read_text().replace('max_episode_steps\\": 1000', 'max_episode_steps\\": 999'))
    assert known_hash(DATASET) == ""
    assert load_table(DATASET).hash == known_hash(DATASET) != table.hash
    replace_data(data)
    assert known_hash(DATASET) == ""
    program = (
        "import sys\nfrom trainables.datasets.known_hashes import known_hash\n"
        f"known_hash({DATASET!r})\nprint(sorted({{'numpy', 'torch', 'h5py', 'gymnasium'}} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=os.environ, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
