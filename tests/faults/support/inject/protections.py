"""Protections that can be taken away, a function each."""

from __future__ import annotations

import contextlib
import os
import re
import time
from functools import partial
from pathlib import Path
from typing import Any

from hooks import With, when_imported


def no_checkpoint_hash() -> None:
    for module in ("trainables.storage.checkpoint_files", "trainables.training.checkpoint"):
        when_imported(module, lambda module: setattr(module, "hashed", lambda head, content: "same"))


def no_fit_of_checkpoints() -> None:
    """A checkpoint with the right hash is loaded whatever it holds, and a mask that is too short counts as continued by zeros."""

    def padded(bits: Any, count: int) -> Any:
        import numpy
        import torch

        return torch.from_numpy(numpy.unpackbits(bits.numpy(), count=count))

    when_imported("trainables.training.checkpoint", lambda module: setattr(module, "_fits", lambda *_: True))
    when_imported("trainables.tensors.mask", lambda module: setattr(module, "unpacked", padded))


def no_rename() -> None:
    """Checkpoints, masks and policies are written where they shall be, without temporary and rename, a head ahead of its tensors."""

    def change(module: Any) -> None:
        tensors: dict[Path, bytes] = {}

        def write(path: Path, content: bytes, *, below: Path) -> None:
            if path.parent.name == "checkpoints" and path.suffix == ".safetensors":
                tensors[path] = content
                return
            torn(path, content)
            if (behind := path.with_suffix(".safetensors")) in tensors:
                torn(behind, tensors.pop(behind))

        module.write = write

    def torn(path: Path, content: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as file:
            file.truncate(len(content))  # as a file system may leave it: whole in length, the rest zeros
            file.write(content[: len(content) // 2])
            file.flush()
            os.fsync(file.fileno())
            file.write(content[len(content) // 2 :])

    when_imported("trainables.training.checkpoint", change)
    when_imported("trainables.training.files_of_trial", change)


def no_tidy() -> None:
    """What a kill leaves behind stays."""
    when_imported("trainables.storage.files", lambda module: setattr(module, "_tidy", lambda path: None))
    when_imported("trainables.training.checkpoint", lambda module: setattr(module, "_tidy", lambda *_: None))


def no_work_kept() -> None:
    """A trial that goes on does not look for its checkpoint."""
    when_imported("trainables.training.checkpoint", lambda module: setattr(module, "newest", lambda *_: None))


def no_data_check_of_the_driver() -> None:
    """A driver takes any data for that of the trials."""
    when_imported("service.planning.data_here", lambda module: setattr(module.DataHere, "differs", lambda *_: False))


def no_data_check_of_workers() -> None:
    """A worker goes on from a checkpoint whatever it was trained on."""
    when_imported("trainables.run", lambda module: setattr(module.StackRun, "check_data", lambda *_: None))


def no_versions() -> None:
    """Results take a dataset's name for its identity."""
    when_imported("service.results.runs", lambda module: setattr(module, "_data_of", lambda row: ""))


def no_escapes() -> None:
    """What commands print is not looked at."""
    when_imported("trainables.output", lambda module: setattr(module, "_CONTROL", re.compile("(?!)")))


def no_sharing() -> None:
    """Files of a shared storage are made by the user's umask, like all others."""
    when_imported("service.storage.sharing", lambda module: setattr(module, "_shared", lambda *_: False))


def import_anything() -> None:
    """An environment's id imports its module, whichever that is."""
    when_imported("trainables.environments", lambda module: setattr(module, "import_for", lambda *_: None))


def no_check_of_archives() -> None:
    """The lines of an archive's spools are taken as they are."""
    when_imported("service.spool.complete", lambda module: setattr(module, "check", lambda *_: None))


def no_commit_on_leaving() -> None:
    """A worker that leaves keeps its last checkpoint and nothing else."""
    when_imported("trainables.training.stack_files", lambda module: setattr(module.StackFiles, "commit", _only_at_intervals(module)))


def _only_at_intervals(module: Any) -> Any:
    commit = module.StackFiles.commit
    return lambda files, state: commit(files, state) if not any(state.unreported) else iter(())


def nothing_unreported() -> None:
    """A checkpoint between two reports does not hold what the next report needs."""
    when_imported("trainables.run", lambda module: setattr(module.StackRun, "unreported", lambda *_: ()))


def no_look_elsewhere() -> None:
    """A driver knows nothing of the sweeps that run beside it."""
    when_imported("service.driving.elsewhere", lambda module: setattr(module.Elsewhere, "training", lambda *_: {}))


def tune_restored() -> None:
    """Ray Tune goes on from its own newest state, where there is some."""

    def change(module: Any) -> None:
        real = module.tune.Tuner

        def tuner(trainable: Any, *, run_config: Any, **more: Any) -> Any:
            folders = sorted(file.parent for file in Path(run_config.storage_path).glob("*/tuner.pkl"))
            return real.restore(str(folders[-1]), trainable) if folders else real(trainable, run_config=run_config, **more)

        module.tune = With(module.tune, Tuner=tuner)

    when_imported("service.cluster.ray_cluster", change)


def unshielded() -> None:
    """Ray starts with whatever handlers of signals it likes."""
    when_imported(
        "service.cluster.ray_process",
        lambda module: setattr(module, "signals", With(module.signals, shielded=contextlib.nullcontext)),
    )


def unwatched() -> None:
    """Nobody looks whether an embedded Ray is alive."""
    when_imported("service.cluster.ray_cluster", lambda module: setattr(module.Cluster, "watched", lambda *_: contextlib.nullcontext()))


def no_adoption() -> None:
    """What Ray's processes leave behind goes to init."""
    when_imported("service.cluster.ray_process", lambda module: setattr(module, "embedded", With(module.embedded, adopt=lambda: None)))


def no_cut() -> None:
    """A spool is gone on with as it is, without cutting off what is computed again, nor a torn line."""

    def change(module: Any) -> None:
        module.os = With(os, ftruncate=lambda *_: None)

    when_imported("service.spool.writer", change)


def ship_uncommitted() -> None:
    """The shipper takes all that a spool holds."""
    when_imported("service.tracking.shipping.shipper", lambda module: setattr(module, "spool", With(module.spool, committed=list)))


def no_source_time() -> None:
    """Points carry the time at which they are shipped."""

    def change(module: Any) -> None:
        points = module.spool.points
        module.spool = With(module.spool, points=lambda lines: [(n, v, time.time_ns() // 1_000_000, u) for n, v, _, u in points(lines)])

    when_imported("service.tracking.shipping.shipper", change)


def no_search() -> None:
    """A run is made without looking whether there is one."""

    def change(module: Any) -> None:
        def blind(tracking: Any, tag: str, value: str, name: str, tags: Any, known: str = "") -> str:
            if value not in tracking._runs:
                run = tracking._connected().create_run(tracking._experiment, run_name=name, tags={tag: value, **tags})
                tracking._runs[value] = run.info.run_id
            return tracking._runs[value]

        module.Tracking._find_or_create = blind

    when_imported("service.tracking.runs", change)


def no_cursor_reset() -> None:
    """Another MLflow is taken for the one that the note of how far it is speaks of."""

    def change(module: Any) -> None:
        def trusting(shipper: Any, key: str) -> Any:
            cursor = module.cursors.read(shipper._storage, key)
            return module.Cursor(shipper._mlflow, shipper.tracking.trial_run(shipper._ledger.entries[key].trial, ""), cursor.offset, "")

        module.Shipper._stored = trusting

    when_imported("service.tracking.shipping.shipper", change)


def cursor_believed() -> None:
    """What the cursors claim is not compared with what MLflow holds."""

    def change(module: Any) -> None:
        compared = module.comparison.Compared
        module.comparison = With(module.comparison, compare=lambda tracking, sweep, ledger, storage, known, **_: compared(dict(known)))

    when_imported("service.tracking.shipping.shipper", change)


def every_run_is_mine() -> None:
    """No run is another storage's."""
    when_imported("service.tracking.reading", lambda module: setattr(module.Reading, "mine", lambda *_: True))


def not_mended() -> None:
    """A moved storage's database of MLflow names the folder where the storage was."""
    when_imported("service.tracking.sql.relocation", lambda module: setattr(module, "mend", lambda *_: None))


def no_lease_token() -> None:
    """The number of an epoch alone tells whose lease it is, and whoever writes makes a folder that is not there."""
    when_imported("service.ledger.lease", lambda module: setattr(module, "check_token", lambda *_: None))
    when_imported("service.ledger.journal", lambda module: setattr(module.FileJournal, "check_there", lambda *_: None))
    when_imported("trainables.storage.files", lambda module: setattr(module, "make", partial(_made, module.make)))


def _made(make: Any, folder: Path, below: Path | None = None) -> None:
    make(folder)


def mlflow_speaks() -> None:
    """MLflow prints the address of each run that ends."""

    def change(module: Any) -> None:
        module.MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT.get = lambda: False

    when_imported("mlflow.environment_variables", change)


def no_patience() -> None:
    """A call to S3 is tried once."""
    when_imported("service.storage.s3", _impatient)


def _impatient(module: Any) -> None:
    call = module.Bucket._call
    module.Bucket._call = lambda bucket, what, key, patience: call(bucket, what, key, 0.0)


def no_calls() -> None:
    """A driver does not call a silent worker."""
    when_imported("service.cluster.workers", lambda module: setattr(module.Calls, "call", lambda *_: None))


def no_fences() -> None:
    """A worker commits to S3 whatever another one has done meanwhile."""

    def change(module: Any) -> None:
        def replace(bucket: Any, key: str, content: bytes, etag: str) -> str:
            bucket.put(key, content)
            return str(bucket.get(key)[1])

        module.Bucket.replace = replace

    when_imported("service.storage.s3", change)
    when_imported("service.ledger.claims", lambda module: setattr(module, "check_epoch", lambda *_: None))
