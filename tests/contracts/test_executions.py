"""Every execution computes what `dense` computes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from trainables import execution as executions
from trainables.errors import UserError
from trainables.execution import Network
from trainables.tensors.mask import to_row
from trainables.tensors.mlp import MLP

EXECUTIONS = tuple(name for name in executions.CHOICES if name != "auto")
MEMBERS = 3
SPECS = {
    "actor": MLP((5, 16, 16, 2), output="tanh", extra={"log_std": 2}),
    "critic": MLP((7, 16, 16, 1), copies=2),
    "shallow": MLP((6, 3)),
    "deep": MLP((6, 20, 9, 30, 4), copies=3, output="tanh"),
    "wide": MLP((23, 256, 256, 1), copies=2),
    "residual": MLP((7, 2)).of_width(12, 2),
    "twin residual": MLP((6, 1), copies=2, output="tanh", extra={"scale": 3}).of_width(20, 1),
    "normalized": MLP((7, 24, 11, 20, 2), copies=2, norm="after", extra={"scale": 3}),
    "normalized before": MLP((7, 24, 11, 20, 2), copies=2, norm="before", extra={"scale": 3}),
}
BATCHES = {
    "actor": 33,
    "critic": 1,
    "shallow": 8,
    "deep": 65,
    "wide": 256,
    "normalized": 70,
    "normalized before": 70,
    "residual": 70,
    "twin residual": 64,
}
each_execution = pytest.mark.parametrize("execution", EXECUTIONS)
each_case = pytest.mark.parametrize(
    ("execution", "name"), [(e, name) for e in EXECUTIONS for name, spec in SPECS.items() if not executions.cannot(e, spec)]
)


def material(name: str) -> tuple[MLP, Tensor, Tensor, Tensor]:
    """Rows, mask rows and inputs. Members of very different density, one dense; units without input and units without output occur."""
    spec, made = SPECS[name], torch.Generator().manual_seed(0)
    rows = torch.empty(MEMBERS, spec.row)
    spec.initial_bound(rows)
    rows *= 2 * torch.rand(rows.shape, generator=made) - 1
    rows[:, spec.used - sum(spec.extra.values()) : spec.used] = 0.3 if spec.extra else rows[:, spec.used - 1 : spec.used - 1]
    for part, view in spec.views(rows).items():
        if part.startswith(("gain", "shift")):
            view.uniform_(-0.5, 0.5, generator=made)
    density = torch.tensor([0.5 if name != "wide" else 0.05, 1.0, 0.3 if name != "wide" else 0.02]).reshape(-1, 1, 1, 1)
    mask = [(torch.rand(MEMBERS, spec.copies, o, i, generator=made) < density).float() for i, o in spec.layers]
    if len(mask) > 1:
        mask[0][0, :, 1] = 0  # a unit with no live input is a trainable constant
        mask[1][0, :, :, 2] = 0  # a unit that feeds nothing
    mask[-1][:, :, 0, 0] = 1
    return spec, rows, to_row(spec, mask), torch.randn(MEMBERS, BATCHES[name], spec.sizes[0], generator=made)


def build(execution: str, spec: MLP, rows: Tensor, mask: Tensor) -> Network:
    return executions.build(execution, spec, rows.clone(), mask.clone())


def gradients(network: Network, inputs: Sequence[Tensor], copy: int | None = None, passes: int = 1) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Output, canonical gradient rows and input gradients of a loss that weighs every output (and extra) differently."""
    inputs = [x.clone().requires_grad_() for x in inputs]
    outputs = [network(*(x * 0.7**n for x in inputs), copy=copy) for n in range(passes)]
    weight = torch.linspace(-1, 2, outputs[0][0].numel()).reshape(outputs[0][0].shape)
    loss = torch.stack([(weight * out + out.square()).flatten(1).mean(1) for out in outputs]).sum(0)
    for extra in network.extra.values():
        loss = loss + extra.square().sum(1)
    found = torch.autograd.grad(loss.sum(), [*network.leaves, *inputs], materialize_grads=True)
    collected = network.unpack(network.collect(found[: len(network.leaves)])).clone()
    return outputs[0].detach(), collected, list(found[len(network.leaves) :])


def assert_close(found: Tensor, wanted: Tensor, what: str) -> None:
    """To 4e-6 of the largest number of the member."""
    assert found.shape == wanted.shape, what
    for k in range(len(found)):
        error, largest = (found[k] - wanted[k]).abs().max(), wanted[k].abs().max()
        assert error <= 4e-6 * largest, f"{what} of member {k} differs by {float(error):.1e}, its largest number is {float(largest):.1e}"


@each_case
def test_outputs_and_gradients_are_denses(execution: str, name: str) -> None:
    spec, rows, mask, x = material(name)
    network, reference = build(execution, spec, rows, mask), build("dense", spec, rows, mask)
    cut = spec.sizes[0] // 3
    for inputs in ([x], [x[..., :cut], x[..., cut:]]):
        for copy in (None, *range(spec.copies)):
            for passes in (1, 2):
                found, wanted = gradients(network, inputs, copy, passes), gradients(reference, inputs, copy, passes)
                assert_close(found[0], wanted[0], "output")
                assert_close(found[1], wanted[1], "gradient")
                assert (found[1][mask == 0] == 0).all()
                for mine, theirs in zip(found[2], wanted[2], strict=True):
                    assert_close(mine, theirs, "input gradient")


@each_case
def test_frozen_gives_the_same_values_and_moves_only_the_inputs(execution: str, name: str) -> None:
    spec, rows, mask, x = material(name)
    network, reference = build(execution, spec, rows, mask), build("dense", spec, rows, mask)
    x = x.clone().requires_grad_()
    output = network.frozen(x, copy=0)
    assert torch.equal(output, network(x, copy=0))
    with torch.no_grad():
        assert torch.equal(output, network(x, copy=0))
        assert torch.equal(output, network.frozen(x, copy=0))
    # The leaf's share would be an error here, since frozen's graph does not reach it.
    unused = torch.autograd.grad(output.square().sum(), [*network.leaves, x], allow_unused=True)
    assert all(gradient is None for gradient in unused[:-1])
    assert_close(unused[-1], torch.autograd.grad(reference(x, copy=0).square().sum(), x)[0], "input gradient")


@each_case
def test_rows_survive_packing(execution: str, name: str) -> None:
    spec, rows, mask, _ = material(name)
    network = build(execution, spec, rows, mask)
    assert torch.equal(network.unpack(network.parameters), rows * mask)
    other = torch.randn(rows.shape)
    other[:, spec.used :] = 0
    packed = network.pack(other)
    assert packed.shape == network.parameters.shape
    assert torch.equal(network.unpack(packed), other * mask)


@each_case
def test_parameters_changed_in_place_are_what_counts(execution: str, name: str) -> None:
    spec, rows, mask, x = material(name)
    network, reference = build(execution, spec, rows, mask), build("dense", spec, rows * 0.5, mask)
    network.parameters.mul_(0.5)
    found, wanted = gradients(network, [x]), gradients(reference, [x])
    assert_close(found[0], wanted[0], "output")
    assert_close(found[1], wanted[1], "gradient")


@each_case
def test_a_member_computes_the_same_bits_alone(execution: str, name: str) -> None:
    spec, rows, mask, x = material(name)
    together = gradients(build(execution, spec, rows, mask), [x])
    # `fused` is for GPUs, which promise no bits: a member is as wide there as the widest of its stack.
    for k in range(MEMBERS):
        alone = gradients(build(execution, spec, rows[k : k + 1], mask[k : k + 1]), [x[k : k + 1]])
        for found, wanted in ((together[0], alone[0]), (together[1], alone[1]), (together[2][0], alone[2][0])):
            assert_close(found[k : k + 1], wanted, "what it computes alone")
            assert execution == "fused" or torch.equal(found[k], wanted[0])


@each_case
def test_a_members_nan_reaches_no_other(execution: str, name: str) -> None:
    spec, rows, mask, x = material(name)
    clean = gradients(build(execution, spec, rows, mask), [x])
    network = build(execution, spec, rows, mask)
    network.parameters[1] = torch.nan
    poisoned = x.clone()
    poisoned[1] = torch.nan
    for broken in (gradients(network, [x]), gradients(build(execution, spec, rows, mask), [poisoned])):
        assert torch.isnan(broken[0][1]).any()
        assert torch.isnan(broken[1][1]).any()
        for found, wanted in zip((broken[0], broken[1], broken[2][0]), (clean[0], clean[1], clean[2][0]), strict=True):
            assert torch.equal(found[[0, 2]], wanted[[0, 2]])


@each_execution
def test_graphs_that_live_at_the_same_time_do_not_disturb_each_other(execution: str) -> None:
    spec, rows, mask, x = material("critic")
    network, reference = build(execution, spec, rows, mask), build("dense", spec, rows, mask)
    first, second = network(x), network(2 * x)
    with torch.no_grad():
        network(3 * x)
    late = network.frozen(x)
    assert torch.equal(late, first)
    for output, scale in ((second, 2), (first, 1)):
        found = network.unpack(network.collect(torch.autograd.grad(output.square().sum(), network.leaves, retain_graph=True))).clone()
        again = network.unpack(network.collect(torch.autograd.grad(output.square().sum(), network.leaves))).clone()
        wanted = reference.unpack(reference.collect(torch.autograd.grad(reference(scale * x).square().sum(), reference.leaves)))
        assert torch.equal(found, again)
        assert_close(found, wanted, "gradient")


@each_execution
def test_inputs_need_not_lie_in_order_in_memory(execution: str) -> None:
    spec, rows, mask, x = material("critic")
    network = build(execution, spec, rows, mask)
    x = x.repeat(1, 6, 1)
    strided = x.transpose(1, 2).contiguous().transpose(1, 2)
    table = torch.cat([x, x], dim=-1)
    wanted = network(x)
    assert torch.equal(network(strided), wanted)
    assert torch.equal(network(table[..., : x.shape[-1]]), wanted)
    assert torch.equal(network(x[:, :1].expand(-1, 6, -1)), network(x[:, :1].repeat(1, 6, 1)))


@pytest.mark.parametrize("copies", [1, 5])
@pytest.mark.parametrize("hidden", [(16,), (16, 12, 20)])
@each_execution
def test_the_gradient_by_an_input_is_autograds_and_can_be_differentiated(execution: str, hidden: tuple[int, ...], copies: int) -> None:
    spec = MLP((7, *hidden, 1), copies=copies)
    made = torch.Generator().manual_seed(0)
    rows = torch.randn(MEMBERS, spec.row, generator=made) / 3
    mask = to_row(spec, [(torch.rand(MEMBERS, copies, o, i, generator=made) < 0.7).float() for i, o in spec.layers])
    x = torch.randn(MEMBERS, 33, 7, generator=made)
    network, reference = build(execution, spec, rows, mask), build("dense", spec, rows, mask)

    def differentiated(net: Network, loss: Tensor) -> Tensor:
        return net.unpack(net.collect(torch.autograd.grad(loss, net.leaves, materialize_grads=True))).clone()

    for by, part in ((0, slice(0, 4)), (1, slice(4, 7))):
        value, gradient = network.input_gradient(x[..., :4], x[..., 4:], by=by)
        assert_close(value, network(x), "value")
        assert execution == "fused" or torch.equal(value, network(x))
        total = torch.zeros(())
        for copy in range(copies):
            given = x.clone().requires_grad_()
            output = reference(given, copy=copy)
            (wanted,) = torch.autograd.grad(output.sum(), given, create_graph=True)
            torch.testing.assert_close(gradient if copies == 1 else gradient[:, copy], wanted[..., part], rtol=1e-5, atol=1e-6)
            total = total + wanted[..., part].square().sum() + output.sum()
        found, twice = differentiated(network, gradient.square().sum() + value.sum()), differentiated(reference, total)
        assert (found[mask == 0] == 0).all()
        for name, view in spec.views(twice).items():
            assert (view != 0).any()
            torch.testing.assert_close(spec.views(found)[name], view, rtol=1e-4, atol=1e-5)


def test_an_unknown_execution_is_answered_with_the_choices() -> None:
    spec, rows, mask, _ = material("shallow")
    with pytest.raises(UserError) as caught:
        executions.build("dens", spec, rows, mask)
    assert "'dens'" in str(caught.value)
    assert all(choice in str(caught.value) for choice in executions.CHOICES)


def test_auto_is_one_of_them() -> None:
    spec, rows, mask, x = material("actor")
    assert_close(build("auto", spec, rows, mask)(x), build("dense", spec, rows, mask)(x), "output")
