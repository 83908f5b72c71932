"""Success rates: from an environment's info to the trial's log, MLflow, the report, an export and a rollout."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from service.delivery import rollout as delivery
from service.delivery.finished import FinishedTrial
from service.delivery.rollout import line
from service.results.cells import tasks_of
from service.results.report import tables
from service.results.runs import Point, runs_of
from service.spool.writer import StackSpool
from service.storage import paths
from service.tracking.reading import RunRow
from tests.trainables.datasets.cases import BEACON, Beacon, record, seek
from trainables import environments
from trainables.environments import flattened
from trainables.errors import UserError
from trainables.evaluation import rollout
from trainables.evaluation.futures import Done, Joined
from trainables.evaluation.metrics import known, metrics_of
from trainables.reports import Evaluated
from trainables.run import run_stack
from trainables.simulation.evaluator import Evaluator
from trainables.trial import Stack, Trial

HERE = flattened(f"{__name__.rpartition('.')[0].rpartition('.')[0]}.datasets.cases:{BEACON}")


def seek_flat(seen: Any) -> Any:
    return np.clip(5 * (seen[..., 2:4] - seen[..., 4:6]), -1, 1)


def test_an_episode_succeeds_if_it_did_at_any_time_step() -> None:
    evaluator = Evaluator(HERE, [[0, 1, 2], [0, 1, 2]])
    away = np.array([0, 1])[:, None, None]  # the second member runs away from its beacon
    played = evaluator.play(lambda seen: np.where(away == 0, seek_flat(seen), -seek_flat(seen)))
    assert played["successes"].tolist() == [[1, 1, 1], [0, 0, 0]]

    steps = iter(range(100))

    def there_and_back(seen: Any) -> Any:
        return seek_flat(seen) if next(steps) < 8 else -np.ones_like(seek_flat(seen))

    assert evaluator.play(there_and_back)["successes"][0].tolist() == [1, 1, 1]
    evaluator.close()


def test_a_diverged_member_has_no_success_and_disturbs_no_other() -> None:
    evaluator = Evaluator(HERE, [[0], [0]])
    played = evaluator.play(lambda seen: np.where(np.array([[[0]], [[1]]]) == 1, np.nan, seek_flat(seen)))
    np.testing.assert_array_equal(played["successes"], [[1], [np.nan]])
    np.testing.assert_array_equal(np.isnan(played["returns"]), [[False], [True]])
    all_diverged = evaluator.play(lambda seen: np.full_like(seek_flat(seen), np.nan))
    assert list(all_diverged) == ["returns"]
    joined = Joined([Done(all_diverged), Done(played)]).result()
    np.testing.assert_array_equal(joined["successes"], [[np.nan], [np.nan], [1], [np.nan]])
    evaluator.close()


def test_an_environment_that_reports_no_success_has_no_such_quantity() -> None:
    evaluator = Evaluator("Pendulum-v1", [[0]])
    assert list(evaluator.play(lambda seen: np.zeros((1, 1, 1)))) == ["returns"]
    evaluator.close()
    assert "success_rate" not in metrics_of(known({"returns": [1.0], "scores": [1.0]}))
    assert metrics_of(known({"returns": [1.0, 2.0], "scores": [1.0, 1.0], "successes": [1.0, 0.0]}))["success_rate"] == 0.5


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Trial, Evaluated, list[dict[str, Any]], Path]:
    """A trial of behaviour cloning that seeks beacons, its final report, its log, and its folder."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    record("test/beacon/sought-v0", gymnasium.make(BEACON), seek, episodes=40, ref_min_score=2.0, ref_max_score=10.0)
    hyper = {"hidden": (32, 32), "batch_size": 64}
    trial = Trial(dataset="test/beacon/sought-v0", algorithm="bc", updates=200, evaluations=1, episodes=4, final_episodes=6, hyper=hyper)
    stack, storage = Stack((trial,)), tmp_path / "storage"
    storage.mkdir()
    writer = StackSpool(stack, storage, {trial.dataset: {}}, 200)
    reports = []
    for report in run_stack(stack, storage, execution="dense"):
        writer(report)
        reports.append(report)
    writer.close()
    lines = [json.loads(text) for text in paths.spool(storage, trial.key).read_text().splitlines()]
    last = [report for report in reports if isinstance(report, Evaluated)][-1]
    return trial, last, lines, paths.policy(storage, trial.key).parent


def test_it_is_in_the_log_and_in_rollouts(trained: Any) -> None:
    trial, last, lines, folder = trained
    assert last.final
    assert len(last.episodes[0]["successes"]) == 6
    evaluated = next(line for line in lines if line["kind"] == "evaluated")
    assert evaluated["metrics"]["eval/success_rate"] == np.mean(evaluated["successes"]) > 0
    played = list(rollout.play(folder, trial, 4))
    assert [float(episode.success or 0) for episode in played] == evaluated["successes"]
    assert [episode.score for episode in played] == pytest.approx([12.5 * (total - 2) for total in evaluated["returns"]]), "the dataset's"
    assert ", success, 12 steps" in line(0, next(episode for episode in played if episode.success), None)


class Arrival(Beacon):
    """Reports a success at the time step of the arrival, and none while it stays there."""

    def reset(self, **given: Any) -> tuple[Any, dict[str, Any]]:
        self.arrived = False
        return super().reset(**given)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        *seen, info = super().step(action)
        first, self.arrived = info["success"] and not self.arrived, info["success"] or self.arrived
        return *seen, {"success": first}


gymnasium.register("Arrival-v0", entry_point=f"{__name__}:Arrival", max_episode_steps=12, kwargs={"near": 0.8})


def test_a_rollout_succeeds_if_it_did_at_any_time_step(trained: Any) -> None:
    """Each time step near the beacon is a return of 1."""
    trial, _, _, folder = trained
    about = json.loads((folder / "policy.json").read_bytes())
    (folder / "policy.json").write_text(json.dumps(about | {"environment": flattened(f"{__name__}:Arrival-v0")}))
    played = list(rollout.play(folder, trial, 8))
    assert [episode.success for episode in played] == [episode.total > 0 for episode in played]
    assert max(episode.total for episode in played) > 1, "it stays there, and reports nothing of it"


class Announced(Beacon):
    """Reports a success where there is one, and nothing else."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        *seen, info = super().step(action)
        return *seen, info if info["success"] else {}


gymnasium.register("Announced-v0", entry_point=f"{__name__}:Announced", max_episode_steps=12)
ANNOUNCED = flattened(f"{__name__}:Announced-v0")


def test_an_episode_without_a_word_fails_where_another_of_the_member_succeeds() -> None:
    """Where no episode of a member says anything, nothing is known, whatever its stack has."""

    def rates(*signs: list[int]) -> list[float | None]:
        evaluator = Evaluator(ANNOUNCED, [[2, 3, 4]] * len(signs))
        played = evaluator.play(lambda seen: np.array(signs)[..., None] * seek_flat(seen))
        evaluator.close()
        played["scores"] = played["returns"]
        members = [{name: values[member].tolist() for name, values in played.items()} for member in range(len(signs))]
        return [metrics_of(known(episodes)).get("success_rate") for episodes in members]

    some, never, always = [1, -1, 1], [-1, -1, -1], [1, 1, 1]
    assert rates(some, never, always) == [pytest.approx(2 / 3), None, 1]
    assert [rates(each)[0] for each in (some, never, always)] == [pytest.approx(2 / 3), None, 1]
    diverged = known({"returns": [1.0, np.nan, 0.0], "scores": [1.0, np.nan, 0.0], "successes": [1.0, np.nan, np.nan]})
    np.testing.assert_array_equal(diverged["successes"], [1, np.nan, 0])


def test_a_rollouts_rate_is_of_all_its_episodes(trained: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    trial, _, _, folder = trained
    about = json.loads((folder / "policy.json").read_bytes())
    (folder / "policy.json").write_text(json.dumps(about | {"environment": ANNOUNCED}))
    monkeypatch.setattr(delivery, "find", lambda *_: nullcontext(FinishedTrial(trial, folder, "", {}, ())))
    lines: list[str] = []
    successes = [row["success"] for row in delivery.rollout(trial.key, folder, episodes=8, output=lines.append)]
    assert set(successes) == {True, False}
    assert lines[-1].endswith(f", success rate {100 * sum(successes) / 8:.0f} %")


def test_a_rollout_of_a_policy_that_is_no_number_is_refused(trained: Any) -> None:
    trial, _, _, folder = trained
    tensors = load_file(folder / "policy.safetensors")
    save_file({name: torch.full_like(tensor, torch.nan) for name, tensor in tensors.items()}, folder / "policy.safetensors")
    with pytest.raises(UserError, match=r"the policy of .* returns an action that is not finite: \[nan, nan\]"):
        next(rollout.play(folder, trial, 1))


def test_the_report_has_a_column_only_where_it_exists() -> None:
    trials = [Trial(dataset="test/maze/some-v0", seed=seed) for seed in (0, 1)]

    def table(**metrics: float) -> list[tuple[str, ...]]:
        rows = {
            trial.key: RunRow(
                trial.key,
                "FINISHED",
                {"eval/return": 5.0 + trial.seed} | {name: value + trial.seed / 10 for name, value in metrics.items()},
                {},
                {},
            )
            for trial in trials
        }
        (task,) = tasks_of([replace(run, points=(Point(1_000_000, 5.0, 1.0, 1.0),)) for run in runs_of(trials, rows)])
        assert tables.cell_rows([task])[0]["success"] == pytest.approx(metrics.get("eval/success_rate", np.nan) + 0.05, nan_ok=True)
        return tables.cell_table(task)

    assert "success" not in table()[0]
    with_success = table(**{"eval/success_rate": 0.75})
    at = with_success[0].index("success")
    assert with_success[1][at : at + 2] == ("80 %", "[16, 144]")
    assert len(table()[0]) == len(table()[1]) == len(with_success[0]) - 2


def test_environments_made_for_films_report_it_too() -> None:
    env = environments.make(HERE, drawn=True)
    env.reset(seed=0)
    assert "success" in env.step(np.zeros(2, np.float32))[4]
    env.close()
