"""The model that MLflow's registry serves: observations [B, O] in, actions [B, A] out, without torch."""

from __future__ import annotations

from typing import Any

import numpy as np
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel
from winnow_policy import load  # numpy_policy.py under the name that it has beside this file


class PolicyModel(PythonModel):  # type: ignore[misc]
    def load_context(self, context: Any) -> None:
        self.act = load(context.artifacts["policy"])

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
        return self.act(np.asarray(model_input, np.float32))


set_model(PolicyModel())
