"""`winnow export`: a finished trial's policy as a folder that works without Winnow.

policy.safetensors or policy.onnx   the network with its scaling of observations and actions
winnow_policy.py                    loads it (not for ONNX)
normalizer.json  masks.json         the scaling as numbers; statistics of the masks
lineage.json                        the trial, the dataset and its hash, seeds, code, scores, the files' hashes
README.md                           three lines of code that use it
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from service.delivery import standalone
from service.delivery.export_readme import readme
from service.delivery.finished import FinishedTrial, find, means
from service.terminal.waiting import waiting
from trainables import project
from trainables.errors import UserError
from trainables.policy.onnx_export import to_onnx
from trainables.policy.policy import SCALINGS, Policy, load_policy, save_policy
from trainables.storage.files import write

LINEAGE, LOADER = "lineage.json", "winnow_policy.py"
IGNORED = ("__pycache__",)  # created by using an export


def export(wanted: str, to: Path, storage: Path, *, format: str = "compact", sweep: str | None = None) -> Path:
    """Write the folder `to`, or the one that it links to, atomically, replacing an older export; returns it.

    Raises UserError for a trial that is unknown or not done, a policy that is more than one plain network, and a folder that holds
    anything but an export, or in which this command was given.
    """
    to = project.expanded(to).absolute()
    to = to.resolve() if to.is_symlink() else to
    _check(to)
    with find(wanted, storage, sweep) as finished, NewFolder(to) as folder:
        policy = load_policy(finished.folder)
        with waiting(f"writing {to}"):
            WRITERS[format](policy, folder)
            shutil.copyfile(finished.folder / "masks.json", folder / "masks.json")
            write(folder / "normalizer.json", json.dumps({name: policy.scaling[name].tolist() for name in SCALINGS}, indent=1).encode())
            described = lineage(finished)
            write(folder / "README.md", readme(described, policy, format).encode())
            files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}
            write(folder / LINEAGE, json.dumps(described | {"export": {"format": format, "files": files}}, indent=1).encode())
    return to


def lineage(finished: FinishedTrial) -> dict[str, Any]:
    """The provenance of a policy, and its scores."""
    from trainables.evaluation.evaluation import evaluation_seeds  # imports torch

    trial, origin, about = finished.trial, finished.origin, finished.about
    calibration = {"rows": trial.calibration_batches * trial.calibration_size, "seed": trial.seed}
    return {
        "name": trial.name,
        "key": trial.key,
        "mlflow_run": finished.run_id,
        "trial": trial.to_json() | {"hyper": trial.hyper_values()},
        "dataset": {"id": trial.dataset, "sha256": about["dataset_hash"], "mean_score": origin.get("dataset_score")},
        "environment": about["environment"],
        "reference": origin.get("reference"),
        "calibration": calibration | {"batches": trial.calibration_batches, "batch_size": trial.calibration_size},
        "seeds": {"trial": trial.seed, "evaluation": evaluation_seeds(trial, trial.episodes)},
        "code": {"revision": origin.get("revision"), "execution": about["execution"]},
        "scores": {"last": means(finished.last), "final": means(finished.final), "evaluations": list(finished.evaluations)},
    }


def compact_file(policy: Policy, path: Path) -> None:
    """Write the policy without dead units, with kept weights only or all weights, whichever is smaller."""
    dense = path.with_suffix(".dense")
    save_policy(policy, path, "csr")
    save_policy(policy, dense, "compact")
    if dense.stat().st_size < path.stat().st_size:
        dense.rename(path)
    dense.unlink(missing_ok=True)


def _compact(policy: Policy, folder: Path) -> None:
    compact_file(policy, folder / "policy.safetensors")
    _copy(folder, "numpy_policy")


def _onnx(policy: Policy, folder: Path) -> None:
    to_onnx(policy.to("compact"), folder / "policy.onnx")


def _torch(policy: Policy, folder: Path) -> None:
    """The state dict of standalone/torch_policy.py's module: full layers, removed weights as zeros."""
    from safetensors.numpy import save

    state = {name: policy.scaling[name] for name in SCALINGS}
    for index, (weight, bias) in enumerate(policy.layers):
        state |= {f"network.{2 * index}.weight": weight, f"network.{2 * index}.bias": bias}
    network = {"network": policy.network} if policy.network != "mlp" else {}
    write(folder / "policy.safetensors", save(state, metadata={"output": policy.output, **network}))
    _copy(folder, "torch_policy")


WRITERS: Mapping[str, Callable[[Policy, Path], None]] = {"compact": _compact, "onnx": _onnx, "torch": _torch}


def _copy(folder: Path, loader: str) -> None:
    write(folder / LOADER, standalone.source(loader))


def _check(to: Path) -> None:
    """Raise UserError if `to` holds anything that no export wrote."""
    if not to.exists():
        return
    if not to.is_dir():
        raise UserError(f"{str(to)!r} is a file; give a folder")
    if to.resolve() in (here := Path.cwd(), *here.parents):
        raise UserError(f"{str(to)!r} is replaced as a whole, so not while you are in it; give a folder in it, or go to another")
    present = {path.name for path in to.iterdir()} - set(IGNORED)
    try:
        exported = {LINEAGE, *json.loads((to / LINEAGE).read_bytes())["export"]["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        exported = set()
    if present - exported:
        raise UserError(f"{str(to)!r} holds {', '.join(sorted(present - exported)[:3])}, which no export wrote; give another folder")


class NewFolder:
    """A temporary folder that replaces `to` when the `with` succeeds and is deleted when it fails."""

    def __init__(self, to: Path) -> None:
        self.to = to

    def __enter__(self) -> Path:
        try:
            self.to.parent.mkdir(parents=True, exist_ok=True)
            self.folder = Path(tempfile.mkdtemp(prefix=f".{self.to.name}.", suffix=".tmp", dir=self.to.parent))
        except OSError as error:
            raise UserError(f"{str(self.to)!r} cannot be written ({error.strerror})") from None
        self.folder.chmod(0o777 & ~_umask())
        return self.folder

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._replace()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _replace(self) -> None:
        _check(self.to)  # it may have changed meanwhile
        old = self.folder.with_suffix(".old")
        try:
            if self.to.exists():
                self.to.rename(old)
            os.rename(self.folder, self.to)
        except OSError as error:
            if old.exists():
                old.rename(self.to)
            if error.errno in (errno.EBUSY, errno.EXDEV):
                raise UserError(f"{str(self.to)!r} is a mount point, which cannot be replaced; give a folder in it") from None
            raise UserError(f"{str(self.to)!r} cannot be written ({error.strerror or errno.errorcode.get(error.errno or 0)})") from None
        shutil.rmtree(old, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
