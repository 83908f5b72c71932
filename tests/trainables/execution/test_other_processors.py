"""The kernels on an ARM processor, against those of this machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.arm import array, compiled, emulated, told
from tests.trainables.execution.test_sparse import batch, network
from trainables.execution import sparse
from trainables.native import build
from trainables.tensors import native_ops
from trainables.tensors.mlp import MLP
from trainables.tensors.streams import key_of

BATCH = 100  # a full tile and a part of one
SPECS = {
    "critic": MLP((9, 40, 40, 1), copies=2),
    "actor": MLP((9, 40, 40, 3), output="tanh"),
    "normalized": MLP((9, 40, 40, 1), norm="after"),
    "normalized before": MLP((9, 40, 40, 1), norm="before"),
}
MAIN = r"""
#include <stdio.h>
#include "kernels.c"
void winnow_draw(int, const int64_t *, int64_t, int, int64_t, int64_t, int64_t *, float *);

static void show(const float *numbers, int count) { for (int i = 0; i < count; i++) printf("%a\n", numbers[i]); }

int main(void) {
    static float out[@out], tiles[@tiles], gradient[@values], dinput[@input], scratch[@scratch], drawn[50];
    static int64_t whole[50];
    const Network net = {@network, column, trow, tvalue, offset, layers};
    const Part input = {x, @member, @row, @row}, wanted = {dinput, @member, @row, @row};
    winnow_forward(&net, values, 1, &input, @batch, -1, 1, tiles, out, scratch);
    winnow_backward(&net, values, 1, &wanted, @batch, -1, tiles, dout, gradient, scratch);
    winnow_draw(2, keys, 7, 1, 25, 0, whole, drawn);
    show(out, @out), show(gradient, @values), show(dinput, @input), show(drawn, 50);
    return 0;
}
"""


def program(net: sparse.Network, x: Tensor, dout: Tensor, keys: Tensor) -> str:
    """A C program that makes the calls of the kernels and prints their results."""
    (column, trow, tvalue), offset, _, members = net.kept_alive
    spec, flat = net.spec, [layer for member in members for layer in member]
    lines = ["#include <stdint.h>"]
    for name, numbers in {"column": column, "trow": trow, "tvalue": tvalue, "offset": offset}.items():
        lines.append(array("int32_t", name, np.ravel(numbers)))
    for number, layer in enumerate(flat):
        lines += [array("int32_t", f"{name}{number}", layer[name]) for name in ("start", "visit", "tstart")]
    lines += [array("float", name, t.flatten().tolist()) for name, t in (("values", net.parameters), ("x", x), ("dout", dout))]
    lines.append(array("int64_t", "keys", keys.flatten().tolist()))
    rows = (f"{{{len(layer['visit'])}, {len(layer['start']) - 1}, start{n}, visit{n}, tstart{n}}}" for n, layer in enumerate(flat))
    main, included = MAIN.split('#include "kernels.c"')
    fields = [getattr(net.network, name) for name, _ in build.NetworkStruct._fields_[:13]]
    fields[8] = f"{net.network.norm!r}f"
    sizes = {
        "@out": dout.numel(), "@tiles": net.members * 2 * net.tile, "@values": net.parameters.numel(), "@input": x.numel(),
        "@scratch": net.scratch, "@network": ", ".join(map(str, fields)), "@member": BATCH * spec.sizes[0], "@row": spec.sizes[0],
        "@batch": BATCH,
    }  # fmt: skip
    for name, size in sizes.items():
        included = included.replace(name, str(size))
    layers = f"static const Layer layers[] = {{{', '.join(rows)}}};"
    return "\n".join([main, '#include "kernels.c"', *lines, layers, included])


def here(net: sparse.Network, x: Tensor, dout: Tensor, keys: Tensor) -> list[float]:
    x = x.clone().requires_grad_()
    out = net(x)
    core, dx = torch.autograd.grad(out, [net.core, x], dout)
    return torch.cat([t.detach().flatten() for t in (out, core, dx, native_ops.uniform(keys, 7, 1, 25))]).tolist()


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What is compiled of the sources other than kernels.c."""
    folder = tmp_path_factory.mktemp("arm")
    return [compiled(file, folder / f"{file.stem}.o") for file in build.SOURCES if file.name != "kernels.c"]


@emulated
@pytest.mark.parametrize("name", SPECS)
def test_the_kernels_on_arm_are_those_of_this_machine(name: str, tmp_path: Path, others: list[str]) -> None:
    spec = SPECS[name]
    flat, mask = network(spec, 2, 0.3)
    net, (x,) = sparse.Network(spec, flat, mask), batch(spec, 2, BATCH, 1)
    shape = (2, BATCH, spec.sizes[-1]) if spec.copies == 1 else (2, spec.copies, BATCH, spec.sizes[-1])
    dout = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    keys = torch.tensor([key_of(seed, "noise") for seed in (0, 1)])
    there, mine = torch.tensor(told(program(net, x, dout, keys), tmp_path, others)), torch.tensor(here(net, x, dout, keys))
    assert len(there) == len(mine)
    torch.testing.assert_close(there, mine, rtol=1e-5, atol=2e-6 * mine.abs().max().item())
    assert torch.equal(there[-50:], mine[-50:])  # draws have the same bits everywhere
