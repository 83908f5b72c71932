"""How MLflow loads a policy: `predict` takes observations [B, O] to actions [B, A]. Without torch, and without MLflow's own wrappers."""

from __future__ import annotations

from typing import Any

import numpy as np
from winnow_policy import load  # numpy_policy.py, under the name that it has beside this file


class Model:
    def __init__(self, path: str) -> None:
        self._act = load(path)

    def predict(self, observations: Any, params: Any = None) -> Any:
        return self._act(np.asarray(observations))


def _load_pyfunc(path: str) -> Model:
    return Model(path)
