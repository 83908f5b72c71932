"""`service promote`: a finished trial's policy as a version of a model in MLflow's registry. Beside tracking.py, what knows MLflow.

The model is MLflow's own kind for Python (pyfunc), made of two files of service/standalone and the compact policy: it loads with numpy
and safetensors, without torch and without Winnow.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import re
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from service.delivery import standalone
from service.delivery.export import compact_file
from service.delivery.finished import Finished, find, means
from service.terminal.waiting import waiting
from service.tracking.connection import TrackingError, refused, told, told_by_mlflow
from service.tracking.runs import Tracking
from trainables.errors import UserError
from trainables.policy.policy import Policy, load_policy
from trainables.trial import Trial

LOGGED = "policy"  # the name of the run's logged model
NEEDS = ("mlflow", "numpy", "safetensors")


@dataclass(frozen=True)
class Version:
    """A version of a registered model; `made` is False where it was there before."""

    model: str
    number: str
    run_id: str
    made: bool

    def describe(self, uri: str) -> str:
        what = "registered as" if self.made else "is already"
        return (
            f"run {self.run_id} {what} version {self.number} of model {self.model!r}\n"
            f"load it where MLFLOW_TRACKING_URI is {told(UserError(uri))}: mlflow.pyfunc.load_model('models:/{self.model}/{self.number}')"
        )


def promote(wanted: str, storage: Path, *, name: str | None = None, sweep: str | None = None) -> tuple[Version, str]:
    """Register the trial's policy as a version of model `name` (default: algorithm and data, e.g. td3_bc-halfcheetah-medium), once for each
    run and name; the version and MLflow's address.

    Raises UserError for a trial that is unknown, not done or not in MLflow, a policy that is more than one plain network, a name that
    MLflow refuses, and where MLflow does not answer.
    """
    with find(wanted, storage, sweep) as found:
        policy = load_policy(found.folder)
        model = name or default_name(found.trial)
        registry = Registry(storage)
        with waiting(f"registering with MLflow as {model}"):
            try:
                return registry.register(model, found, policy), registry.uri
            except TrackingError as error:
                raise UserError(f"MLflow {'refuses this' if refused(error) else 'did not take the model'} ({error.why})") from error


def default_name(trial: Trial) -> str:
    """`td3_bc-halfcheetah-medium`: versions are the trials that solve one task."""
    return "-".join(trial.name.split("/")[:2])


class Registry(Tracking):
    """Tracking, and MLflow's models."""

    def register(self, model: str, found: Finished, policy: Policy) -> Version:
        if not re.fullmatch(r"[^/:.%\"']+", model):
            raise UserError(f"model name {model!r} may hold none of / : . % and quotes")
        run = self._run(found)
        client = self._connected()
        for version in client.search_model_versions(f"run_id = '{run.info.run_id}'"):
            if version.name == model:
                return Version(model, str(version.version), run.info.run_id, False)
        logged = self._logged(run, found, policy)
        if model not in {known.name for known in client.search_registered_models(f"name = '{model}'")}:
            client.create_registered_model(model, description=f"Policies trained by {found.trial.algorithm} on {found.trial.dataset}.")
        with self._address():
            version = client.create_model_version(
                model, f"models:/{logged.model_id}", run_id=run.info.run_id, tags=tags_of(found), description=found.trial.name,
                model_id=logged.model_id,
            )  # fmt: skip
        return Version(model, str(version.version), run.info.run_id, True)

    @contextlib.contextmanager
    def _address(self) -> Iterator[None]:
        """A client resolves `models:/` by the process's MLflow, not by its own."""
        before = os.environ.get("MLFLOW_TRACKING_URI")
        os.environ["MLFLOW_TRACKING_URI"] = self.uri
        try:
            yield
        finally:
            del os.environ["MLFLOW_TRACKING_URI"]
            if before is not None:
                os.environ["MLFLOW_TRACKING_URI"] = before

    def _run(self, found: Finished) -> Any:
        key = found.trial.key
        runs = self._search(f"tags.`winnow.trial_key` = '{key}'")
        if not runs:
            raise UserError(
                f"trial {key} ({found.trial.name}) has no run in {told(UserError(self.uri))}; `python -m service sync SWEEP` ships it"
            )
        return runs[0]

    def _logged(self, run: Any, found: Finished, policy: Policy) -> Any:
        """The run's logged model, made once."""
        from mlflow.entities import LoggedModelOutput, LoggedModelStatus

        client, id = self._connected(), run.info.run_id
        known = client.search_logged_models([run.info.experiment_id], f"source_run_id = '{id}' AND name = '{LOGGED}'")
        for model in known:
            if model.status == LoggedModelStatus.READY:
                return model
            client.delete_logged_model(model.model_id)  # somebody was killed on the way
        logged = client.create_logged_model(run.info.experiment_id, LOGGED, id, tags=tags_of(found), params=dict(run.data.params))
        with tempfile.TemporaryDirectory() as folder, told_by_mlflow():
            save_model(policy, Path(folder), logged.model_id, id)
            client.log_model_artifacts(logged.model_id, str(Path(folder) / "model"))
        client.log_outputs(id, [LoggedModelOutput(logged.model_id, step=found.trial.updates)])
        return client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)


def save_model(policy: Policy, folder: Path, model_id: str, run_id: str) -> None:
    """MLflow's model in `folder`/model, with signature, input example and exact requirements."""
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
    inputs, outputs = (Schema([TensorSpec(np.dtype(np.float32), (-1, size))]) for size in ends)
    mlflow.pyfunc.save_model(
        folder / "model",
        loader_module="winnow_model",
        data_path=str(folder / "policy.safetensors"),
        code_paths=[str(folder / name) for name in code],
        mlflow_model=Model(model_id=model_id, model_uuid=model_id, run_id=run_id),
        signature=ModelSignature(inputs, outputs),
        input_example=example(policy),
        pip_requirements=[f"{name}=={importlib.metadata.version(name)}" for name in NEEDS],
    )


def example(policy: Policy) -> Any:
    """One observation [1, O]: the data's mean where the policy normalizes, else zeros."""
    return -(policy.scaling["observation_shift"] / policy.scaling["observation_scale"])[None] + np.float32(0)


def tags_of(found: Finished) -> dict[str, str]:
    trial = found.trial
    tags = {"trial_key": trial.key, "trial": trial.name, "dataset": trial.dataset, "algorithm": trial.algorithm, "pruner": trial.pruner}
    tags |= {"sparsity": f"{trial.sparsity:g}", "seed": str(trial.seed)} | {
        name: f"{value:.2f}" for name, value in means(found.last).items()
    }
    return {f"winnow.{name}": value for name, value in tags.items()}
