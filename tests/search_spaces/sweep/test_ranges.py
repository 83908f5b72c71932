from __future__ import annotations

import pytest

from search_spaces.sweep import LogRange, Range, Search, expand
from tests.search_spaces.sweep.small import small
from trainables.errors import UserError


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Range(0.9, 0.8), r"Range\(0.9, 0.8\): the low end 0.9 is not below the high end 0.8"),
        (lambda: Range(0.5, 0.5), "is not below"),
        (lambda: Range(0.5, float("inf")), "the end inf of a range is not a number"),
        (lambda: Range("a", 1), "the end 'a' of a range is not a number"),
        (lambda: LogRange(0, 1), "the low end 0 has no logarithm"),
        (lambda: Search(objective="speed"), "no objective of a search 'speed'; there are: score, pareto"),
        (lambda: Search(sampler="grid"), "no sampler of a search 'grid'; there are: tpe, random"),
        (lambda: Search(objective="pareto", stop="asha"), "goes with the objective 'score' only"),
        (lambda: small(sparsities=Range(0.5, 0.9)), r"sparsities Range\(0.5, 0.9\) is a range, .* add search=Search"),
        (lambda: small(hyper={"alpha": Range(1, 2)}), r"alpha Range\(1, 2\) is a range"),
        (lambda: expand(small(sparsities=Range(0.5, 1.0), search=Search())), "sparsity 1.0 is outside"),
        (lambda: expand(small(sparsities=Range(-0.5, 0.9), search=Search())), "sparsity -0.5 is outside"),
        (lambda: expand(small(hyper={"batch_size": Range(1, 9)}, search=Search())), "batch_size 1.0 is not of the same type"),
        (lambda: expand(small(hyper={"alhpa": Range(1, 9)}, search=Search())), "'alhpa'; there are: "),
        (lambda: small(seeds=Range(0, 9), search=Search()), "seeds Range.* is not a tuple"),
    ],
)
def test_a_search_that_makes_no_sense_is_told_in_one_line(make, says: str) -> None:
    with pytest.raises(UserError, match=says) as error:
        make()
    assert "\n" not in str(error.value)
