from __future__ import annotations

import math
from dataclasses import replace

from search_spaces.sweep import LogRange, Range, Search, expand
from search_spaces.sweep.space import spaces
from tests.search_spaces.sweep.small import DATA, small


def test_a_space_has_a_study_per_dataset_and_algorithm_and_a_trial_per_seed() -> None:
    given = small(sparsities=Range(0.5, 0.9), hyper={"alpha": LogRange(0.5, 10), "hidden": ((64, 64), (32,))}, search=Search())
    assert expand(given) == ()
    found = spaces(given)
    assert [(space.dataset, space.algorithm) for space in found] == [(d, a) for d in DATA for a in ("bc", "td3_bc")]
    assert len({space.study("mine") for space in found}) == 4
    assert [*found[0].dimensions] == ["pruner", "sparsity", "hyper.hidden"], "bc has no alpha"
    trials = found[1].trials({"pruner": "snip", "sparsity": 0.7, "hyper.alpha": 2.0, "hyper.hidden": "(32,)"})
    assert [(t.seed, t.pruner, t.sparsity, t.hyper) for t in trials] == [
        (s, "snip", 0.7, {"alpha": 2.0, "hidden": (32,)}) for s in (0, 1, 2)
    ]
    assert {(t.pruner, t.sparsity) for t in found[1].trials({"pruner": "dense"})} == {("dense", 0.0)}
    assert not found[1].needs("sparsity", {"pruner": "dense"})
    assert found[1].needs("sparsity", {"pruner": "snip"})


def test_a_space_of_values_alone_has_a_size() -> None:
    given = small(pruners=("dense", "snip"), sparsities=(0.5, 0.9), hyper={"alpha": (1.0, 2.0)}, search=Search())
    assert [space.size for space in spaces(given)] == [3, 6] * len(DATA), "dense has no sparsity, and bc no alpha"
    refused = replace(given, algorithms=("cql",), hyper={"log_std_min": (-1.0, 1.5), "log_std_max": (2.0, 1.0)})
    assert {space.size for space in spaces(refused)} == {9}, "of four pairs of bounds one is the wrong way round"
    assert {space.size for space in spaces(replace(given, sparsities=Range(0.5, 0.9)))} == {math.inf}
    assert {space.size for space in spaces(replace(given, hyper={"tau": tuple(k / 1000 for k in range(1, 999))}))} == {3, math.inf}


def test_a_study_is_another_one_where_its_scores_could_not_be_compared() -> None:
    def study(**changes: object) -> str:
        return spaces(small(sparsities=Range(0.5, 0.9), **({"search": Search()} | changes)))[0].study("mine")

    assert study() == study(search=Search(suggestions=99, sampler="random", stop="asha", seed=3))
    others = [study(updates=200), study(seeds=(0,)), study(pruners=("snip",)), study(hyper={"batch_size": 64})]
    others += [study(search=Search(objective="pareto")), study(episodes=3)]
    assert len({study(), *others}) == 7
