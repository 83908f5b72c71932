"""The statistics against rliable 1.2.0 (with arch 7.2.0), against values worked out by hand, and by how often an interval holds what is
true."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from service.results.statistics import (
    Estimate,
    Scores,
    Tasks,
    curve_band,
    difference,
    improvement,
    iqm,
    iqm_of,
    iqm_over,
    mean_interval,
    mean_of,
    mean_over,
    profile,
    ratio,
    student,
)

# Three tasks, five seeds each.
ONE = [np.array(x) for x in ([104.5, 73.2, 55.8, 119.9, 76.6], [49.3, 74.6, 77.2, 82.7, 72.0], [85.0, 77.4, 69.6, 75.8, 67.3])]
TWO = [np.array(x) for x in ([68.1, 88.4, 97.2, 71.3, 70.0], [81.2, 71.0, 82.2, 82.1, 70.3], [70.4, 74.4, 66.4, 103.0, 89.0])]


def test_mean_and_iqm_are_rliables() -> None:
    assert (mean_over(ONE).value, iqm_over(ONE).value) == pytest.approx((77.39333333, 75.45555556))


@pytest.mark.parametrize(
    ("freedom", "level", "quantile"),
    [(1, 0.975, 12.706), (2, 0.975, 4.303), (3.5, 0.975, 2.940), (10, 0.975, 2.228), (60, 0.975, 2.000), (1e9, 0.975, 1.960),
     (1, 0.95, 6.314), (5, 0.95, 2.015), (1e9, 0.95, 1.645)],
)  # fmt: skip
def test_students_quantiles_are_those_of_the_tables(freedom: float, level: float, quantile: float) -> None:
    assert student(freedom, level) == pytest.approx(quantile, abs=6e-4)


@pytest.mark.parametrize(
    ("statistic", "spreads", "seeds"),
    [(mean_over, [5], 2), (mean_over, [5], 3), (mean_over, [0.5, 1, 12, 1, 8, 3], 3), (iqm_over, [5], 8), (iqm_over, [5, 5, 5], 3)],
)
def test_an_interval_holds_what_is_true_in_95_cases_of_100(
    statistic: Callable[[Tasks], Estimate], spreads: list[float], seeds: int
) -> None:
    """Of three seeds the bootstrap would in 75, of two in 50."""
    random, repeats = np.random.default_rng(0), 600
    levels = 50.0 + 10 * np.arange(len(spreads))

    def drawn(count: int) -> list[Scores]:
        return [random.normal(level, spread, count) for level, spread in zip(levels, spreads, strict=True)]

    of = iqm_of if statistic is iqm_over else mean_of
    true = np.mean([of(drawn(seeds)) for _ in range(20_000)])
    held = [found.low <= true <= found.high for found in (statistic(drawn(seeds)) for _ in range(repeats))]
    assert 0.925 < np.mean(held) < 0.98


def test_probability_of_improvement_is_rliables() -> None:
    found = improvement(ONE, TWO)
    assert found.value == pytest.approx(0.50666667)
    assert (found.low, found.high) == pytest.approx((0.28, 0.7333), abs=0.03)


def test_the_performance_profile_is_rliables() -> None:
    middle, low, high = profile(ONE, np.array([60.0, 70.0, 80.0, 90.0]))
    assert middle == pytest.approx([0.86666667, 0.73333333, 0.26666667, 0.13333333])
    assert low == pytest.approx([0.66666667, 0.53333333, 0.06666667, 0.0], abs=0.07)
    assert high == pytest.approx([1.0, 0.93333333, 0.46666667, 0.26666667], abs=0.07)


def test_by_hand() -> None:
    assert iqm(np.array([100.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -100.0])) == pytest.approx((2 + 3 + 4 + 5) / 4)
    assert iqm(np.array([1.0, 2.0, 9.0])) == pytest.approx(4.0)
    two = mean_interval([10.0, 30.0])
    assert (two.value, two.low, two.high) == pytest.approx((20.0, 20 - 127.06, 20 + 127.06), abs=0.01)  # 12.706 standard errors of 10
    assert iqm_over([np.array([1.0, 2.0, 9.0])]) == mean_interval([1.0, 2.0, 9.0]), "of three nothing is cut off"
    assert improvement([np.array([1.0, 2.0])], [np.array([1.0, 0.0])]).value == (0.5 + 1 + 1 + 1) / 4


def test_only_one_task_can_be_all_tied() -> None:
    one, other = np.array([1.0, 1.0]), np.array([2.0, 2.0])
    assert improvement([one], [one]).note == "all tied"
    mixed = improvement([one, other], [other, one])
    assert (mixed.value, mixed.note) == (0.5, "seeds equal"), "all below on one task, and all above on the other"


def test_a_profile_counts_what_is_above_a_level_and_one_seed_has_no_limits() -> None:
    levels = np.array([39.0, 40.0, 41.0])
    middle, low, high = profile([np.array([40.0, 50.0])], levels)
    assert (middle.tolist(), high.tolist()) == ([1.0, 0.5, 0.5], [1.0, 1.0, 1.0])
    assert low.tolist() == [1.0, 0.0, 0.0]
    middle, low, high = profile([np.array([40.0, 50.0]), np.array([50.0])], levels)
    assert middle.tolist() == pytest.approx([1.0, 2 / 3, 2 / 3])
    assert np.isnan([low, high]).all()


def test_tasks_that_differ_do_not_widen_the_interval_of_their_mean() -> None:
    apart = mean_over([np.array([10.0, 10.0]), np.array([90.0, 90.0])])
    assert (apart.low, apart.value, apart.high, apart.note) == (50.0, 50.0, 50.0, "seeds equal")
    spread = mean_over([np.array([9.0, 10.0, 11.0]), np.array([80.0, 90.0, 100.0])])
    error, freedom = np.sqrt(1 / 3 + 100 / 3) / 2, (101 / 3) ** 2 / ((1 / 9 + 10_000 / 9) / 2)  # Welch and Satterthwaite
    assert (spread.low, spread.high) == pytest.approx((50 - student(freedom) * error, 50 + student(freedom) * error))


def test_retained_is_paired_by_seed() -> None:
    exact = ratio(np.array([72.0, 81.0, 90.0]), np.array([80.0, 90.0, 100.0]))
    assert exact is not None
    assert (exact.value, exact.low, exact.high) == pytest.approx((0.9, 0.9, 0.9))  # unpaired draws would spread from 0.72 to 1.1
    assert ratio(np.array([1.0, 1.0]), np.array([-1.0, 5.0])) is None  # the dense mean may well be below 0
    assert ratio(np.array([1.0, 1.0]), np.array([0.5, 4.5])) is None, "2.5, with a standard error of 2"
    boundless, bounded = (ratio(np.array([1.0, 1.0]), 2 + np.array([-error, error])) for error in (0.2, 0.1))
    assert boundless is not None
    assert (boundless.value, boundless.note, math.isnan(boundless.low)) == (0.5, "no bounds", True), "two seeds have 12.7 standard errors"
    assert bounded is not None
    assert (bounded.note, bounded.low < 0.35, bounded.high > 1.3) == ("", True, True)
    of_five = [ratio(np.ones(5), np.roll([-1.0, 50.0, 51.0, 49.0, 50.0], turn)) for turn in range(5)]
    assert {found.note if found else None for found in of_five} == {""}, "whether there is a share does not depend on the seeds' order"


def test_the_ends_of_a_retained_share_s_interval_are_what_a_paired_t_test_just_allows() -> None:
    scores, dense = np.array([40.0, 55.0, 47.0]), np.array([60.0, 52.0, 70.0])
    found = ratio(scores, dense)
    assert found is not None
    statistic = [
        float(np.mean(left) / (np.std(left, ddof=1) / np.sqrt(3))) for left in (scores - end * dense for end in (found.low, found.high))
    ]
    assert statistic == pytest.approx([student(2), -student(2)])


@pytest.mark.parametrize("spread", [0.1, 0.3])
@pytest.mark.parametrize("seeds", [3, 5])
def test_the_interval_of_what_is_retained_holds_the_true_share_in_95_cases_of_100(seeds: int, spread: float) -> None:
    """Also where dense scores vary much, and on either side: of a share of 97 % hardly one in forty is called less."""
    random, repeats, share = np.random.default_rng(0), 4000, 0.97
    pairs = [random.normal([[share * 60], [60.0]], spread * 60, (2, seeds)) for _ in range(repeats)]
    found = [each for each in (ratio(*pair) for pair in pairs) if each and not each.note]
    assert len(found) > 0.75 * repeats
    assert 0.93 < np.mean([each.low <= share <= each.high for each in found]) < 0.97
    assert sum(each.high < share for each in found) < 0.032 * repeats


def test_a_difference_has_the_interval_of_a_t_test_and_that_of_two_one_sided_ones() -> None:
    random = np.random.default_rng(1)
    one, other = ([random.normal(level, 10, 200) for level in levels] for levels in ((21.0, 61.0), (20.0, 60.0)))
    found = difference(one, other)
    assert found.value == pytest.approx(np.mean([a.mean() - b.mean() for a, b in zip(one, other, strict=True)]))
    error = np.sqrt(sum(a.var() / 200 + b.var() / 200 for a, b in zip(one, other, strict=True))) / 2
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * error, rel=0.01)
    narrow = difference(one, other, 0.9)
    assert (narrow.high - narrow.low) / 2 == pytest.approx(1.645 * error, rel=0.01)
    assert found.seeds == 400


def test_counting_draws_gives_what_comparing_every_drawn_pair_gives() -> None:
    found, random = improvement(ONE, TWO), np.random.default_rng(0)
    drawn = [task[random.integers(len(task), size=(5_000, len(task)))] for task in [*ONE, *TWO]]
    pairs = zip(drawn[: len(ONE)], drawn[len(ONE) :], strict=True)
    shares = (np.mean([np.sign(a[:, :, None] - b[:, None, :]).mean(axis=(1, 2)) for a, b in pairs], axis=0) + 1) / 2
    assert (found.low, found.high) == tuple(np.percentile(shares, (2.5, 97.5)))


def test_a_curves_band_is_at_each_point_the_means_interval() -> None:
    table = np.random.default_rng(3).normal(50, 10, (5, 3))
    for middle, low, high, scores in zip(*curve_band(table), table.T, strict=True):
        whole = mean_interval(scores)
        assert (low, middle, high) == pytest.approx((whole.low, whole.value, whole.high))


def test_a_profiles_limits_are_those_of_its_draws() -> None:
    levels, random = np.array([60.0, 70.0, 80.0]), np.random.default_rng(0)
    _, low, high = profile(ONE, levels)
    drawn = [task[random.integers(len(task), size=(1_000, len(task)))] for task in ONE]
    shares = np.mean([[(task[:, :, None] > levels).sum(axis=1)] for task in drawn], axis=0)[0] * len(drawn) / sum(map(len, ONE))
    wanted = np.percentile(shares, (2.5, 97.5), axis=0)
    np.testing.assert_allclose((low, high), wanted)


def test_networks_that_differ_by_the_margin_are_called_equal_in_one_case_of_twenty() -> None:
    """Of three seeds a bootstrap would call them so twice as often."""
    random, repeats, margin, tasks = np.random.default_rng(0), 600, 5.0, 6
    equal = 0
    for _ in range(repeats):
        one, other = ([random.normal(mean, 5.0, 3) for _ in range(tasks)] for mean in (margin, 0.0))
        found = difference(one, other, 0.9)
        equal += -margin <= found.low and found.high <= margin
    assert 0.03 < equal / repeats < 0.07
