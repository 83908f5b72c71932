"""EDAC's diversity term where the action does not reach a critic."""

from __future__ import annotations

import torch

from trainables.algorithms.edac import alignment


def pairwise(gradient: torch.Tensor) -> torch.Tensor:
    """The same by its definition: cosines of all pairs of critics i != j, over N - 1, [K]."""
    unit = torch.nn.functional.normalize(gradient, dim=-1)
    cosines = torch.einsum("kiba,kjba->kbij", unit, unit)
    off = cosines.sum((2, 3)) - cosines.diagonal(dim1=2, dim2=3).sum(-1)
    return off.mean(1) / (gradient.shape[1] - 1)


def test_it_is_the_mean_cosine_of_pairs() -> None:
    gradient = torch.randn(2, 4, 32, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(alignment(gradient), pairwise(gradient))


def test_a_weight_that_was_grown_at_zero_gets_a_gradient_of_the_usual_size() -> None:
    """In row 0 the action reaches critic 0 through nothing but such a weight; after a step it is tiny and not 0."""
    rest = torch.randn(1, 3, 64, 2, generator=torch.Generator().manual_seed(1))
    direction = torch.zeros_like(rest)
    direction[0, 0, 0] = torch.tensor([1.0, -2.0])
    rest[0, 0, 0] = 0.0
    sizes = []
    for value in (0.0, 1e-12, 1e-7, 1.0):
        grown = torch.tensor(value, requires_grad=True)
        alignment(rest + grown * direction).sum().backward()
        assert grown.grad is not None
        sizes.append(abs(float(grown.grad)))
    assert all(size <= 1.0 for size in sizes), sizes
