"""What an update costs in the execution `onchip`, which was counted and not measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from service.planning.update_cost import GPU_UPDATE, MULTIPROCESSORS, Kind, costs, price
from trainables.trial import Trial

KINDS = {"gpu": Kind(name="gpu", device="cuda", most=128)}
COUNTED = json.loads((Path(__file__).parents[3] / "benchmarks" / "speed" / "onchip_estimate.json").read_text())["rows"]


def trial(sparsity: float) -> Trial:
    return Trial(dataset="a/b/c-v0", algorithm="td3_bc", pruner="snip" if sparsity else "dense", sparsity=sparsity)


def test_only_on_a_gpu_and_in_that_execution_a_pruned_trial_costs_what_it_keeps() -> None:
    assert price(trial(0.95), "cuda", "onchip") < price(trial(0.9), "cuda", "onchip") < 1
    assert {price(trial(0.0), "cuda", "onchip"), price(trial(0.95), "cuda"), price(trial(0.95), "cpu", "onchip")} == {1}


@pytest.mark.parametrize("sparsity", [0.9, 0.95, 0.98])
def test_a_member_on_every_multiprocessor_reaches_half_of_the_bound(sparsity: float) -> None:
    (row,) = (row for row in COUNTED if (row["algorithm"], row["pruner"], row["sparsity"]) == ("td3_bc", "snip", sparsity))
    found = costs(trial(sparsity), 10**6, KINDS, {"td3_bc": 130.0}, "onchip")["gpu"]
    rate = MULTIPROCESSORS * 10**6 / (found.fixed + MULTIPROCESSORS * found.each)
    assert rate == pytest.approx(row["bounds"]["H100 (SXM)"]["updates_per_second"] / 2, rel=0.15)
    fused = costs(trial(sparsity), 10**6, KINDS, {"td3_bc": 130.0}, "auto")["gpu"]
    assert fused.each == pytest.approx(10**6 * GPU_UPDATE["td3_bc"][1])
    assert found.each < fused.each
