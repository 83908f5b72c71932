"""Masks equal, weight for weight, to derivations from the papers' formulas in float64 with torch's own functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import linear, mse_loss

from tests.stacks import World, small_trial
from trainables.pruning.prune import prune
from trainables.pruning.ranking import kept
from trainables.tensors.streams import Streams

SEED, ROWS = 3, 64
PROSPR_STEPS, PROSPR_RATE = 3, 0.1


def parameters(world: World, network: str, copy: int = 0) -> tuple[list[Tensor], list[Tensor]]:
    """Initial weights and biases of one copy, as float64 leaves."""
    views = world.agent.specs[network].views(world.agent.initial(network))
    layers = range(len(world.agent.specs[network].layers))
    weights, biases = ([views[f"{kind}.{i}"][0, copy].double().requires_grad_() for i in layers] for kind in ("weight", "bias"))
    return weights, biases


def calibration(world: World, index: int) -> Any:
    """The transitions of one calibration batch in float64, without the member axis, and the streams they were drawn from."""
    streams = Streams([SEED], phase="calibration/")
    streams.update = index
    batch = world.data.draw(streams, ROWS)
    names = ("observations", "actions", "rewards", "next_observations", "terminals")
    return (*(getattr(batch, name)[0].double() for name in names), streams)


def forward(inputs: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        inputs = torch.relu(linear(inputs, weight, bias))
    return linear(inputs, weights[-1], biases[-1])


def cloning_loss(world: World, index: int, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    observations, actions, *_ = calibration(world, index)
    return mse_loss(torch.tanh(forward(observations, weights, biases)), actions)


def flat(layers: Sequence[Tensor]) -> Tensor:
    return torch.cat([layer.detach().flatten() for layer in layers])


def top(scores: Tensor, density: float) -> Tensor:
    """1 for the round(density P) highest scores."""
    return torch.zeros_like(scores).index_fill_(0, scores.topk(kept(density, len(scores))).indices, 1)


def mask_of(world: World, network: str = "actor") -> Tensor:
    return flat([layer[0] for layer in prune(world.agent, world.stack, world.data.draw)[network]]).double()


def snip(world: World, batches: int) -> Tensor:
    weights, biases = parameters(world, "actor")
    gradients = torch.autograd.grad(sum(cloning_loss(world, i, weights, biases) for i in range(batches)), weights)
    return flat([(w * g).abs() for w, g in zip(weights, gradients, strict=True)])


def grasp(world: World, batches: int) -> Tensor:
    """w Hg = w d(g' stop(g))/dw."""
    weights, biases = parameters(world, "actor")
    gradients = torch.autograd.grad(sum(cloning_loss(world, i, weights, biases) for i in range(batches)), weights, create_graph=True)
    products = torch.autograd.grad(sum((g * g.detach()).sum() for g in gradients), weights)
    return flat([w * hg for w, hg in zip(weights, products, strict=True)])


def prospr(world: World, batches: int) -> Tensor:
    weights, biases = parameters(world, "actor")
    ones = [torch.ones_like(weight, requires_grad=True) for weight in weights]
    moved = [w.detach() * one for w, one in zip(weights, ones, strict=True)] + biases
    for step in range(PROSPR_STEPS):
        gradients = torch.autograd.grad(cloning_loss(world, step, moved[:3], moved[3:]), moved, create_graph=True)
        moved = [p - PROSPR_RATE * g for p, g in zip(moved, gradients, strict=True)]
    loss = sum(cloning_loss(world, PROSPR_STEPS + i, moved[:3], moved[3:]) for i in range(batches))
    return flat(torch.autograd.grad(loss, ones)).abs()


@pytest.mark.parametrize("batches", [1, 3])
@pytest.mark.parametrize("scores", [snip, grasp, prospr])
def test_a_mask_from_data_is_the_plain_one(scores: Any, batches: int) -> None:
    world = World([small_trial("bc", scores.__name__, 0.6, SEED, calibration_batches=batches)])
    assert int((mask_of(world) != top(scores(world, batches), 0.4)).sum()) == 0


def test_a_synflow_mask_is_the_plain_one_after_100_rounds() -> None:
    world = World([small_trial("bc", "synflow", 0.8, SEED)])
    weights = [weight.detach().abs() for weight in parameters(world, "actor")[0]]
    mask = torch.ones(sum(weight.numel() for weight in weights), dtype=torch.float64)
    for turn in range(1, 101):
        parts = [m.reshape(w.shape) for m, w in zip(mask.split([w.numel() for w in weights]), weights, strict=True)]
        masked = [(w * m).requires_grad_() for w, m in zip(weights, parts, strict=True)]
        signal = torch.ones(masked[0].shape[1], dtype=torch.float64)
        for weight in masked:
            signal = weight @ signal
        gradients = torch.autograd.grad(signal.sum(), masked)
        scores = flat([w * g for w, g in zip(masked, gradients, strict=True)])
        mask = top(scores.masked_fill(mask == 0, -1), 0.2 ** (turn / 100))
    assert int((mask_of(world) != mask).sum()) == 0


@pytest.mark.parametrize("norm", [False, True])
def test_an_ntk_sap_mask_is_the_plain_one_after_20_rounds(norm: bool) -> None:
    """Each round draws inputs, He-normal weights and their move anew; a layer's mask multiplies both the weights and the moved ones."""
    algorithm = "rebrac" if norm else "bc"
    world = World([small_trial(algorithm, "ntk_sap", 0.7, SEED)])
    spec = world.agent.specs["critic" if norm else "actor"]
    name, copies = ("critic", 2) if norm else ("actor", 1)
    assert bool(spec.norm) == norm
    shapes = [(n_out, n_in) for n_in, n_out in spec.layers]
    sizes = [copies * n_out * n_in for n_out, n_in in shapes]
    mask = torch.ones(sum(sizes), dtype=torch.float64)
    for turn in range(20):
        streams = Streams([SEED], phase=f"mask/{name}/")
        streams.update = turn
        inputs = streams.normal("inputs", 100, spec.sizes[0])[0].double()
        weights = [streams.normal(f"weights.{i}", copies, *shape)[0].double() * (2 / shape[1]) ** 0.5 for i, shape in enumerate(shapes)]
        moves = [streams.normal(f"moves.{i}", copies, *shape)[0].double() for i, shape in enumerate(shapes)]
        scores = []
        for copy in range(copies):
            parts = [m.reshape(copies, *shape)[copy].clone().requires_grad_() for m, shape in zip(mask.split(sizes), shapes, strict=True)]
            outputs = []
            for factor in (0.0, 0.01):
                x = inputs
                for layer, part in enumerate(parts):
                    x = linear(x, (weights[layer][copy] + factor * moves[layer][copy]) * part)
                    if layer < len(parts) - 1:
                        x = torch.relu(x)
                        if norm:
                            x = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, correction=0) + 1e-6).sqrt()
                outputs.append(torch.tanh(x) if spec.output == "tanh" else x)
            change = ((outputs[1] - outputs[0]) ** 2).sum()
            scores.append([gradient.abs() / change.detach() for gradient in torch.autograd.grad(change, parts)])
        flattened = flat([torch.stack(layers) for layers in zip(*scores, strict=True)])
        best = flattened.masked_fill(mask == 0, -1).sort(descending=True, stable=True).indices  # units on no path have ties of 0
        mask = torch.zeros_like(mask).index_fill_(0, best[: kept(0.3 ** ((turn + 1) / 20), len(mask))], 1)
    assert int((mask_of(world, name) != mask).sum()) == 0


@pytest.mark.parametrize("sparsity", [0.8, 0.4])
def test_a_phew_mask_is_that_of_walks_made_one_by_one(sparsity: float) -> None:
    """From input 0, output 0, input 1, output 1, ...; each hop's number falls into the cumulated shares of the weights at hand."""
    world = World([small_trial("td3_bc", "phew", sparsity, SEED)])
    spec = world.agent.specs["critic"]
    wanted = kept(1 - sparsity, sum(spec.weights_per_layer))
    walks = sum(spec.weights_per_layer) // 2
    weights = [[weight.detach().abs() for weight in parameters(world, "critic", copy)[0]] for copy in range(2)]
    streams = Streams([SEED], phase="mask/critic/")
    drawn = {(side, copy): streams.uniform(f"{side}.{copy}", 3, walks)[0] for side in ("inputs", "outputs") for copy in range(2)}
    found: list[dict[tuple[int, int, int], None]] = [{}, {}]  # per copy, in the order of being found
    for copy, order in enumerate(found):
        for turn in range(2 * walks):
            walk, backwards = divmod(turn, 2)
            at = walk % spec.sizes[-1 if backwards else 0]
            for hop in range(3):
                layer = 2 - hop if backwards else hop
                row = weights[copy][layer][at] if backwards else weights[copy][layer][:, at]
                number = float(drawn["outputs" if backwards else "inputs", copy][hop, walk])
                next_ = int((row.cumsum(0) / row.sum() <= number).sum())
                order[(layer, at, next_) if backwards else (layer, next_, at)] = None
                at = next_
    assert min(map(len, found)) > wanted / 2
    mask = [torch.zeros(2, n_out, n_in, dtype=torch.float64) for n_in, n_out in spec.layers]
    for copy, order in enumerate(found):
        for layer, row_index, column in list(order)[: (wanted + 1 - copy) // 2]:
            mask[layer][copy, row_index, column] = 1
    assert int((mask_of(world, "critic") != flat(mask)).sum()) == 0


def test_the_authors_td3_bc_critic_mask_is_the_plain_one() -> None:
    """As in sparse_reg's code: the critic's gradients are not cleared between its own loss and the actor's."""
    trial = small_trial("td3_bc", "snip", 0.6, SEED, authors=True)
    world, hyper = World([trial]), trial.hyper_values()
    s, a, r, s2, terminal, streams = calibration(world, 0)
    actor, critics = parameters(world, "actor"), [parameters(world, "critic", copy) for copy in range(2)]

    def q(critic: tuple[list[Tensor], list[Tensor]], observations: Tensor, actions: Tensor) -> Tensor:
        return forward(torch.cat([observations, actions], 1), *critic).squeeze(1)

    noise = streams.normal("target policy", *a.shape)[0].double() * hyper["policy_noise"]
    with torch.no_grad():
        a2 = (torch.tanh(forward(s2, *actor)) + noise.clamp(-hyper["noise_clip"], hyper["noise_clip"])).clamp(-1, 1)
        target = r + (1 - terminal) * hyper["discount"] * torch.minimum(*(q(critic, s2, a2) for critic in critics))
    critic_loss = mse_loss(q(critics[0], s, a), target) + mse_loss(q(critics[1], s, a), target)
    own = torch.tanh(forward(s, *actor))
    value = q(critics[0], s, own)
    actor_loss = mse_loss(own, a) - hyper["alpha"] / value.abs().mean().detach() * value.mean()
    (critic_loss + actor_loss).backward()  # gradients add up, and nothing of the actor's is left out

    pairs = zip(critics[0][0], critics[1][0], strict=True)
    scores = flat([torch.stack([(w * w.grad).abs() for w in pair]) for pair in pairs])
    assert int((mask_of(world, "critic") != top(scores, 0.4)).sum()) == 0
