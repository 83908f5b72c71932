from __future__ import annotations

import math

import pytest

from service.controls import T, compare, paired, text_of
from service.results import studies
from tests.service.test_results import row
from trainables.trial import Trial


def trial(seed: int, **more: object) -> Trial:
    given = {"dataset": "winnow/hopper/expert-v0", "algorithm": "bc", "updates": 20_000, "pruner": "snip", "sparsity": 0.95}
    return Trial(**(given | more), seed=seed)


def test_the_interval_is_students_t() -> None:
    """Differences 1, 2, 6: mean 3, deviation sqrt(7); t of two degrees of freedom is 4.303."""
    found = paired([1.0, 2.0, 6.0])
    half = 4.303 * math.sqrt(7 / 3)
    assert (found.mean, found.seeds) == (3.0, 3)
    assert found.low == pytest.approx(3 - half)
    assert found.high == pytest.approx(3 + half)
    assert list(T) == sorted(T, reverse=True)


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [([10.0, 11, 12], "better"), ([-10.0, -11, -12], "worse"), ([10.0, 1, -5], "no difference shown"), ([50.0], "one seed says nothing")],
)
def test_the_verdict_follows_from_the_interval(differences: list[float], verdict: str) -> None:
    assert paired(differences).verdict == verdict


def test_a_trial_is_paired_with_its_own_controls_over_seeds() -> None:
    trials = [one for seed in range(3) for one in (trial(seed), *trial(seed).controls().values())]
    scores = {one.key: 10.0 * one.seed + {"none": 7, "shuffle": 2, "reinit": 6}[one.control] for one in trials if one.pruner == "snip"}
    scores |= {one.key: 10.0 * one.seed + one.seed for one in trials if one.pruner == "random_erk" and one.seed < 2}
    ((where, found),) = compare(trials, scores).items()
    assert where == "bc/hopper-expert/snip@95"
    assert {kind: (d.mean, d.seeds) for kind, d in found.items()} == {"shuffle": (5.0, 3), "reinit": (1.0, 3), "erk": (6.5, 2)}
    text = text_of(trials, scores)
    assert "its mask shuffled within layers    +5.0 [+5.0, +5.0]  n=3  better" in text
    assert text_of(trials, {}) == ""


def test_controls_are_columns_of_their_study() -> None:
    trials = [one for seed in range(2) for one in (trial(seed, rescale="layer"), *trial(seed, rescale="layer").controls().values())]
    trials += [trial(seed, pruner="dense", sparsity=0.0) for seed in range(2)]
    (study,) = studies(trials, {one.key: row(50.0) for one in trials})
    assert study.pruners == [
        "snip+rescale=layer", "snip+rescale=layer+shuffle", "snip+rescale=layer+reinit", "random_erk+rescale=layer", "small_dense",
    ]  # fmt: skip
    assert all(len(cell.scores) == 2 for cell in study.cells.values())
