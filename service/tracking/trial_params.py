"""A trial as the params and tags of its run, and back."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from trainables import plugins
from trainables.errors import UserError
from trainables.trial import Trial


def params_of(trial: Trial) -> dict[str, str]:
    """All settings of a trial: its fields, every hyperparameter and every setting of its pruner, defaults included."""
    plain = {name: str(value) for name, value in trial.to_json().items() if name not in ("hyper", "pruning")}
    plain |= {f"hyper.{name}": str(value) for name, value in trial.hyper_values().items()}
    return plain | {f"pruning.{name}": str(value) for name, value in trial.pruning_values().items()}


def filters_of(trial: Trial) -> dict[str, str]:
    """Tags to filter and group runs by. Runs of one `winnow.group` differ in their seed alone."""
    tags = {name: str(getattr(trial, name)) for name in ("dataset", "algorithm", "pruner", "sparsity", "seed", "cell")}
    parts = trial.dataset.split("/")
    tags["environment"] = parts[-2] if len(parts) > 1 else trial.dataset
    given = [f"{trial.updates} updates", *(f"{name} {value}" for name, value in trial.hyper.items())]
    tags["group"] = ", ".join([trial.name.removesuffix(f"/s{trial.seed}"), *given])
    return {f"winnow.{name}": value for name, value in tags.items()}


def source_of(by: Mapping[str, str]) -> dict[str, str]:
    """MLflow's own tags for who has asked for a run, and by what."""
    names = {"user": "mlflow.user", "name": "mlflow.source.name", "type": "mlflow.source.type", "commit": "mlflow.source.git.commit"}
    return {tag: by[name] for name, tag in names.items() if name in by}


def trial_of(params: Mapping[str, str]) -> Trial:
    """The trial with a run's params. Raises UserError if this code cannot construct it."""
    texts = {name: text for name, text in params.items() if not name.startswith(("hyper.", "pruning."))}
    kinds = {f.name: f.type for f in fields(Trial)}
    try:
        plain: dict[str, Any] = {name: text if kinds[name] == "str" else ast.literal_eval(text) for name, text in texts.items()}
        hyper = {name.removeprefix("hyper."): text for name, text in params.items() if name.startswith("hyper.")}
        defaults = plugins.hyper_defaults(plain["algorithm"])
        values = {name: text if isinstance(defaults[name], str) else ast.literal_eval(text) for name, text in hyper.items()}
        pruning = {name.removeprefix("pruning."): ast.literal_eval(t) for name, t in params.items() if name.startswith("pruning.")}
        return Trial(**plain, hyper=values, pruning=pruning)
    except (KeyError, ValueError, SyntaxError, TypeError) as error:
        raise UserError(f"params that do not make a trial: {error}") from None
