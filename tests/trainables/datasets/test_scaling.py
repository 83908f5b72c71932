from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.stacks import made_up_table
from trainables.datasets.minibatches import Minibatches
from trainables.datasets.scaling import Scaling
from trainables.tensors.streams import Streams


def test_the_policys_scaling_is_that_of_the_minibatches() -> None:
    table = replace(made_up_table(), std=np.array([1, 1e-4, 2, 1, 1], np.float32), action_low=np.array([0, -1], np.float32))
    scaling = Scaling(table, normalize=True)
    rows = torch.from_numpy(table.rows)
    index = Streams([0]).integers("minibatch", 64, len(table))[0]
    batch = Minibatches(table, True).draw(Streams([0]), 64)
    seen = scaling.observation(rows[index, :5])
    assert torch.equal(seen, batch.observations[0])
    wanted = (rows[index, 1].double() - float(table.mean[1])) / (1e-4 + 1e-3)
    torch.testing.assert_close(seen[:, 1].double(), wanted, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(scaling.action(batch.actions[0].numpy()), rows[index, 5:7], atol=1e-5)
    assert scaling.action(np.array([-1.0, 1.0])).tolist() == pytest.approx([0.0, 2.0], abs=1e-6)
