from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from service.ledger.manifest import Manifest
from service.planning import devices, estimate
from service.planning.description import describe, to_json
from service.planning.options import TrainingOptions
from service.planning.plan import Plan, make_plan
from service.planning.run_settings import RunSettings
from service.planning.update_cost import FIXED, KEPT, price
from service.spool.writer import StackSpool
from tests.service.conftest import ROOT, Command
from trainables.datasets.minari_store import read_metadata
from trainables.errors import UserError
from trainables.reports import Checkpointed
from trainables.trial import Stack, Trial

SMALL = ("datasets=test/hopper/random-v0",)


def planned(storage: Path, name: str = "smoke", *overrides: str, retry_failed: bool = False, fresh: bool = False, **options: int) -> Plan:
    chosen = TrainingOptions(device="cpu", **options)
    settings = RunSettings(overrides=(*SMALL, *overrides), options=chosen, retry_failed=retry_failed, fresh=fresh)
    return make_plan(name, settings, storage=storage)


def enter(storage: Path, state: str, trials: list[Trial], detail: dict, name: str = "smoke") -> None:
    journal = Manifest(storage, name)
    journal.plan(trials)
    for step in ("leased", state):
        journal.record(step, {trial.key: detail for trial in trials})
    journal.close()


@pytest.mark.parametrize("sweep", ["quickstart", "mujoco_sparsity"])
def test_planning_imports_neither_torch_nor_ray_nor_mlflow(sweep: str) -> None:
    program = (
        "import sys; from service.__main__ import main; assert main(sys.argv[1:]) == 0; "
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'torch', 'ray', 'mlflow', 'optuna', 'minari', 'gymnasium'}))"
    )
    done = subprocess.run([sys.executable, "-c", program, "plan", sweep], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_plan_says_what_would_run_and_writes_nothing(service: Command, storage: Path) -> None:
    done = service("plan", "quickstart", "--set", SMALL[0], "--device", "cpu", "--stack-size", "4")
    assert done.returncode == 0
    assert not done.stderr
    told = (
        "14 trials of 20,000 updates",
        "test/hopper/random-v0",
        "dense, snip, random_erk",
        "0.8, 0.95, 0.99",
        "0, 1",
        "14 in 4 stacks of at most 4",
        "about",
    )
    for text in told:
        assert text in done.stdout, text
    assert not storage.exists()


def test_what_is_done_is_not_planned_again(tmp_path: Path, hopper: str) -> None:
    trials = list(planned(tmp_path).trials)
    assert len(trials) == 4
    enter(tmp_path, "done", trials[:1], {})
    enter(tmp_path, "failed", trials[1:2], {"reason": "out_of_memory"})
    plan = planned(tmp_path)
    assert plan.todo == trials[2:]
    assert [stack.lead for stack in plan.stacks] == trials[2:]
    assert planned(tmp_path, retry_failed=True).todo == trials[1:]
    assert "done        1 here, 0 by another sweep of this storage; failed 1" in describe(plan)


def test_what_another_sweep_has_done_is_reused(tmp_path: Path, hopper: str) -> None:
    trials = list(planned(tmp_path).trials)
    enter(tmp_path, "done", trials[2:], {}, name="quickstart")
    plan = planned(tmp_path)
    assert plan.todo == trials[:2]
    assert plan.elsewhere == {trial.key: "quickstart" for trial in trials[2:]}


def test_a_changed_grid_only_adds_trials(tmp_path: Path, hopper: str) -> None:
    trials = list(planned(tmp_path).trials)
    enter(tmp_path, "done", trials, {})
    assert {trial.seed for trial in planned(tmp_path, "smoke", "seeds=0,1,2").todo} == {2}


def test_the_size_of_stacks_and_what_trials_have_done_shape_the_packing(tmp_path: Path, hopper: str) -> None:
    trials = list(planned(tmp_path).trials)
    assert [len(stack) for stack in planned(tmp_path, stack_size=32).stacks] == [2, 2], "dense and pruned apart"
    listener = StackSpool(Stack((trials[0],)), tmp_path, {hopper: {}}, 50)
    listener(Checkpointed(50))
    listener.close()
    assert sorted(len(stack) for stack in planned(tmp_path, stack_size=32).stacks) == [1, 1, 2]


def test_on_cpus_stacks_are_filled_only_where_every_place_gets_two(tmp_path: Path, hopper: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "cores", lambda: 64)

    def sizes(max_concurrent: int, seeds: int) -> list[int]:
        overrides = ("pruners=snip", f"seeds={','.join(map(str, range(seeds)))}")
        return [len(stack) for stack in planned(tmp_path, "smoke", *overrides, max_concurrent=max_concurrent).stacks]

    assert sizes(2, 3) == [1] * 3
    assert sizes(2, 8) == [2] * 4
    assert sizes(2, 40) == [4] * 10
    assert sizes(64, 40) == [1] * 40


def test_more_stacks_may_be_allowed_than_this_machine_has_cores(tmp_path: Path, hopper: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as there are cores train at a time; what a cluster has is not known yet."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(devices, "cores", lambda: 2)
    two, many = planned(tmp_path, max_concurrent=2), planned(tmp_path, max_concurrent=10**20)
    assert (many.max_concurrent, many.stack_size, many.seconds) == (2, two.stack_size, pytest.approx(two.seconds, rel=0.5))
    assert planned(tmp_path, max_concurrent=1).max_concurrent == 1
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    assert planned(tmp_path, max_concurrent=64).max_concurrent == 64


def test_the_time_is_estimated_from_what_this_storage_measured(tmp_path: Path, hopper: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "load", lambda: 0.0)
    monkeypatch.setattr(estimate, "known", lambda device: estimate.MachinePace(7.0))
    trials = list(planned(tmp_path).trials)
    dense, pruned = (trial for trial in trials if trial.seed == 0)
    assert (price(dense, "cpu"), price(pruned, "cpu", "dense"), price(pruned, "cuda")) == (1, 1, 1)
    assert price(pruned, "cpu") == pytest.approx(FIXED + KEPT * 0.2)
    enter(tmp_path, "done", [dense], {"device": "cpu", "updates_per_second": 20.0, "execution": "dense"})
    plan = planned(tmp_path, max_concurrent=1)
    assert plan.rates == {"bc": 20.0}
    assert plan.seconds == pytest.approx(7 + (1 + 2 * price(pruned, "cpu")) * 200 / 20)
    enter(tmp_path, "done", [pruned], {"device": "cpu", "updates_per_second": 80.0, "execution": "sparse"})
    assert planned(tmp_path).rates == {"bc": pytest.approx((20 + 80 * price(pruned, "cpu")) / 2)}
    assert planned(tmp_path, "smoke", "seeds=5").rates == planned(tmp_path).rates


def test_a_trial_that_is_asked_for_afresh_is_the_sweeps_own_from_then_on(tmp_path: Path, hopper: str) -> None:
    trials = list(planned(tmp_path).trials)
    enter(tmp_path, "done", trials[:2], {}, name="quickstart")
    enter(tmp_path, "done", trials[2:3], {})
    plan = planned(tmp_path, fresh=True)
    own = {trial.seed: trial for trial in plan.trials if trial.pruner == "dense"}
    assert [trial.fresh for trial in plan.trials] == ["smoke", "smoke", "", "smoke"], "what this sweep has done itself is done"
    assert plan.todo == [plan.trials[0], plan.trials[1], plan.trials[3]]
    assert own[0].key != trials[0].key
    assert own[0].name == trials[0].name
    enter(tmp_path, "done", [plan.trials[0]], {})
    again = planned(tmp_path)
    assert again.trials[0] == plan.trials[0], "it stays so, asked for or not"
    assert again.state[plan.trials[0].key] == "done"
    assert again.elsewhere == {trials[1].key: "quickstart"}
    other = planned(tmp_path, "quickstart", "pruners=dense", "seeds=0", "updates=200", "evaluations=2", "episodes=2")
    assert (other.trials[0].fresh, other.elsewhere) == ("", {}), "another sweep has nothing to do with it"


def test_a_trial_that_was_planned_and_then_done_by_another_sweep_is_copied_too(tmp_path: Path, hopper: str) -> None:
    trials = list(planned(tmp_path).trials)
    journal = Manifest(tmp_path, "smoke")
    journal.plan(trials)
    journal.close()
    enter(tmp_path, "done", trials[:1], {}, name="quickstart")
    assert [trial.fresh for trial in planned(tmp_path, fresh=True).trials] == ["smoke", "", "", ""]
    assert planned(tmp_path).elsewhere == {trials[0].key: "quickstart"}


def test_a_reused_trial_names_the_sweep_that_did_it(tmp_path: Path, hopper: str) -> None:
    trials = list(planned(tmp_path).trials)
    enter(tmp_path, "done", trials, {}, name="quickstart")
    journal = Manifest(tmp_path, "mujoco_sparsity")
    journal.plan(trials)
    journal.record("done", {trial.key: {"sweep": "quickstart"} for trial in trials})
    journal.close()
    plan = planned(tmp_path)
    assert set(plan.elsewhere.values()) == {"quickstart"}
    assert "reused      4 of sweep quickstart" in describe(plan)


def test_a_plan_names_the_options_that_are_not_at_their_defaults(tmp_path: Path, hopper: str) -> None:
    text = describe(planned(tmp_path, "smoke", "protocol=authors", "transitions=100,200", "rescale=unit"))
    assert "\n  protocol  authors\n  transitions  100, 200\n  rescale  unit\n" in text
    assert "protocol" not in describe(planned(tmp_path))


def test_transitions_that_cut_nothing_off_or_hold_no_episode_are_refused(tmp_path: Path, hopper: str) -> None:
    """A dataset's size is known without opening it; the sweep's other values do not matter."""
    about = read_metadata(hopper)
    assert planned(tmp_path, "smoke", f"transitions=all,{about.transitions - 1}").trials
    with pytest.raises(UserError, match=f"transitions {about.transitions} of '{hopper}' cut nothing off: .*; transitions=all takes all"):
        planned(tmp_path, "smoke", f"transitions=all,{about.transitions}")
    with pytest.raises(UserError, match=f"transitions 2 of '{hopper}' are fewer than the"):
        planned(tmp_path, "smoke", "transitions=2")


def test_a_plan_says_which_rewards_are_shifted(tmp_path: Path, hopper: str) -> None:
    sets = (f"datasets={hopper},made/antmaze/umaze-v0", "algorithms=iql,bc")
    said = "  rewards     -1 for iql on made/antmaze/umaze-v0, as its authors do; --set reward_shift=0 leaves them as they are\n"
    assert said in describe(planned(tmp_path, "smoke", *sets))
    assert "as its authors do" not in describe(planned(tmp_path, "smoke", *sets, "reward_shift=0"))
    assert "as its authors do" not in describe(planned(tmp_path, "smoke", f"datasets={hopper}"))


def test_it_says_where_a_default_leaves_moving_masks_where_they_are(tmp_path: Path) -> None:
    def masks(*sets: str) -> list[str]:
        plan = planned(tmp_path, "smoke", *sets)
        lines = [line for line in describe(plan).splitlines() if line.startswith("  masks ")]
        assert [line.split(maxsplit=1)[1] for line in lines] == to_json(plan)["notes"]
        return lines

    said = "  masks       rigl's delta 1000 is outside [1, end * updates) with end 0.8, updates 1250: its masks will not change"
    assert masks("pruners=dense,rigl,gmp,snip", "updates=1250") == [said]
    assert not masks("pruners=dense,rigl,gmp,snip", "updates=1251")
    assert not masks("pruners=dense,rigl,gmp,snip", "updates=1250", "pruning.delta=999")
    assert not masks("pruners=imp", "updates=8", "evaluations=1")  # of its 14 rounds several are over at once, so that its masks do change


def test_a_trial_that_starts_dense_is_not_taken_for_a_sparse_one() -> None:
    snip, gmp, imp, dense = (
        price(Trial(dataset="a/b/c-v0", algorithm="bc", pruner=pruner, sparsity=0.0 if pruner == "dense" else 0.95), "cpu")
        for pruner in ("snip", "gmp", "imp", "dense")
    )
    assert snip < 0.1
    assert 0.3 < gmp == imp < 0.5
    assert dense == 1


def test_a_plan_checks_one_trial_of_a_cell_once(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Validating a trial is what planning ten thousand of them costs: once from the file, and once from the journal, for all seeds."""
    enter(storage, "done", list(planned(storage).trials), {})
    made, check = [0], Trial.__post_init__

    def counted(trial: Trial) -> None:
        made[0] += 1
        check(trial)

    monkeypatch.setattr(Trial, "__post_init__", counted)
    trials = planned(storage).trials
    count, cells = made[0], {replace(trial, seed=0).key for trial in trials}
    assert len(cells) < len(trials)
    assert count == 2 * len(cells)


def test_a_run_goes_on_from_what_its_plan_has_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of ten thousand trials the journal and the spools take seconds to read; what was written in between is read, too."""
    trials = list(planned(tmp_path).trials)
    enter(tmp_path, "done", trials, {})
    plan, parsed, loads = planned(tmp_path), list[str](), json.loads
    assert plan.followed
    enter(tmp_path, "failed", [replace(trials[0], seed=77)], {"reason": "error", "message": "meanwhile"})
    monkeypatch.setattr("json.loads", lambda text: parsed.append(str(text)) or loads(text))
    journal = Manifest(tmp_path, plan.name, followed=plan.followed)
    assert len([line for line in parsed if '"trial":' in line]) == 1, "what came meanwhile"
    assert journal.ledger.keys_in("done") == [trial.key for trial in trials]
    assert len(journal.ledger.keys_in("failed")) == 1
    journal.plan([replace(trials[0], seed=78)])
    journal.close()
    journal = Manifest(tmp_path, plan.name, followed=plan.followed)  # which has given its ledger away
    assert len(journal.ledger.entries) == len(trials) + 2
    journal.close()
