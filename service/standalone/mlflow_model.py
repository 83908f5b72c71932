"""The model that MLflow's registry serves: observations [B, O] in, actions [B, A] out, without torch."""

import numpy as np
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel
from winnow_policy import load  # numpy_policy.py under the name that it has beside this file


class PolicyModel(PythonModel):
    def load_context(self, context):
        self.act = load(context.artifacts["policy"])

    def predict(self, context, model_input, params=None):
        return self.act(np.asarray(model_input, np.float32))


set_model(PolicyModel())
