"""The sparse execution against the dense reference in float64, and the promises that stacks and resuming rest on.

Values are small multiples of 1/16 and inputs of 1/8, so that a forward pass is exact in float32 and no ReLU falls on the other
side by rounding: what is left to differ are the gradients' sums. Nothing is exact behind a normalization: there, networks are drawn
until no ReLU is near its edge.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor

from trainables import execution as executions
from trainables.errors import UserError
from trainables.execution import dense, sparse
from trainables.execution._arena import CHUNK, Arena
from trainables.native import build
from trainables.tensors import native_ops
from trainables.tensors.mlp import MLP
from trainables.tensors.streams import key_of, to_integers, to_uniform, words

QUICK = tuple(flag for flag in build.FLAGS if flag != "-O3")  # where only the compiling is tested
TWIN = MLP((23, 256, 256, 1), copies=2)
CRITIC = MLP((23, 256, 256, 256, 1), copies=2)
NORMALIZED = MLP((23, 256, 256, 256, 1), copies=2, norm="after")
BEFORE = MLP((23, 256, 256, 1), copies=2, norm="before")
SIMBA = MLP((23, 32, 128, 32, 128, 32, 1), copies=2, norm="after", residual=True)
ACTOR = MLP((17, 256, 256, 6), output="tanh", extra={"log_std": 6, "temperature": 1})


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
    build.library.cache_clear()  # a test may have asked for another one


def network(spec: MLP, members: int, density: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Canonical rows and mask: member k keeps `density` / (k + 1); unit 0 of every layer loses all weights, from and to it."""
    draw = torch.Generator().manual_seed(seed)
    flat = torch.randint(-8, 9, (members, spec.row), generator=draw).float() / 16
    flat[:, spec.used :] = 0
    mask = torch.ones(members, spec.row)
    for name, view in spec.views(mask).items():
        if name.startswith("weight"):
            kept = density / torch.arange(1, members + 1).view(-1, 1, 1, 1)
            view.copy_(torch.rand(view.shape, generator=draw) < kept)
            if density < 1 and view.shape[2] > 1:
                view[:, :, 0, :] = 0
            if density < 1 and view.shape[3] > 1:
                view[:, :, :, 0] = 0
    if spec.norm:
        flat[:, : spec.used] = torch.randn(members, spec.used, generator=draw) / 2
    last = len(spec.layers) - 1
    if spec.output == "tanh":  # away from the flat ends, where float32 knows 1 - y^2 badly
        for name in (f"weight.{last}", f"bias.{last}"):
            spec.views(flat)[name].div_(64)
    return flat, mask


def from_the_edge(spec: MLP, flat: Tensor, mask: Tensor, inputs: list[Tensor]) -> float:
    """How near a hidden unit of a normalized network comes to the edge of its ReLU, or 1/4000 of how near a layer comes to no deviation
    (by which it is divided)."""
    views, kept = spec.views(flat.double()), spec.views(mask.double())
    x, nearest, stream = torch.cat(inputs, -1).double().unsqueeze(1), 1.0, torch.zeros(())
    for i in range(len(spec.layers) - 1):
        y = x @ (views[f"weight.{i}"] * kept[f"weight.{i}"]).transpose(2, 3) + views[f"bias.{i}"].unsqueeze(2)
        if spec.residual and i % 2 == 0:
            x = stream = stream + y
            deviation = x.std(-1, correction=0)
            nearest = min(nearest, *(deviation[deviation > 1e-9] / 4000).tolist())
            x = torch.nn.functional.layer_norm(x, x.shape[-1:], eps=1e-6)
            x = x * (1 + views[f"gain.{i}"].unsqueeze(2)) + views[f"shift.{i}"].unsqueeze(2)
            continue
        if spec.residual:
            nearest, x = min(nearest, float(y.abs().min())), y.relu()
            continue
        if spec.norm == "after":
            nearest, y = min(nearest, float(y.abs().min())), y.relu()
        deviation = y.std(-1, correction=0)
        nearest = min([nearest, *(deviation[deviation > 1e-9] / 4000).tolist()])
        x = torch.nn.functional.layer_norm(y, y.shape[-1:], eps=1e-6)
        x = x * (1 + views[f"gain.{i}"].unsqueeze(2)) + views[f"shift.{i}"].unsqueeze(2)
        if spec.norm == "before":
            nearest, x = min(nearest, float(x.abs().min())), x.relu()
    return nearest


def batch(spec: MLP, members: int, size: int, parts: int) -> list[Tensor]:
    draw = torch.Generator().manual_seed(size)
    x = torch.randint(-8, 9, (members, size, spec.sizes[0]), generator=draw).float() / 8
    return [part.clone() for part in x.tensor_split(parts, dim=2)]


def differentiate(net: dense.Network | sparse.Network, inputs: list[Tensor], copy: int | None, frozen: bool) -> list[Tensor]:
    """Output, input gradients and canonical parameter gradients of a loss that weighs every output differently, in float64."""
    inputs = [x.to(net.parameters.dtype).requires_grad_() for x in inputs]
    out = (net.frozen if frozen else net)(*inputs, copy=copy)
    weights = torch.arange(1, out[0].numel() + 1, dtype=out.dtype).sin().view(out.shape[1:])
    loss = (out * weights).sum() + sum((extra**2).sum() for extra in net.extra.values())
    wanted = [*inputs] if frozen else [*inputs, *net.leaves]
    found = torch.autograd.grad(loss, wanted, materialize_grads=True)
    parameters = [] if frozen else [net.unpack(net.collect(found[len(inputs) :]).detach())]
    return [t.detach().double() for t in (out, *found[: len(inputs)], *parameters)]


def assert_same(spec: MLP, members: int, size: int, density: float, parts: int, copy: int | None, frozen: bool) -> None:
    inputs = batch(spec, members, size, parts)
    for seed in itertools.count():
        flat, mask = network(spec, members, density, seed)
        if not spec.norm or from_the_edge(spec, flat, mask, inputs) > 5e-6:
            break
    expected = differentiate(dense.Network(spec, flat.double(), mask.double()), inputs, copy, frozen)
    error = 1e-5 if spec.norm else 3e-6
    for ours, reference in zip(differentiate(sparse.Network(spec, flat, mask), inputs, copy, frozen), expected, strict=True):
        assert ours.shape == reference.shape
        torch.testing.assert_close(ours, reference, rtol=1e-5, atol=error * max(1.0, reference.abs().max().item()))


SHAPES = [
    MLP((1, 1)),
    MLP((5, 3), copies=2),
    MLP((5, 1, 2), output="tanh"),
    MLP((3, 32, 5, 4), copies=3, extra={"scale": 2}),
    MLP((8, 5, 32, 32, 2)),
    MLP((5, 3), norm="after"),
    MLP((5, 1, 2), output="tanh", norm="after"),
    MLP((4, 33, 1), copies=2, norm="after"),
    MLP((3, 32, 11, 4), copies=3, extra={"scale": 2}, norm="after"),
    MLP((8, 13, 32, 32, 2), norm="after"),
    MLP((5, 3), norm="before"),
    MLP((5, 1, 2), output="tanh", norm="before"),
    MLP((4, 33, 1), copies=2, norm="before"),
    MLP((3, 32, 11, 4), copies=3, extra={"scale": 2}, norm="before"),
    MLP((8, 13, 32, 32, 2), norm="before"),
    MLP((4, 1)).of_width(8, 1),
    MLP((3, 4), copies=2, output="tanh", extra={"scale": 2}).of_width(5, 2),
]


@pytest.mark.parametrize("spec", SHAPES, ids=str)
@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("size", [1, 7, 100, 256])
def test_small_networks_equal_the_reference(spec: MLP, members: int, size: int) -> None:
    for density in (0.2, 1.0):
        assert_same(spec, members, size, density, 1, None, frozen=False)
        assert_same(spec, members, size, density, min(3, spec.sizes[0]), spec.copies - 1, frozen=False)
        assert_same(spec, members, size, density, min(2, spec.sizes[0]), None, frozen=True)
        assert_same(spec, members, size, density, 1, 0, frozen=True)


@pytest.mark.parametrize("spec", [TWIN, ACTOR], ids=["critic", "actor"])
@pytest.mark.parametrize("density", [0.01, 0.05, 0.2, 1.0])
def test_real_networks_equal_the_reference(spec: MLP, density: float) -> None:
    assert_same(spec, 2, 256, density, 2, None, False)
    assert_same(spec, 2, 100, density, 2, spec.copies - 1, True)


@pytest.mark.parametrize("norm", ["after", "before"])
@pytest.mark.parametrize("density", [0.01, 0.05, 1.0])
def test_a_real_normalized_network_equals_the_reference(density: float, norm: Literal["after", "before"]) -> None:
    spec = replace(NORMALIZED, norm=norm)
    assert_same(spec, 2, 70, density, 2, None, False)
    assert_same(spec, 1, 33, density, 2, 1, True)


def by_input(net: dense.Network | sparse.Network, inputs: list[Tensor], by: int) -> list[Tensor]:
    """Value, its gradient by `inputs[by]`, and the canonical gradient of a loss on both that weighs every number differently, in float64;
    dense's by autograd alone."""
    inputs = [x.to(net.parameters.dtype).requires_grad_() for x in inputs]
    if isinstance(net, sparse.Network):
        value, gradient = net.input_gradient(*inputs, by=by)
    else:
        value = net(*inputs)
        copies = [net(*inputs, copy=copy).sum() for copy in range(net.spec.copies)]
        gradient = torch.stack([torch.autograd.grad(q, inputs[by], create_graph=True)[0] for q in copies], 1)
        gradient = gradient if net.spec.copies > 1 else gradient.squeeze(1)
    weights = [torch.arange(1, t[0].numel() + 1, dtype=t.dtype).sin().view(t.shape[1:]) for t in (value, gradient)]
    loss = (value * weights[0]).sum() + (gradient * weights[1]).sum() + gradient.square().sum() / 8
    found = torch.autograd.grad(loss, [*inputs, *net.leaves], materialize_grads=True)
    parameters = net.unpack(net.collect(found[len(inputs) :]).detach())
    return [t.detach().double() for t in (value, gradient, *found[: len(inputs)], parameters)]


INPUT_SHAPES = [
    MLP((5, 1)),
    MLP((5, 3, 1), copies=3, extra={"scale": 2}),
    MLP((3, 32, 5, 1), copies=2),
    MLP((40, 5, 32, 9, 1)),
]


def assert_same_by_input(spec: MLP, members: int, size: int, density: float) -> None:
    flat, mask = network(spec, members, density)
    inputs = batch(spec, members, size, 3)
    for by in range(3):
        expected = by_input(dense.Network(spec, flat.double(), mask.double()), inputs, by)
        for ours, reference in zip(by_input(sparse.Network(spec, flat, mask), inputs, by), expected, strict=True):
            assert ours.shape == reference.shape
            torch.testing.assert_close(ours, reference, rtol=1e-5, atol=3e-6 * max(1.0, reference.abs().max().item()))


@pytest.mark.parametrize("spec", INPUT_SHAPES, ids=str)
@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("size", [1, 7, 100, 256])
def test_gradients_by_an_input_equal_autograds(spec: MLP, members: int, size: int) -> None:
    for density in (0.2, 1.0):
        assert_same_by_input(spec, members, size, density)


@pytest.mark.parametrize("density", [0.01, 0.05, 1.0])
def test_gradients_by_an_input_of_a_real_network(density: float) -> None:
    assert_same_by_input(CRITIC, 2, 100, density)


def test_gradients_by_an_input_whose_graph_is_used_twice_or_not_at_all() -> None:
    flat, mask = network(CRITIC, 2, 0.2)
    net = sparse.Network(CRITIC, flat, mask)
    inputs = batch(CRITIC, 2, 70, 2)
    value, gradient = net.input_gradient(*inputs, by=1)
    both = [torch.autograd.grad(gradient.square().sum() + value.sum(), net.leaves, retain_graph=True)[0] for _ in range(2)]
    assert torch.equal(*both)
    (ordinary,) = torch.autograd.grad(value.sum(), net.leaves, retain_graph=True)
    torch.testing.assert_close(ordinary, torch.autograd.grad(net(*inputs).sum(), net.leaves)[0], rtol=1e-5, atol=1e-4)
    with pytest.raises(RuntimeError, match="differentiated once"):
        torch.autograd.grad(gradient.square().sum(), net.leaves, create_graph=True)
    with torch.no_grad():
        again = net.input_gradient(*inputs, by=1)
        assert torch.equal(again[0], value)
        assert torch.equal(again[1], gradient)
        net.parameters.add_(1)
    with pytest.raises(RuntimeError, match="parameters were changed"):
        torch.autograd.grad(gradient.square().sum(), net.leaves)
    del value, gradient, again
    assert not net.arena.lent, "all activations and adjoints were given back"
    for spec in (NORMALIZED, ACTOR, MLP((4, 8, 2))):
        with pytest.raises(ValueError, match="one linear output"):
            sparse.Network(spec, *network(spec, 1, 0.5)).input_gradient(*batch(spec, 1, 5, 2), by=1)


def test_only_gradients_that_are_needed_are_made() -> None:
    flat, mask = network(TWIN, 1, 0.1)
    net = sparse.Network(TWIN, flat, mask)
    observation, action = torch.randn(1, 70, 17), torch.randn(1, 70, 6, requires_grad=True)
    (gradient,) = torch.autograd.grad(net.frozen(observation, action, copy=1).sum(), [action])
    both = observation.clone().requires_grad_()
    assert torch.equal(gradient, torch.autograd.grad(net.frozen(both, action, copy=1).sum(), [both, action])[1])
    assert not net.frozen(observation, action.detach()).requires_grad
    with torch.no_grad():
        assert not net(observation, action).requires_grad


def test_a_batch_that_is_not_contiguous() -> None:
    flat, mask = network(TWIN, 2, 0.1)
    net = sparse.Network(TWIN, flat, mask)
    x = torch.randn(23, 50, 2).permute(2, 1, 0)
    assert torch.equal(net(x), net(x.contiguous()))
    wide = torch.randn(2, 50, 30)
    columns = [wide[..., i::30] for i in range(23)]  # of one number each: torch calls them contiguous whatever their stride
    with torch.no_grad():
        assert torch.equal(net(x), net(x.contiguous()))
        assert torch.equal(net(*columns[:10], wide[..., 10:23]), net(wide[..., :23]))
        assert torch.equal(net(wide[..., :23:2], wide[..., 1:23:2]), net(wide[..., :23:2].contiguous(), wide[..., 1:23:2].contiguous()))
        assert torch.equal(net(wide[..., 4:21], wide[..., :6]), net(wide[..., 4:21].clone(), wide[..., :6].clone()))
        assert torch.equal(net(wide[:1, ..., :23].expand(2, -1, -1)), net(wide[:1, ..., :23].repeat(2, 1, 1)))


@pytest.mark.parametrize("spec", [TWIN, ACTOR, NORMALIZED], ids=["critic", "actor", "normalized"])
@pytest.mark.parametrize("size", [1, 100, 256])
def test_a_member_does_not_depend_on_the_others(spec: MLP, size: int) -> None:
    flat, mask = network(spec, 4, 0.3)
    inputs = [torch.randn(4, size, spec.sizes[0])]

    def run(members: list[int]) -> list[Tensor]:
        net = sparse.Network(spec, flat[members].clone(), mask[members].clone())
        given = [x[members] for x in inputs]
        return differentiate(net, given, None, False) + (by_input(net, given, 0) if spec == TWIN else [])

    together = run([0, 1, 2, 3])
    for members in ([2], [3, 1], [0, 1, 2, 3]):
        for ours, all_of_them in zip(run(members), together, strict=True):
            assert torch.equal(ours, all_of_them[members])


@pytest.mark.parametrize("spec", [TWIN, ACTOR, NORMALIZED], ids=["critic", "actor", "normalized"])
def test_a_nan_stays_with_its_member(spec: MLP) -> None:
    flat, mask = network(spec, 2, 0.3)
    net = sparse.Network(spec, flat, mask)
    net.parameters[0] = torch.nan
    inputs = [torch.randn(2, 10, spec.sizes[0])]
    for found in differentiate(net, inputs, None, False) + (by_input(net, inputs, 0) if spec == TWIN else []):
        assert found[0].isnan().any()
        assert not found[1].isnan().any()


@pytest.mark.parametrize("spec", [ACTOR, MLP((17, 40, 24, 6), copies=2, extra={"scale": 3}, norm="after")], ids=["actor", "normalized"])
def test_pruned_weights_stay_zero_and_rows_round_trip(spec: MLP) -> None:
    flat, mask = network(spec, 3, 0.1)
    net = sparse.Network(spec, flat, mask)
    assert torch.equal(net.unpack(net.parameters), flat * mask)
    assert torch.equal(net.pack(net.unpack(net.parameters)), net.parameters)
    ones = net.unpack(torch.ones_like(net.parameters))
    assert torch.equal(ones[:, : spec.used], mask[:, : spec.used])
    assert not ones[:, spec.used :].any()


def test_memory_follows_the_kept_weights() -> None:
    flat, mask = network(TWIN, 2, 0.05)
    net = sparse.Network(TWIN, flat, mask)
    assert net.parameters.shape[1] <= mask[:, : TWIN.used].sum(1).max() + 32


def test_extras_are_leaves_in_the_same_memory() -> None:
    flat, mask = network(ACTOR, 2, 0.1)
    net = sparse.Network(ACTOR, flat, mask)
    assert net.extra["log_std"].shape == (2, 6)
    net.parameters.add_(1)
    assert torch.equal(net.extra["log_std"].detach(), ACTOR.views(flat)["log_std"] + 1)
    assert torch.equal(ACTOR.views(net.unpack(net.parameters))["temperature"], net.extra["temperature"].detach())


def test_called_twice_before_backward_and_backward_twice() -> None:
    flat, mask = network(TWIN, 1, 0.2)
    net = sparse.Network(TWIN, flat, mask)
    first, second = torch.randn(1, 256, 23), torch.randn(1, 256, 23)

    def gradient(*outputs: Tensor, keep: bool = False) -> Tensor:
        return torch.autograd.grad(sum((q**2).sum() for q in outputs), net.leaves, retain_graph=keep)[0]  # type: ignore[union-attr]

    a, b = gradient(net(first)), gradient(net(second))
    p, q = net(first), net(second)
    assert torch.equal(gradient(p, keep=True), a)
    assert torch.equal(gradient(q), b)
    del q
    net(second)  # its activations lie where p's were
    assert torch.equal(gradient(p), a)
    del p
    torch.testing.assert_close(gradient(net(first), net(second)), a + b)
    assert not net.arena.lent, "all activations were given back"


def test_the_next_networks_activations_lie_where_the_last_ones_did() -> None:
    actor, critic = (sparse.Network(spec, *network(spec, 1, 0.2)) for spec in (ACTOR, TWIN))
    executions.together([actor, critic])
    loss = critic(torch.randn(1, 256, 23)).square().sum()
    (lent,) = critic.arena.lent
    torch.autograd.grad(loss, critic.leaves, retain_graph=True)
    assert not critic.arena.lent
    action = actor(*batch(ACTOR, 1, 256, 1))
    assert list(actor.arena.lent) == [lent]
    del action
    assert not actor.arena.lent


def test_an_arena_gives_the_first_place_that_is_large_enough() -> None:
    arena = Arena()
    rooms = [arena.borrow(size) for size in (100, 40, 16)]
    places = [room.data_ptr() for room in rooms]
    assert [len(room) for room in rooms] == [112, 48, 16]
    assert [place % 64 for place in places] == [0, 0, 0]
    arena.give_back(rooms[0])
    arena.give_back(rooms[1])
    assert arena.borrow(160).data_ptr() == places[0], "two places side by side are one"
    large = arena.borrow(CHUNK)
    assert len(arena.chunks) == 2
    arena.give_back(large)
    assert arena.borrow(CHUNK).data_ptr() == large.data_ptr()


def test_a_second_backward_of_changed_inputs_is_refused() -> None:
    net, x = sparse.Network(TWIN, *network(TWIN, 1, 0.2)), torch.randn(1, 5, 23)
    loss = net(x).sum()
    torch.autograd.grad(loss, net.leaves, retain_graph=True)
    x.add_(1)
    with pytest.raises(RuntimeError, match="inputs were changed"):
        torch.autograd.grad(loss, net.leaves)


def test_misuse_is_refused() -> None:
    flat, mask = network(TWIN, 1, 0.2)
    net = sparse.Network(TWIN, flat, mask)
    q = net(torch.randn(1, 5, 23))
    with pytest.raises(RuntimeError, match="differentiated once"):
        torch.autograd.grad(q.sum(), net.leaves, create_graph=True)
    net.parameters.add_(1)
    with pytest.raises(RuntimeError, match="parameters were changed"):
        torch.autograd.grad(q.sum(), net.leaves)
    for shapes in ([(1, 5, 22)], [(2, 5, 23)], [(1, 5, 17), (1, 4, 6)]):
        with pytest.raises(ValueError, match="float32"):
            net(*[torch.randn(shape) for shape in shapes])
    with pytest.raises(ValueError, match="float32"):
        net(torch.randn(1, 5, 23).double())
    for copy in (-1, 2):
        with pytest.raises(ValueError, match="copy"):
            net(torch.randn(1, 5, 23), copy=copy)


def test_on_another_device_it_is_refused_in_one_line() -> None:
    row = torch.zeros(1, TWIN.row, device="meta")
    with pytest.raises(UserError, match="execution 'sparse' cannot compute on the device 'meta'; take 'auto' or 'dense'"):
        executions.build("sparse", TWIN, row, row)


def test_an_empty_batch() -> None:
    flat, mask = network(TWIN, 2, 0.2)
    net = sparse.Network(TWIN, flat, mask)
    out = net(torch.randn(2, 0, 23))
    assert out.shape == (2, 2, 0, 1)
    assert not torch.autograd.grad(out.sum(), net.leaves)[0].any()


def test_draws_and_minibatches_are_those_of_torch() -> None:
    seeds, first, count = [3, 4, 2**40], 2**32 - 2, 1538  # over the edge of the counter's low word
    keys = torch.tensor([key_of(seed, "noise") for seed in seeds])
    drawn = words(seeds, "noise", first, 5, count)
    assert torch.equal(native_ops.uniform(keys, first, 5, count), to_uniform(drawn))
    assert torch.equal(native_ops.integers(keys, first, 5, count, 99_999), to_integers(drawn, 99_999))
    assert torch.equal(native_ops.uniform(keys[1:2], first, 5, 3), to_uniform(drawn)[:, 1:2, :3])
    for width in (1, 16, 42):
        rows, shift, scale = torch.randn(1000, width), torch.randn(width), torch.randn(width)
        index = torch.randint(0, 1000, (3, 50))
        torch.testing.assert_close(native_ops.gather(rows, shift, scale)(index), shift + scale * rows[index])


@pytest.mark.parametrize("spec", [TWIN, ACTOR, NORMALIZED], ids=["critic", "actor", "normalized"])
def test_plain_c_equals_the_vector_instructions(spec: MLP, monkeypatch: pytest.MonkeyPatch) -> None:
    flat, mask = network(spec, 2, 0.1)
    inputs = batch(spec, 2, 100, 1)
    found = {}
    features = set(Path("/proc/cpuinfo").read_text().split())
    here = [name for name, needed in build.NEEDS.items() if needed <= features]
    for simd in (*here, "auto"):
        monkeypatch.setenv("WINNOW_SIMD", simd)
        build.library.cache_clear()
        assert f"-{here[-1] if simd == 'auto' else simd}-" in build.library()._name
        net = sparse.Network(spec, flat, mask)
        found[simd] = differentiate(net, inputs, None, False) + (by_input(net, inputs, 0) if spec == TWIN else [])
    for simd in here:
        for plain, vectors in zip(found["generic"], found[simd], strict=True):
            torch.testing.assert_close(plain, vectors, rtol=1e-5, atol=1e-6 * vectors.abs().max().item())
    assert all(map(torch.equal, found["auto"], found[here[-1]]))


@pytest.mark.skipif(not build.NEEDS["avx2"] <= build._features(), reason="this processor has no AVX2")
@pytest.mark.parametrize("spec", [TWIN, ACTOR, NORMALIZED, BEFORE, SIMBA], ids=["critic", "actor", "normalized", "before", "simba"])
def test_registers_of_eight_and_of_sixteen_numbers_make_the_same_bits(
    spec: MLP, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A trial has the same numbers with AVX2 and with AVX-512, whose code runs in halves where the processor lacks it."""
    monkeypatch.setattr(build, "FLAGS", [flag.replace("-O3", "-O1") for flag in build.FLAGS])  # quick, and still one step for a b + c
    halves = {} if build.NEEDS["avx512"] <= build._features() else {"avx512": (*build.SIMD["avx2"], "-D__AVX512F__")}
    monkeypatch.setattr(build, "SIMD", build.SIMD | halves)
    monkeypatch.setenv("WINNOW_CACHE", str(tmp_path_factory.getbasetemp() / "same-bits"))  # compiled once for all networks
    flat, mask = network(spec, 2, 0.1)
    found = []
    for simd in ("avx2", "avx512"):
        monkeypatch.setenv("WINNOW_SIMD", simd)
        build.library.cache_clear()
        for size in (1, 100, 256):
            inputs = batch(spec, 2, size, 1)
            net = sparse.Network(spec, flat, mask)
            found += differentiate(net, inputs, None, False) + (by_input(net, inputs, 0) if spec == TWIN else [])
    for one, other in zip(found[: len(found) // 2], found[len(found) // 2 :], strict=True):
        assert torch.equal(one, other)


def test_what_stands_in_the_way_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(build, "FLAGS", QUICK)
    build.library.cache_clear()
    monkeypatch.setenv("WINNOW_SIMD", "sse9")
    assert not build.available()
    assert build.reason() == "no WINNOW_SIMD 'sse9'; there are: auto, generic, avx2, avx512"
    monkeypatch.setenv("WINNOW_SIMD", "generic")
    monkeypatch.setenv("WINNOW_CACHE", str(tmp_path))
    build.library.cache_clear()
    monkeypatch.setenv("CC", "no-such-cc")
    assert not build.available()
    assert "no C compiler 'no-such-cc'" in build.reason()
    monkeypatch.setenv("CC", "false")
    with pytest.raises(UserError, match="'false' failed on the C kernels"):
        build.library()
    compiler = tmp_path / "compiler"
    compiler.write_text("#!/bin/sh\necho 'In file included from kernels.c:27:' >&2\necho 'tile.h:105: error: no such thing' >&2\nexit 1\n")
    compiler.chmod(0o700)
    monkeypatch.setenv("CC", str(compiler))
    with pytest.raises(UserError, match=r"\(tile\.h:105: error: no such thing\)"):
        build.library()
    compiler.unlink()
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("CC", "")  # as if it were not set
    monkeypatch.setenv("WINNOW_CACHE", "/proc/cache")
    assert build.reason() == "cannot write the C kernels to '/proc/cache' (No such file or directory); set WINNOW_CACHE"
    monkeypatch.setenv("WINNOW_CACHE", str(tmp_path))
    assert build.available()
    assert build.reason() == ""
    assert [path.suffix for path in tmp_path.iterdir()] == [".so"]


def test_a_damaged_library_is_compiled_again_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(build, "FLAGS", QUICK)
    monkeypatch.setenv("WINNOW_CACHE", str(tmp_path))
    monkeypatch.setenv("WINNOW_SIMD", "generic")
    build.library.cache_clear()
    file = build._compiled("generic")
    whole = file.read_bytes()
    file.write_bytes(b"")
    assert build.reason() == ""
    assert file.read_bytes()[:4] == whole[:4]
    build.library.cache_clear()
    (tmp_path / "no-library").write_text('#!/bin/sh\nfor last; do case $last in *.so) echo nothing > "$last";; esac; done\n')
    (tmp_path / "no-library").chmod(0o755)
    monkeypatch.setenv("CC", str(tmp_path / "no-library"))
    monkeypatch.setenv("WINNOW_CACHE", str(tmp_path / "other"))  # a file that is loaded is not loaded again
    assert "cannot load the C kernels" in build.reason()
    assert "\n" not in build.reason()
    native_ops._available.cache_clear()
    network, mask = torch.zeros(1, TWIN.row), torch.zeros(1, TWIN.row)
    assert type(executions.build("auto", TWIN, network, mask)) is dense.Network


def test_two_may_compile_at_the_same_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(build, "FLAGS", QUICK)
    monkeypatch.setenv("WINNOW_CACHE", str(tmp_path))
    with ThreadPoolExecutor(2) as pool:
        paths = list(pool.map(build._compiled, ["generic", "generic"]))
    assert paths[0] == paths[1]
    assert list(tmp_path.iterdir()) == [paths[0]]
    ctypes.CDLL(str(paths[0]))


def test_adam_is_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = torch.tensor([3e-4, 1e-2, 0.0])
    start = torch.randn(3, 48)
    mine, mean, square = start.clone(), torch.zeros(3, 48), torch.zeros(3, 48)
    theirs = [row.clone().double().requires_grad_() for row in start]
    optimizers = [torch.optim.Adam([row], lr=rate.item(), betas=(0.9, 0.99), eps=1e-7) for row, rate in zip(theirs, rates, strict=True)]
    alone = start[1:2].clone(), torch.zeros(1, 48), torch.zeros(1, 48)
    settings = ((0.9, 0.99), 1e-7)
    counts = ctypes.c_int64(), ctypes.c_int64()
    adam = native_ops.adam(mine, mean, square, rates, *settings, counts[0])
    adam_alone = native_ops.adam(*alone, rates[1:2], *settings, counts[1])
    for update in range(1, 30):
        gradient = torch.randn(3, 48) * 10.0 ** -(update % 5)
        gradient[:, :5] = 0  # pruned or idle: must not move
        adam(gradient, 1.0)
        adam_alone(gradient[1:2], 1.0)
        assert [count.value for count in counts] == [update, update]
        for row, optimizer, g in zip(theirs, optimizers, gradient, strict=True):
            row.grad = g.double()
            optimizer.step()
    torch.testing.assert_close(mine.double(), torch.stack(theirs).detach(), rtol=2e-6, atol=1e-6)
    assert torch.equal(mine[:, :5], start[:, :5])
    assert torch.equal(mine[2], start[2])
    for together, single in zip((mine, mean, square), alone, strict=True):
        assert torch.equal(together[1:2], single)


def test_tracking_and_versions() -> None:
    target, online, tau = torch.randn(2, 32), torch.randn(2, 32), torch.tensor([[0.005], [0.1]])
    expected, version = torch.lerp(target, online, tau), target._version
    native_ops.track(target, online, tau)()
    torch.testing.assert_close(target, expected)
    assert target._version > version, "autograd must see the change"
    with pytest.raises(ValueError, match="float32"):
        native_ops.track(target, online.double(), tau)
