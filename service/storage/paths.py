"""Every path under a storage root; no other file joins path names. Imports no torch.

storage/trials/<key>/    trial.json  spool.jsonl  shipped.json  checkpoints/  masks.safetensors  masks.json  policy.safetensors  policy.json
storage/trials/<key>/attempt   which worker may write the trial's files
storage/sweeps/<name>/   manifest.jsonl  lock  lease/  stop  stopped/  silent.json  share.json
                           results.txt  scores.png  study.log
storage/reports/<name>/   page.html  table.txt  table.tex  cells.csv  trials.csv  curves.csv  (and .parquet)  figures/
storage/forgotten/       what is being removed: a killed `forget` may leave something, which the next one removes
storage/identity         a random number that tells this storage from every other one
storage/mlflow.db  storage/artifacts/  storage/ray/

A storage on S3 uses the same names in a folder of this host; the bucket holds what hosts share (docs/decisions/009-object-storage.md):
identity  heads/<key>.json  trials/<key>/...  sweeps/<name>/manifest/<number>.jsonl  sweeps/<name>/lease/  sweeps/<name>/stop
sweeps/<name>/stopped/<key>  sweeps/<name>/silent.json  sweeps/<name>/share.json
In this host's folder alone: attempts/
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from service.terminal.redaction import redact
from trainables import project
from trainables.errors import UserError
from trainables.storage import cache
from trainables.storage.trial_files import KEY, checked, checkpoints, masks, masks_json, policy, policy_json, trial, trials

__all__ = ["checkpoints", "masks", "masks_json", "policy", "policy_json", "trial", "trials"]  # re-exported, so that callers need one import

S3 = r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9][A-Za-z0-9._=-]*)*/?"
MARK = "s3~"  # first letters of the local folder for a bucket and prefix


def root(given: str | Path | None = None) -> Path:
    """The absolute storage root: `given`, else $WINNOW_STORAGE, else ./storage. For `s3://bucket/prefix` it is a folder on this host.

    A driver started by Ray's job server runs in a temporary copy of the code, so its default is ~/winnow-storage.
    """
    chosen = given or os.environ.get("WINNOW_STORAGE")
    if not chosen:
        chosen = "~/winnow-storage" if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ else "storage"
    if str(chosen).startswith("s3:"):
        return _folder_of(str(chosen))
    if re.match(r"[A-Za-z][\w+.-]*://", str(chosen)):
        raise UserError(f"storage {redact(str(chosen))!r} is of no kind that Winnow knows: a folder, or s3://bucket/prefix")
    return project.expanded(chosen).absolute()


def remote(path: Path) -> tuple[str, str]:
    """`("s3://bucket/prefix", "sweeps/x/stop")` for a path under the local folder of an S3 storage, else `("", "")`."""
    for depth, name in enumerate(path.parts):
        if name.startswith(MARK):
            return f"s3://{name.removeprefix(MARK).replace('~', '/')}", "/".join(path.parts[depth + 1 :])
    return "", ""


def shown(storage: Path) -> str:
    """The storage as the user named it."""
    return remote(storage)[0] or str(storage)


def forgotten(storage: Path) -> Path:
    """What is being removed, taken away from its place first."""
    return storage / "forgotten"


def identity(storage: Path) -> Path:
    """Tells this storage from every other one."""
    return storage / "identity"


def trial_json(storage: Path, key: str) -> Path:
    return trial(storage, key) / "trial.json"


def spool(storage: Path, key: str) -> Path:
    return trial(storage, key) / "spool.jsonl"


def shipped(storage: Path, key: str) -> Path:
    """How far the spool has been shipped to MLflow."""
    return trial(storage, key) / "shipped.json"


def attempt(storage: Path, key: str) -> Path:
    """Names the one worker that may write the trial's files."""
    return trial(storage, key) / "attempt"


def head(storage: Path, key: str) -> Path:
    """The list of a trial's objects on S3: the one object that a commit replaces."""
    return heads(storage) / f"{trial(storage, key).name}.json"


def heads(storage: Path) -> Path:
    return storage / "heads"


def attempts(storage: Path) -> Path:
    """A private folder for each worker of this host that trains for a storage on S3."""
    return storage / "attempts"


def sweeps(storage: Path) -> Path:
    return storage / "sweeps"


def sweep(storage: Path, name: str) -> Path:
    """The folder of a sweep; `name` is that of its file in search_spaces/, or of a part of it."""
    return sweeps(storage) / checked("sweep name", name, r"[A-Za-z0-9][A-Za-z0-9_]*(\.part[1-9][0-9]{0,5})?")


def manifest(storage: Path, name: str) -> Path:
    return sweep(storage, name) / "manifest.jsonl"


def manifest_parts(storage: Path, name: str) -> Path:
    """The journal of a sweep on S3, which cannot append: numbered objects, each created once."""
    return sweep(storage, name) / "manifest"


def lock(storage: Path, name: str) -> Path:
    return sweep(storage, name) / "lock"


def leases(storage: Path, name: str) -> Path:
    """One file per epoch; the highest one names the driver that may write."""
    return sweep(storage, name) / "lease"


def stop_request(storage: Path, name: str) -> Path:
    """Requests that the driver leave, on any host."""
    return sweep(storage, name) / "stop"


def silent(storage: Path, name: str) -> Path:
    """The trials whose workers are silent, by the driver's clock; only while there are some."""
    return sweep(storage, name) / "silent.json"


def share(storage: Path, name: str) -> Path:
    """What the sweep may use of a cluster now; only while it shares it with others."""
    return sweep(storage, name) / "share.json"


def study(storage: Path, name: str) -> Path:
    """The Optuna studies of an adaptive sweep."""
    return sweep(storage, name) / "study.log"


def trial_stop_requests(storage: Path, name: str) -> Path:
    """A file for each trial of this sweep that has to stop at its next checkpoint."""
    return sweep(storage, name) / "stopped"


def trial_stop_request(storage: Path, name: str, key: str) -> Path:
    """Requests that a trial of this sweep stop at its next checkpoint; holds the reason."""
    return trial_stop_requests(storage, name) / checked("trial key", key, KEY)


def table(storage: Path, name: str) -> Path:
    return sweep(storage, name) / "results.txt"


def figure(storage: Path, name: str) -> Path:
    return sweep(storage, name) / "scores.png"


def reports(storage: Path) -> Path:
    return storage / "reports"


def report(storage: Path, name: str) -> Path:
    """The folder of a report on one or more sweeps."""
    return reports(storage) / checked("report name", name, r"[A-Za-z0-9][A-Za-z0-9_+.]*")


def mlflow_db(storage: Path) -> Path:
    return storage / "mlflow.db"


def mlflow_artifacts(storage: Path) -> Path:
    return storage / "artifacts"


def ray_results(storage: Path) -> Path:
    """Ray Tune's bookkeeping, which is never read back."""
    return storage / "ray"


def _folder_of(url: str) -> Path:
    """This host's folder for an S3 storage; differs by endpoint, even for buckets of the same name."""
    if not re.fullmatch(S3, url) or len(url) > 200:
        raise UserError(f"storage {redact(url)!r} is not of the form s3://bucket or s3://bucket/some/prefix")
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")
    name = MARK + url.removeprefix("s3://").strip("/").replace("/", "~")
    return cache.root() / "s3" / hashlib.sha256(endpoint.encode()).hexdigest()[:8] / name
