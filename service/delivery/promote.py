"""`winnow promote`: a finished trial's policy as a version of a model in MLflow's registry.

The model is an MLflow pyfunc of two files of standalone/ and the compact policy; it needs numpy and safetensors, but neither torch nor
Winnow.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import re
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from service.delivery import standalone
from service.delivery.export import compact_file
from service.delivery.finished import FinishedTrial, find, means
from service.storage import paths
from service.terminal import markdown
from service.terminal.redaction import redact
from service.terminal.waiting import waiting
from service.tracking.connection import TrackingError, mlflow_errors, refused
from service.tracking.runs import Tracking
from trainables.errors import UserError
from trainables.policy.policy import Policy, load_policy
from trainables.trial import Trial

LOGGED = "policy"  # the name of the run's logged model
NEEDS = ("mlflow", "numpy", "safetensors")
ALIAS = "newest"  # of the version that was promoted last, unless another one is asked for


@dataclass(frozen=True)
class Version:
    """A version of a registered model; `created` is False if it existed before. `was`: the other version that `alias` named before."""

    model: str
    number: str
    run_id: str
    created: bool
    alias: str = ""
    was: str = ""

    def describe(self, uri: str) -> str:
        what = "registered as" if self.created else "is already"
        return (
            f"run {self.run_id} {what} version {self.number} of model {self.model!r}\n"
            f"alias {self.alias!r} names version {self.number}{f', no longer version {self.was}' if self.was else ''}\n"
            f"load it where MLFLOW_TRACKING_URI is {redact(uri)}: "
            f"mlflow.pyfunc.load_model('models:/{self.model}/{self.number}'), or 'models:/{self.model}@{self.alias}'; "
            "it takes float64 observations [B, O]"
        )


def promote(wanted: str, storage: Path, *, name: str | None = None, alias: str = ALIAS, sweep: str | None = None) -> tuple[Version, str]:
    """Register the trial's policy as a version of model `name` (default: algorithm and dataset, e.g. td3_bc-halfcheetah-medium), which
    `alias` then names. Idempotent for a run and a name. Returns the version and MLflow's address.

    Raises UserError for a trial that is unknown, not done or not in MLflow, a policy that is more than one plain network, a name or alias
    that MLflow refuses, and if MLflow does not answer.
    """
    if not re.fullmatch(r"[\w-]{1,255}", alias) or alias == "latest" or re.fullmatch(r"[vV]\d+", alias):
        raise UserError(f"alias {alias!r} must be of letters, digits, _ and -, and neither 'latest' nor a version such as v1")
    with find(wanted, storage, sweep) as finished:
        policy = load_policy(finished.folder)
        model = name or default_name(finished.trial)
        registry = Registry(storage)
        with waiting(f"registering with MLflow as {model}"):
            try:
                return registry.register(model, alias, finished, policy), registry.uri
            except TrackingError as error:
                raise UserError(f"MLflow {'refuses this' if refused(error) else 'did not take the model'} ({error.why})") from error


def default_name(trial: Trial) -> str:
    """`td3_bc-halfcheetah-medium`: the versions of a model are trials on one task."""
    return "-".join(trial.name.split("/")[:2]).replace(":", "-")  # MLflow refuses `:`


class Registry(Tracking):
    """Tracking, and MLflow's model registry."""

    def register(self, model: str, alias: str, finished: FinishedTrial, policy: Policy) -> Version:
        self._connected()
        if self._copy is not None:
            raise UserError(f"{paths.mlflow_db(self._storage)} may only be read here, so that nothing can be promoted in it")
        version = self._version(model, finished, policy)
        known = self._connected().get_registered_model(model).aliases.get(alias, "")
        was = "" if str(known) == version.number else str(known)
        if str(known) != version.number:
            self._connected().set_registered_model_alias(model, alias, version.number)
        return replace(version, alias=alias, was=was)

    def _version(self, model: str, finished: FinishedTrial, policy: Policy) -> Version:
        """The version that is made of the run, created once."""
        if not re.fullmatch(r"[^/:.%\"']+", model):
            raise UserError(f"model name {model!r} must not contain / : . % or quotes")
        run = self._run(finished)
        client = self._connected()
        for version in client.search_model_versions(f"run_id = '{run.info.run_id}'"):
            if version.name == model:
                return Version(model, str(version.version), run.info.run_id, False)
        logged = self._logged(run, finished, policy)
        if model not in {known.name for known in client.search_registered_models(f"name = '{model}'")}:
            trial = finished.trial
            about = markdown.plain(f"Policies trained by {trial.algorithm} on {trial.dataset}.")
            client.create_registered_model(model, description=about)
        with self._address():
            version = client.create_model_version(
                model, f"models:/{logged.model_id}", run_id=run.info.run_id, tags=tags_of(finished),
                description=markdown.plain(finished.trial.name), model_id=logged.model_id,
            )  # fmt: skip
        return Version(model, str(version.version), run.info.run_id, True)

    @contextlib.contextmanager
    def _address(self) -> Iterator[None]:
        """Set MLFLOW_TRACKING_URI: a client resolves `models:/` by the process's MLflow, not by its own."""
        before = os.environ.get("MLFLOW_TRACKING_URI")
        os.environ["MLFLOW_TRACKING_URI"] = self.uri
        try:
            yield
        finally:
            del os.environ["MLFLOW_TRACKING_URI"]
            if before is not None:
                os.environ["MLFLOW_TRACKING_URI"] = before

    def _run(self, finished: FinishedTrial) -> Any:
        key = finished.trial.key
        runs = self._search({"winnow.trial_key": key})
        if not runs:
            raise UserError(f"trial {key} ({finished.trial.name}) has no run in {redact(self.uri)}; `winnow sync SWEEP` ships it")
        return next((run for run in runs if run.info.run_id == finished.run_id), runs[0])

    def _logged(self, run: Any, finished: FinishedTrial, policy: Policy) -> Any:
        """The run's logged model, created once."""
        from mlflow.entities import LoggedModelOutput, LoggedModelStatus

        client, id = self._connected(), run.info.run_id
        known = client.search_logged_models([run.info.experiment_id], f"source_run_id = '{id}' AND name = '{LOGGED}'")
        for model in known:
            if model.status == LoggedModelStatus.READY:
                return model
            client.delete_logged_model(model.model_id)  # left half-written by a killed process
        logged = client.create_logged_model(run.info.experiment_id, LOGGED, id, tags=tags_of(finished), params=dict(run.data.params))
        with tempfile.TemporaryDirectory() as folder, mlflow_errors():
            save_model(policy, Path(folder), logged.model_id, id)
            client.log_model_artifacts(logged.model_id, str(Path(folder) / "model"))
        client.log_outputs(id, [LoggedModelOutput(logged.model_id, step=finished.trial.updates)])
        return client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)


def save_model(policy: Policy, folder: Path, model_id: str, run_id: str) -> None:
    """Write MLflow's model to `folder`/model, with signature, input example and pinned requirements."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow.pyfunc
        from mlflow.models import Model, ModelSignature
        from mlflow.types import Schema, TensorSpec

    compact_file(policy, folder / "policy.safetensors")
    code = {"winnow_model.py": "mlflow_model", "winnow_policy.py": "numpy_policy"}
    for name, source in code.items():
        (folder / name).write_bytes(standalone.source(source))
    ends = (policy.sizes[0], policy.sizes[-1])
    # Observations as Gymnasium and JSON give them: MLflow refuses all but the one type that is declared.
    types = (np.dtype(np.float64), np.dtype(np.float32))
    inputs, outputs = (Schema([TensorSpec(type, (-1, size))]) for type, size in zip(types, ends, strict=True))
    mlflow.pyfunc.save_model(
        folder / "model",
        loader_module="winnow_model",
        data_path=str(folder / "policy.safetensors"),
        code_paths=[str(folder / name) for name in code],
        mlflow_model=Model(model_id=model_id, model_uuid=model_id, run_id=run_id),
        signature=ModelSignature(inputs, outputs),
        input_example=example(policy).astype(np.float64),
        pip_requirements=[f"{name}=={importlib.metadata.version(name)}" for name in NEEDS],
    )


def example(policy: Policy) -> Any:
    """One observation [1, O]: the dataset's mean if the policy normalizes, else zeros."""
    return -(policy.scaling["observation_shift"] / policy.scaling["observation_scale"])[None] + np.float32(0)


def tags_of(finished: FinishedTrial) -> dict[str, str]:
    trial = finished.trial
    tags = {"trial_key": trial.key, "trial": trial.name, "dataset": trial.dataset, "algorithm": trial.algorithm, "pruner": trial.pruner}
    tags |= {"sparsity": f"{trial.sparsity:g}", "seed": str(trial.seed)} | {
        name: f"{value:.2f}" for name, value in means(finished.last).items()
    }
    return {f"winnow.{name}": value for name, value in tags.items()}
