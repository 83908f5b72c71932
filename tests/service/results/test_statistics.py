"""The statistics against rliable 1.2.0 (with arch 7.2.0) on the same scores, and against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from service.results.statistics import curve_band, difference, improvement, interval, iqm, iqm_of, mean_interval, mean_of, profile, ratio

# Three tasks, five seeds each.
ONE = [np.array(x) for x in ([104.5, 73.2, 55.8, 119.9, 76.6], [49.3, 74.6, 77.2, 82.7, 72.0], [85.0, 77.4, 69.6, 75.8, 67.3])]
TWO = [np.array(x) for x in ([68.1, 88.4, 97.2, 71.3, 70.0], [81.2, 71.0, 82.2, 82.1, 70.3], [70.4, 74.4, 66.4, 103.0, 89.0])]


def test_mean_and_iqm_and_their_intervals_are_rliables() -> None:
    mean, middle = interval(ONE, mean_of), interval(ONE, iqm_of)
    assert (mean.value, middle.value) == pytest.approx((77.39333333, 75.45555556))
    assert (mean.low, mean.high) == pytest.approx((69.74, 85.187), abs=0.5)  # two bootstraps differ by their draws
    assert (middle.low, middle.high) == pytest.approx((69.756, 81.678), abs=0.5)


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
    two = interval([np.array([10.0, 30.0])], mean_of)
    assert (two.value, two.low, two.high) == (20.0, 10.0, 30.0)  # of two seeds the interval is their range
    assert improvement([np.array([1.0, 2.0])], [np.array([1.0, 0.0])]).value == (0.5 + 1 + 1 + 1) / 4


def test_seeds_are_drawn_within_tasks() -> None:
    apart = interval([np.array([10.0, 10.0]), np.array([90.0, 90.0])], mean_of)
    assert (apart.low, apart.value, apart.high) == (50.0, 50.0, 50.0)


def test_retained_is_paired_by_seed() -> None:
    exact = ratio(np.array([45.0, 90.0]), np.array([50.0, 100.0]))
    assert exact is not None
    assert (exact.value, exact.low, exact.high) == pytest.approx((0.9, 0.9, 0.9))  # unpaired draws would spread from 0.45 to 1.8
    assert ratio(np.array([1.0, 1.0]), np.array([-1.0, 5.0])) is None  # a resampled dense mean is below 0


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_the_interval_of_what_is_retained_holds_the_true_share_in_95_cases_of_100(seeds: int) -> None:
    """A bootstrap's would in 74 of three seeds."""
    random, repeats, share = np.random.default_rng(0), 2000, 0.97
    found = [ratio(random.normal(share * 60, 5, seeds), random.normal(60, 5, seeds)) for _ in range(repeats)]
    held = [each.low <= share <= each.high for each in found if each]
    assert len(held) == repeats
    assert 0.93 < np.mean(held) < 0.97


def test_a_difference_has_the_interval_that_two_one_sided_tests_ask_for() -> None:
    random = np.random.default_rng(1)
    one, other = ([random.normal(level, 10, 200) for level in levels] for levels in ((21.0, 61.0), (20.0, 60.0)))
    found = difference(one, other)
    assert found.value == pytest.approx(np.mean([a.mean() - b.mean() for a, b in zip(one, other, strict=True)]))
    error = np.sqrt(sum(a.var() / 200 + b.var() / 200 for a, b in zip(one, other, strict=True))) / 2
    assert (found.high - found.low) / 2 == pytest.approx(1.645 * error, rel=0.05)
    assert found.seeds == 400


def test_counting_draws_gives_what_comparing_every_drawn_pair_gives() -> None:
    found, random = improvement(ONE, TWO), np.random.default_rng(0)
    drawn = [task[random.integers(len(task), size=(5_000, len(task)))] for task in [*ONE, *TWO]]
    pairs = zip(drawn[: len(ONE)], drawn[len(ONE) :], strict=True)
    shares = (np.mean([np.sign(a[:, :, None] - b[:, None, :]).mean(axis=(1, 2)) for a, b in pairs], axis=0) + 1) / 2
    assert (found.low, found.high) == tuple(np.percentile(shares, (2.5, 97.5)))


def test_a_curves_band_is_at_each_point_the_means_interval() -> None:
    table = np.random.default_rng(3).normal(50, 10, (5, 3))
    middle, low, high = curve_band(table)
    for point, scores in enumerate(table.T):
        whole = mean_interval(scores)
        width = whole.high - whole.low
        assert middle[point] == pytest.approx(whole.mean)
        assert (low[point], high[point]) == pytest.approx((whole.low, whole.high), abs=0.06 * width)


def test_a_profiles_limits_are_those_of_its_draws() -> None:
    levels, random = np.array([60.0, 70.0, 80.0]), np.random.default_rng(0)
    _, low, high = profile(ONE, levels)
    drawn = [task[random.integers(len(task), size=(1_000, len(task)))] for task in ONE]
    shares = np.mean([[(task[:, :, None] > levels).sum(axis=1)] for task in drawn], axis=0)[0] * len(drawn) / sum(map(len, ONE))
    wanted = np.percentile(shares, (2.5, 97.5), axis=0)
    np.testing.assert_allclose((low, high), wanted)


def test_networks_that_differ_by_the_margin_are_called_equal_in_one_case_of_twenty() -> None:
    """Of three seeds the plain bootstrap would call them so twice as often."""
    random, repeats, margin, tasks = np.random.default_rng(0), 600, 5.0, 6
    equal = 0
    for _ in range(repeats):
        one, other = ([random.normal(mean, 5.0, 3) for _ in range(tasks)] for mean in (margin, 0.0))
        found = difference(one, other)
        equal += -margin <= found.low and found.high <= margin
    assert 0.03 < equal / repeats < 0.07
