"""The prices of places, beside the linear program whose dual they solve."""

from __future__ import annotations

import random

import pytest
from scipy.optimize import linprog

from service.scheduling import prices


def fastest(work: list[prices.Class], places: dict[str, float]) -> float:
    """Seconds of the fastest schedule that may cut trials at will."""
    kinds = list(places)
    size = len(work) * len(kinds) + 1
    of_kind = [[0.0] * size for _ in kinds]
    of_class = [[0.0] * size for _ in work]
    for row, (_, seconds) in enumerate(work):
        for column, kind in enumerate(kinds):
            of_kind[column][row * len(kinds) + column] = seconds[kind]
            of_class[row][row * len(kinds) + column] = 1.0
    for column, kind in enumerate(kinds):
        of_kind[column][-1] = -places[kind]
    goal = [0.0] * (size - 1) + [1.0]
    found = linprog(goal, A_ub=of_kind, b_ub=[0.0] * len(kinds), A_eq=of_class, b_eq=[count for count, _ in work])
    return float(found.fun)


@pytest.mark.parametrize("seed", range(8))
def test_no_prices_give_more_than_the_linear_program_and_settled_ones_hardly_less(seed: int) -> None:
    draw = random.Random(seed)
    kinds = "abcd"[: 2 + seed % 3]
    places = {kind: float(draw.choice([1, 10, 100, 900])) for kind in kinds}
    work = [(draw.randint(1, 3000), {kind: draw.lognormvariate(0, 1.5) for kind in kinds}) for _ in range(5 + 5 * seed)]
    best, settled = fastest(work, places), prices.settle(prices.even(places), work, places, {}, prices.COLD)
    assert sum(settled[kind] * places[kind] for kind in kinds) == pytest.approx(1)
    assert 0.98 * best <= prices.least_time(settled, work) <= best * (1 + 1e-9)
    assert prices.least_time(prices.even(places), work) <= best * (1 + 1e-9)


def test_a_kind_on_which_nothing_can_train_is_worth_next_to_nothing() -> None:
    places = {"cpu": 4.0, "gpu": 2.0}
    settled = prices.settle(prices.even(places), [(10, {"cpu": 1.0})], places, {}, prices.COLD)
    assert settled["gpu"] < 0.01 * settled["cpu"]
    assert prices.least_time(settled, [(10, {"cpu": 1.0})]) == pytest.approx(2.5, rel=0.02)
