"""What a job of Ray or of SLURM is told of where its data is, and that no secret is among it."""

from __future__ import annotations

import os

from service.planning.provenance import revision
from service.planning.run_settings import RunSettings
from service.terminal.redaction import holds_secret, redact
from trainables.errors import UserError

# Where the job's data is. Ray shows a job's environment and its command on its page and writes both to files, so no secret may be in them.
HANDED_ON = (
    "WINNOW_STORAGE", "WINNOW_CACHE", "MINARI_DATASETS_PATH", "MLFLOW_EXPERIMENT_NAME", "AWS_REGION", "AWS_DEFAULT_REGION",
    "MLFLOW_TRACKING_URI", "WINNOW_STUDY_STORAGE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3",
)  # fmt: skip
SHOWN = "which Ray's page would show"
HOSTS = "the cluster's environment"


def refuse_secrets(settings: RunSettings, storage: str | None, shown: str = SHOWN, instead: str = HOSTS) -> None:
    """Raise UserError for a secret in what is typed: `shown` to others, and where it can be set `instead`."""
    if settings.study_storage and holds_secret(settings.study_storage):
        raise UserError(f"--study-storage holds a secret, {shown}; set WINNOW_STUDY_STORAGE in {instead}")
    if settings.notify:
        raise UserError(f"the address of --notify is its secret, {shown}; set WINNOW_NOTIFY in {instead}")
    for given in (*settings.words(), storage or ""):
        if holds_secret(given):
            raise UserError(f"{redact(given)} holds a secret, {shown}")


def environment(shown: str = SHOWN, instead: str = HOSTS) -> dict[str, str]:
    """Environment variables for the job's driver and workers: the code's revision and where data is. Raises UserError for a secret."""
    found = {name: os.environ[name] for name in HANDED_ON if os.environ.get(name)}
    for name, value in found.items():
        if holds_secret(value):
            raise UserError(f"{name} holds a secret, {shown}; set it in {instead} instead")
    return {"WINNOW_REVISION": revision(), **found}
