"""A trial has the same numbers on every x86 processor with AVX2: no result is left to what chooses its code by the processor or its maker.

Torch's own operations on single elements are IEEE's, and its sums, norms and layer normalization have one code for all that have AVX2.
Its products and functions are not of that kind: BLAS and MKL's vector mathematics. In float64 they may be used for scores, whose
order then does not depend on last bits.

What came out on one processor is in tests/golden/numbers.json. After a change that is meant to change numbers:
`python -m tests.contracts.test_processors` writes it anew, and the changelog says so.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.stacks import World, small_trial
from trainables import plugins
from trainables.algorithms import bc
from trainables.native import build
from trainables.training.process import set_up_torch
from trainables.trial import TRAINING_CHOICES

GOLDEN = Path(__file__).parents[1] / "golden" / "numbers.json"
ALGORITHMS = [(algorithm, "snip", execution, "mlp") for algorithm in plugins.names("algorithms") for execution in ("dense", "sparse")]
NETWORKS = [("cql", "snip", execution, network) for network in TRAINING_CHOICES["network"][1:] for execution in ("dense", "sparse")]
PRUNERS = [("iql", pruner, "dense", "mlp") for pruner in plugins.names("pruners")]
STACKS = [*ALGORITHMS, *NETWORKS, *PRUNERS]
OTHERWISE = {
    *("mm", "bmm", "addmm", "baddbmm", "addbmm", "mv", "addmv", "dot", "vdot", "matmul", "linear", "einsum", "ger", "addr"),
    *("exp", "exp2", "expm1", "log", "log1p", "log2", "log10", "logaddexp", "logsumexp", "sin", "cos", "tan", "asin", "acos", "atan"),
    *("tanh", "sinh", "cosh", "atanh", "sigmoid", "log_sigmoid", "logit", "softplus", "mish", "silu", "gelu", "elu", "erf", "erfinv"),
    *("atan2", "hypot", "erfc", "lgamma", "logaddexp2", "glu", "hardswish", "huber_loss", "smooth_l1_loss", "cdist", "convolution"),
    *("_softmax_backward_data", "_log_softmax_backward_data"),
    *("linalg_qr", "_linalg_svd", "_linalg_eigh", "linalg_solve", "linalg_inv_ex", "linalg_cholesky_ex"),
    *("_softmax", "_log_softmax", "rsqrt", "var", "std", "var_mean", "std_mean"),
}


class Watch(TorchDispatchMode):
    """Counts what torch computes in float32 by such operations."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        name = function.name().removeprefix("aten::").partition(".")[0].removesuffix("_").removesuffix("_backward")
        if name in OTHERWISE or (name == "pow" and args[1] not in (0, 1, 2)):
            self.seen[name] += any(isinstance(t, torch.Tensor) and t.dtype == torch.float32 for t in tree_leaves(result))
        return result


def trained(algorithm: str, pruner: str, execution: str, network: str) -> World:
    """A small stack, initialized, pruned and updated a few times."""
    set_up_torch()
    sparsities = {"dense": (0.0, 0.0), "small_dense": (0.5, 0.5)}.get(pruner, (0.7, 0.5))
    trials = [small_trial(algorithm, pruner, sparsity, seed, network=network) for seed, sparsity in enumerate(sparsities)]
    world = World(trials, execution).start()
    world.train(0, 5)
    return world


def fingerprint(world: World) -> str:
    """Of all its parameters and moments."""
    return hashlib.sha256(b"".join(row.contiguous().numpy().tobytes() for _, row in sorted(world.rows().items()))).hexdigest()[:12]


@pytest.mark.parametrize("stack", STACKS, ids="-".join)
def test_nothing_is_left_to_what_differs_between_processors(stack: tuple[str, str, str, str]) -> None:
    with Watch() as watch:
        trained(*stack)
    assert not +watch.seen


@pytest.mark.skipif(build.simd() == "generic" or platform.machine() != "x86_64", reason="needs x86-64 with AVX2")
@pytest.mark.parametrize("stack", STACKS, ids="-".join)
def test_the_numbers_are_those_of_other_processors(stack: tuple[str, str, str, str]) -> None:
    assert fingerprint(trained(*stack)) == json.loads(GOLDEN.read_text())["-".join(stack)]


def test_the_check_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    own: Callable[..., dict[str, torch.Tensor]] = bc.update
    monkeypatch.setattr(bc, "update", lambda agent, batch: own(agent, batch) | {"more": (batch.rewards @ batch.rewards.T).exp().mean(1)})
    with Watch() as watch:
        trained("bc", "dense", "dense", "mlp")
    assert +watch.seen == {"exp": 5, "mm": 5}


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps({"-".join(stack): fingerprint(trained(*stack)) for stack in STACKS}, indent=1) + "\n")
