from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from search_spaces.sweep import expand
from search_spaces.sweep.sweep import Sweep
from service.ledger.ledger import replay
from trainables.errors import UserError
from trainables.trial import Checked, Trial, with_seed

TRIAL = Trial(dataset="test/hopper/random-v0", pruner="snip", sparsity=0.9, hyper={"hidden": (32, 32)})


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seeds of the trials that are checked."""
    seeds, check = list[int](), Trial.__post_init__

    def noted(trial: Trial) -> None:
        seeds.append(trial.seed)
        check(trial)

    monkeypatch.setattr(Trial, "__post_init__", noted)
    return seeds


@pytest.mark.parametrize(
    "changes",
    [{}, {"sparsity": 0.5}, {"pruner": "dense", "sparsity": 0.0}, {"episodes": 1}, {"hyper": {"hidden": (32, 33)}}, {"reward_scale": 2.0}],
)
def test_trials_of_many_seeds_are_what_each_would_be(changes: dict[str, Any]) -> None:
    made = Checked()
    for seed in (3, 0, 7):
        trial = Trial(**{**{name: getattr(TRIAL, name) for name in Trial.__dataclass_fields__}, **changes, "seed": seed})
        for found in (made.from_json(trial.to_json()), with_seed(replace(trial, seed=5), seed)):
            assert found == trial
            assert found.key == trial.key
            assert found.to_json() == trial.to_json()


def test_a_trial_of_a_known_one_with_its_key_has_a_key_of_its_own() -> None:
    assert TRIAL.key != with_seed(TRIAL, 1).key


@pytest.mark.parametrize("seed", [-1, True, 1.0, "1", None])
def test_seeds_are_checked(seed: Any) -> None:
    made = Checked()
    made.from_json(TRIAL.to_json())
    for make in (lambda: made.from_json({**TRIAL.to_json(), "seed": seed}), lambda: with_seed(TRIAL, seed)):
        with pytest.raises(UserError, match=r"seed .* is not an integer >= 0"):
            make()


@pytest.mark.parametrize("changes", [{"updates": True}, {"sparsity": "0.9"}, {"episodes": 0}, {"authors": 0}, {"mine": 1}])
def test_what_is_nearly_a_known_trial_is_checked(changes: dict[str, Any]) -> None:
    made, one = Checked(), {**TRIAL.to_json(), "updates": 1, "evaluations": 1}
    made.from_json(one)
    with pytest.raises(UserError):
        made.from_json({**one, **changes})


def test_a_journal_and_a_grid_check_one_trial_of_all_its_seeds(checks: list[int]) -> None:
    """Of 10,000 trials of ten seeds that is a second of the time in which `status` answers."""
    sweep = Sweep(datasets=("test/hopper/random-v0",), pruners=("snip", "magnitude"), sparsities=(0.5, 0.9), seeds=tuple(range(10)))
    trials = expand(sweep)
    assert (len(trials), checks) == (40, [0] * 4)
    assert [trial.seed for trial in trials] == [seed for seed in range(10) for _ in range(4)]
    lines = (f'{{"key": "{t.key}", "state": "planned", "detail": {{"trial": {json.dumps(t.to_json())}}}}}\n' for t in trials)
    checks.clear()
    ledger, _ = replay("".join(lines).encode(), "here")
    assert [entry.trial for entry in ledger.entries.values()] == list(trials)
    assert checks == [0] * 4
