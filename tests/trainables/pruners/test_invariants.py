"""The saliencies against derivations of their own, in float64. Numbers and tolerances are those of the papers' formulas."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
from torch import Tensor

from tests.stacks import World, small_trial
from trainables import plugins
from trainables.errors import UserError
from trainables.execution import dense
from trainables.pruners import Scored, grasp, magnitude, ntk_sap, phew, random_erk, random_uniform, snip, synflow
from trainables.pruning.mask_statistics import describe
from trainables.pruning.ranking import check_connected, kept, threshold, threshold_in_layers
from trainables.tensors.mask import on_path
from trainables.tensors.mlp import MLP
from trainables.tensors.streams import Streams

TWIN = MLP((6, 9, 8, 3), copies=2)
SINGLE = MLP((5, 12, 10, 2), output="tanh")
LINEAR = MLP((5, 3))
MEMBERS, BATCH = 2, 40

Batch = tuple[Tensor, Tensor]  # inputs [K, B, n], targets [K, B, out]


def batches(spec: MLP, count: int = 1, seed: int = 0) -> list[Batch]:
    made = torch.Generator().manual_seed(seed)

    def normals(width: int) -> Tensor:
        return torch.randn(MEMBERS, BATCH, width, generator=made).double()

    return [(normals(spec.sizes[0]), normals(spec.sizes[-1])) for _ in range(count)]


def network_of(spec: MLP, seed: int = 0) -> dense.Network:
    """The reference execution in float64 with torch's default scale."""
    rows = torch.empty(MEMBERS, spec.row, dtype=torch.float64)
    spec.initial_bound(rows)
    rows *= 2 * torch.rand(rows.shape, generator=torch.Generator().manual_seed(seed)).double() - 1
    return dense.Network(spec, rows, torch.ones_like(rows))


def loss_of(output: Tensor, target: Tensor) -> Tensor:
    """1/2 the squared error summed over outputs (and copies), mean over the batch, [K]."""
    if output.dim() == 4:
        target = target.unsqueeze(1)
    return (output - target).square().flatten(1).sum(1) / (2 * BATCH)


def scored(network: dense.Network, data: Sequence[Batch], scale: float = 1.0, loss: Callable[[Tensor, Tensor], Tensor] = loss_of) -> Scored:
    def losses() -> Iterator[Tensor]:
        for x, y in data:
            yield scale * loss(network(x), y)

    return Scored(network.spec, network.weights, [torch.ones_like(w) for w in network.weights], losses, no_random)


def no_random(layer: int) -> Tensor:
    raise AssertionError("this pruner draws no numbers")


def plain_loss(spec: MLP, weights: list[Tensor], biases: list[Tensor], x: Tensor, y: Tensor) -> Tensor:
    """loss_of, member by member and copy by copy with torch's own functions; summed over members."""
    total = torch.zeros((), dtype=torch.float64)
    for k in range(MEMBERS):
        for copy in range(spec.copies):
            h = x[k]
            for index in range(len(spec.layers)):
                h = torch.nn.functional.linear(h, weights[index][k, copy], biases[index][k, copy])
                if index < len(spec.layers) - 1:
                    h = torch.nn.functional.relu(h)
            h = torch.tanh(h) if spec.output == "tanh" else h
            total = total + torch.nn.functional.mse_loss(h, y[k], reduction="sum") / (2 * BATCH)
    return total


def plain_gradient(spec: MLP, weights: Sequence[Tensor], biases: Sequence[Tensor], data: Batch) -> list[Tensor]:
    leaves = [w.detach().clone().requires_grad_() for w in weights]
    return list(torch.autograd.grad(plain_loss(spec, leaves, [b.detach() for b in biases], *data), leaves))


def member_norm(tensors: Sequence[Tensor]) -> Tensor:
    """Squared norm over all layers, [K]."""
    return sum((t.square().flatten(1).sum(1) for t in tensors), torch.zeros(MEMBERS, dtype=torch.float64))


both = pytest.mark.parametrize("spec", [TWIN, SINGLE], ids=["twin", "single"])


# 1. SNIP is the gradient by the mask at mask = 1.


@both
def test_snip_is_the_mask_gradient_at_one(spec: MLP) -> None:
    network, (data,) = network_of(spec), batches(spec)
    found = snip.saliency(scored(network, [data]))
    mask = [torch.ones_like(w, requires_grad=True) for w in network.weights]
    weights = [w.detach() * m for w, m in zip(network.weights, mask, strict=True)]
    wanted = torch.autograd.grad(plain_loss(spec, weights, [b.detach() for b in network.biases], *data), mask)
    for mine, theirs in zip(found, wanted, strict=True):
        assert (mine >= 0).all()
        assert (mine - theirs.abs()).abs().max() < 1e-16


@both
def test_snip_of_several_batches_sums_signed_gradients_before_the_absolute_value(spec: MLP) -> None:
    network, data = network_of(spec), batches(spec, 3)
    found = snip.saliency(scored(network, data))
    parts = [plain_gradient(spec, network.weights, network.biases, batch) for batch in data]
    for index, mine in enumerate(found):
        weight = network.weights[index].detach()
        signed = sum(part[index] for part in parts)
        absolute = sum((weight * part[index]).abs() for part in parts)
        assert (mine - (weight * signed).abs()).abs().max() < 1e-15
        assert (mine - absolute).abs().max() > 1e-3


# 2. A hidden ReLU unit conserves: what its inputs and bias carry is what its outputs carry.


@both
def test_a_hidden_relu_unit_conserves(spec: MLP) -> None:
    network, (data,) = network_of(spec), batches(spec)
    see = scored(network, [data])
    gradient = see.gradient()
    (loss,) = see.losses()
    bias_gradient = torch.autograd.grad(loss.sum(), network.biases)
    for index in range(len(spec.layers) - 1):
        into = (network.weights[index] * gradient[index]).sum(-1) + network.biases[index] * bias_gradient[index]
        out_of = (network.weights[index + 1] * gradient[index + 1]).sum(-2)
        assert out_of.detach().abs().max() > 1e-3
        assert (into - out_of).detach().abs().max() < 1e-15


# 3. Hessian-vector products.


def test_grasp_of_a_linear_network_is_known_in_closed_form() -> None:
    """L = 1/(2N) sum (X W^T - Y)^2 has Hg = G X^T X / N."""
    network, (data,) = network_of(LINEAR), batches(LINEAR)
    with torch.no_grad():
        network.biases[0].zero_()
    found = grasp.saliency(scored(network, [data]))[0]
    weight, (x, y) = network.weights[0].detach()[:, 0], data
    for k in range(MEMBERS):
        gradient = (x[k] @ weight[k].T - y[k]).T @ x[k] / BATCH
        wanted = weight[k] * (gradient @ x[k].T @ x[k] / BATCH)
        assert (found[k, 0] - wanted).abs().max() < 4e-16 * max(1.0, float(wanted.abs().max()))


@both
def test_grasps_product_is_the_difference_of_gradients(spec: MLP) -> None:
    """H g against (grad(w + e g) - grad(w - e g)) / 2 e, to 1e-10 of its norm."""
    network, (data,) = network_of(spec), batches(spec)
    see = scored(network, [data])
    found = grasp.saliency(see)
    gradient = see.gradient()
    step = 1e-5
    up, down = (
        plain_gradient(spec, [w + sign * step * g for w, g in zip(network.weights, gradient, strict=True)], network.biases, data)
        for sign in (1, -1)
    )
    product = [(a - b) / (2 * step) for a, b in zip(up, down, strict=True)]
    wanted = [w.detach() * hg for w, hg in zip(network.weights, product, strict=True)]
    error = member_norm([a.detach() - b for a, b in zip(found, wanted, strict=True)]).sqrt()
    assert (error < 1e-10 * member_norm(wanted).sqrt()).all()
    assert any((layer < 0).any() for layer in found), "GraSP is signed"


# 4. What GraSP's sign means.


@pytest.mark.parametrize("seed", range(5))
def test_removing_the_highest_minus_w_hg_raises_gradient_flow_and_the_lowest_lowers_it(seed: int) -> None:
    spec = MLP((6, 14, 14, 3))
    network, (data,) = network_of(spec, seed), batches(spec, seed=seed)
    saliency = torch.cat([s.detach().flatten(1) for s in grasp.saliency(scored(network, [data]))], 1)
    before = member_norm(plain_gradient(spec, network.weights, network.biases, data))
    for chosen, raised in ((saliency.argmin(1), True), (saliency.argmax(1), False)):
        flat = torch.cat([w.detach().flatten(1) for w in network.weights], 1)
        flat[torch.arange(MEMBERS), chosen] = 0
        parts = flat.split([w[0].numel() for w in network.weights], 1)
        weights = [part.reshape(w.shape) for part, w in zip(parts, network.weights, strict=True)]
        after = member_norm(plain_gradient(spec, weights, network.biases, data))
        assert ((after > before) == raised).all()


# 5. SynFlow.


@both
def test_every_layer_of_synflow_has_the_whole_flow_of_each_copy(spec: MLP) -> None:
    network = network_of(spec)
    for layer in synflow.saliency(scored(network, [])):
        torch.testing.assert_close(layer.sum((2, 3)), torch.ones(MEMBERS, spec.copies).double(), rtol=1e-14, atol=0)
        assert (layer > 0).all()


def test_synflow_leaves_twin_copies_about_as_many_weights() -> None:
    """By their flows as they are, one copy takes all: with these sizes at 75 %, within a few rounds."""
    world = World([small_trial("td3_bc", "synflow", 0.75, seed=seed, hyper={"hidden": (16, 16, 16)}) for seed in range(4)])
    world.start()
    copies = sum(layer.sum((2, 3)) for layer in world.masks["critic"])
    assert (copies.amin(1) > 0.6 * copies.amax(1)).all(), copies


def test_synflow_of_a_hand_made_network() -> None:
    """1 -> 2 -> 1 with weights 2, -3 and 5, 7: the paths carry 10 and 21."""
    spec = MLP((1, 2, 1))
    rows = torch.zeros(1, spec.row, dtype=torch.float64)
    views = spec.views(rows)
    views["weight.0"][0, 0, :, 0] = torch.tensor([2.0, -3.0])
    views["weight.1"][0, 0, 0] = torch.tensor([5.0, 7.0])
    views["bias.0"].fill_(100.0)  # not part of the flow
    found = synflow.saliency(scored(dense.Network(spec, rows, torch.ones_like(rows)), []))
    for layer in found:
        assert layer.flatten().tolist() == pytest.approx([10 / 31, 21 / 31], rel=1e-15)


def test_synflows_schedule_falls_geometrically_to_the_density() -> None:
    found = synflow.schedule(0.05)
    assert len(found) == 100
    assert found[-1] == pytest.approx(0.05, rel=1e-12)
    ratios = [b / a for a, b in itertools.pairwise([1.0, *found])]
    assert max(ratios) - min(ratios) < 1e-12


# 6. Scale and nesting.


def all_masks(saliency: list[Tensor], density: float) -> Tensor:
    total = sum(layer[0].numel() for layer in saliency)
    return torch.cat([layer.flatten(1) for layer in threshold([s.detach() for s in saliency], [kept(density, total)] * MEMBERS)], 1)


@both
@pytest.mark.parametrize("pruner", ["snip", "grasp"])
@pytest.mark.parametrize("scale", [1e-6, 0.37, 1234.5])
def test_scaling_the_loss_changes_no_mask(spec: MLP, pruner: str, scale: float) -> None:
    network, data = network_of(spec), batches(spec)
    saliency = plugins.load("pruners", pruner).saliency
    plain, scaled = saliency(scored(network, data)), saliency(scored(network, data, scale))
    for density in (0.5, 0.2, 0.05):
        assert torch.equal(all_masks(plain, density), all_masks(scaled, density))


@both
def test_masks_of_one_ranking_are_nested_in_sparsity(spec: MLP) -> None:
    saliency = snip.saliency(scored(network_of(spec), batches(spec)))
    masks = [all_masks(saliency, density) for density in (1.0, 0.7, 0.5, 0.2, 0.05)]
    for denser, sparser in itertools.pairwise(masks):
        assert (sparser <= denser).all()
        assert (sparser < denser).any()


# Pruners that need no data ask for none; magnitude is |w|.


def test_magnitude_is_the_absolute_weight_and_needs_no_loss() -> None:
    network = network_of(TWIN)
    for found, weight in zip(magnitude.saliency(scored(network, [])), network.weights, strict=True):
        assert torch.equal(found, weight.abs())


@pytest.mark.parametrize("pruner", ["magnitude", "synflow", "random_erk", "random_uniform", "dense", "phew", "ntk_sap"])
def test_these_ask_for_no_loss(pruner: str) -> None:
    def refuse() -> Iterator[Tensor]:
        raise AssertionError("the loss was asked for")

    network = network_of(TWIN)
    ones = [torch.ones_like(w) for w in network.weights]
    see = Scored(
        TWIN, network.weights, ones, refuse, lambda layer: torch.rand_like(ones[layer]),
        biases=network.biases, place=placing(network), streams=Streams([0, 1]), outputs=network.__call__,
    )  # fmt: skip
    assert [s.shape for s in plugins.load("pruners", pruner).saliency(see)] == [w.shape for w in network.weights]


# Paths and kernels: what PHEW and NTK-SAP find.


def placing(network: dense.Network) -> Callable[[list[Tensor]], None]:
    def place(parameters: list[Tensor]) -> None:
        network.weights, network.biases = parameters[: len(parameters) // 2], parameters[len(parameters) // 2 :]

    return place


def phew_of(network: dense.Network) -> list[Tensor]:
    ones = [torch.ones_like(w) for w in network.weights]
    return phew.saliency(Scored(network.spec, network.weights, ones, lambda: iter(()), no_random, streams=Streams([0, 1])))


def test_phew_keeps_whole_paths_in_wide_layers() -> None:
    """All but the last walk of each copy is whole, so at most two weights of each copy lie on no path."""
    spec = MLP((17, 64, 64, 6), copies=2)
    scores = phew_of(network_of(spec))
    wanted = kept(0.05, sum(spec.weights_per_layer))
    mask = threshold(scores, [wanted] * MEMBERS)
    live = on_path(mask)
    for member in range(MEMBERS):
        assert wanted - sum(int(layer[member].sum()) for layer in live) <= 2 * spec.copies
    copies = sum(layer.sum((2, 3)) for layer in mask)
    assert (copies[:, 0] - copies[:, 1]).abs().max() <= 1
    assert (mask[1].sum(-1) > 0).float().mean() > 0.7, "random walks spread over the units"


def test_phew_prefers_large_weights_and_never_follows_one_of_zero() -> None:
    network = network_of(MLP((6, 14, 14, 3)))
    with torch.no_grad():
        network.weights[1][..., ::2, ::2] = 0
        network.weights[1][..., 1, :] = 100
    mask = threshold(phew_of(network), [120] * MEMBERS)
    assert mask[1][..., ::2, ::2].sum() == 0
    assert mask[1][..., 1, :].mean() > 0.8 > 2 * mask[1].mean()


def test_the_weights_of_a_layer_carry_the_whole_of_what_ntk_sap_scores() -> None:
    """Without biases the change of the outputs has degree 2 in each layer's mask: the signed scores of a layer sum to 2."""
    network = network_of(MLP((6, 14, 14, 3)))
    ones = [torch.ones_like(w) for w in network.weights]
    see = Scored(
        network.spec, network.weights, ones, lambda: iter(()), no_random,
        biases=network.biases, place=placing(network), streams=Streams([0, 1]), outputs=network.__call__,
    )  # fmt: skip
    for layer in ntk_sap.saliency(see):
        assert (layer >= 0).all()
        assert (layer.sum((1, 2, 3)) >= 2 - 1e-12).all()


# 8. Budgets.


@pytest.mark.parametrize(
    ("sizes", "density", "wanted"),
    [
        ((17, 256, 256, 6), 0.10, (1950, 3658, 1536)),
        ((17, 256, 256, 6), 0.05, (931, 1747, 894)),
        ((23, 256, 256, 1), 0.05, (1174, 2155, 256)),
        ((11, 256, 256, 3), 0.05, (922, 1767, 768)),
    ],
)
def test_erk_budgets_are_the_published_rule(sizes: tuple[int, ...], density: float, wanted: tuple[int, ...]) -> None:
    spec = MLP(sizes)
    found = random_erk.budgets(spec, density)
    assert sum(found) == kept(density, sum(spec.weights_per_layer))
    assert max(abs(a - b) for a, b in zip(found, wanted, strict=True)) <= 2
    twin = random_erk.budgets(MLP(sizes, copies=2), density)
    assert max(abs(a - 2 * b) for a, b in zip(twin, wanted, strict=True)) <= 4


@pytest.mark.parametrize("density", [0.9, 0.5, 0.05, 0.013])
def test_erk_gives_one_density_rule_to_all_layers_that_are_not_full(density: float) -> None:
    spec = MLP((17, 64, 256, 128, 6))
    found = random_erk.budgets(spec, density)
    assert sum(found) == kept(density, sum(spec.weights_per_layer))
    scales = []
    for budget, (n_in, n_out) in zip(found, spec.layers, strict=True):
        assert 0 < budget <= n_in * n_out
        if budget < n_in * n_out:
            scales.append(budget / (n_in + n_out))
    assert max(scales) - min(scales) < 0.02 * max(scales)


@pytest.mark.parametrize("density", [0.5, 0.05, 0.0123])
def test_uniform_gives_every_layer_the_same_density(density: float) -> None:
    spec = MLP((17, 64, 256, 6), copies=2)
    found = random_uniform.budgets(spec, density)
    assert sum(found) == kept(density, sum(spec.weights_per_layer))
    assert all(abs(budget - density * total) < 1 for budget, total in zip(found, spec.weights_per_layer, strict=True))


def test_random_masks_are_uniform_within_a_layer() -> None:
    """Rows and columns are hit alike: a random layer's row counts vary as a hypergeometric draw does."""
    spec = MLP((100, 100))
    made = torch.Generator().manual_seed(0)
    network = network_of(spec)
    see = Scored(spec, network.weights, [], lambda: iter(()), lambda layer: torch.rand(MEMBERS, 1, 100, 100, generator=made))
    (mask,) = threshold_in_layers(random_uniform.saliency(see), [random_uniform.budgets(spec, 0.2)] * MEMBERS)
    for counts in (mask.sum(-1), mask.sum(-2)):
        assert 10 < counts.var() < 26  # 100 x 0.2 x 0.8 = 16
        assert counts.mean() == pytest.approx(20)


# 9. Traps that must be seen.


def large(spec: MLP, seed: int = 0) -> dense.Network:
    return network_of(spec, seed)


def test_global_magnitude_on_torchs_default_scale_is_refused_and_the_layer_named() -> None:
    spec = MLP((23, 256, 256, 1))
    network = large(spec)
    total = sum(spec.weights_per_layer)
    mask = threshold(magnitude.saliency(scored(network, [])), [kept(0.05, total)] * MEMBERS)
    assert all(float(layer.sum()) == 0 for layer in on_path(mask))
    with pytest.raises(UserError, match=r"^some trial: .* no path .* of the critic: layer critic\.[12] keeps 0 of \d+ weights"):
        check_connected("critic", mask, ["some trial", "another"])


def test_one_round_of_synflow_empties_the_wide_layer_and_a_hundred_do_not() -> None:
    spec = MLP((17, 256, 256, 6))
    network = large(spec)
    total = sum(spec.weights_per_layer)
    one = threshold(synflow.saliency(scored(network, [])), [kept(0.05, total)] * MEMBERS)
    assert [int(layer[0].sum()) for layer in one][1] == 0
    with pytest.raises(UserError, match=r"layer actor\.1 keeps 0 of 65536"):
        check_connected("actor", one, ["a", "b"])

    weights = [w.detach() for w in network.weights]
    mask = [torch.ones_like(w) for w in weights]
    for density in synflow.schedule(0.05):
        masked = Scored(spec, [w * m for w, m in zip(weights, mask, strict=True)], mask, lambda: iter(()), no_random)
        scores = [s.masked_fill(m == 0, -torch.inf) for s, m in zip(synflow.saliency(masked), mask, strict=True)]
        mask = threshold(scores, [kept(density, total)] * MEMBERS)
    check_connected("actor", mask, ["a", "b"])
    assert sum(int(layer[0].sum()) for layer in mask) == kept(0.05, total)
    assert min(int(layer[0].sum()) for layer in mask) > 500


def test_snip_at_99_percent_keeps_714_weights_of_which_most_lie_on_no_path() -> None:
    spec = MLP((17, 256, 256, 6), output="tanh")
    network, data = large(spec), batches(spec)
    saliency = [s.detach() for s in snip.saliency(scored(network, data))]
    found = {d: describe(spec, threshold(saliency, [kept(d, 71_424)] * MEMBERS)) for d in (0.05, 0.01)}
    for member in range(MEMBERS):
        sparse, half = found[0.01][member], found[0.05][member]
        assert sparse["kept"] == 714
        assert half["kept"] == 3571
        assert sparse["density"] == pytest.approx(714 / 71_424)
        assert sparse["effective_density"] < 0.7 * sparse["density"]
        assert 0.8 < half["effective_density"] / half["density"] < 1


def test_a_mask_read_from_a_row_is_the_one_written() -> None:
    """The masks that training uses are the ones that were scored."""
    network = network_of(TWIN)
    views = TWIN.views(network.parameters)
    assert all(torch.equal(a, b) for a, b in zip((views[f"weight.{i}"] for i in range(len(TWIN.layers))), network.weights, strict=True))
