from __future__ import annotations

import math

import pytest

from service.results.cells import Task, tasks_of
from service.results.outcomes import outcome
from service.results.quick_table import figure, text_of, to_json
from service.results.runs import runs_of
from service.results.statistics import mean_interval
from service.tracking.reading import RunRow
from trainables.trial import Trial


def trial(pruner: str, sparsity: float, seed: int, **more: object) -> Trial:
    return Trial(
        **({"dataset": "winnow/hopper/expert-v0", "algorithm": "bc", "updates": 20_000} | more), pruner=pruner, sparsity=sparsity, seed=seed
    )


CELLS = [("dense", 0.0), ("snip", 0.8), ("snip", 0.95), ("random_erk", 0.8), ("random_erk", 0.95)]
TRIALS = [trial(pruner, sparsity, seed) for seed in (0, 1) for pruner, sparsity in CELLS]


def row(score: float, status: str = "FINISHED", **tags: str) -> RunRow:
    return RunRow(
        "id", status, {"eval/normalized_score": score}, {"winnow.dataset_score": "92.5"} | {f"winnow.{n}": v for n, v in tags.items()}
    )


def found() -> dict[str, RunRow]:
    """Dense 80 and 100; SNIP 80 % 60 and 75; at 95 % one seed of SNIP diverged; of ERK 95 % nothing is there."""
    scores = {("dense", 0.0): (80, 100), ("snip", 0.8): (60, 75), ("snip", 0.95): (20, 5), ("random_erk", 0.8): (40, 50)}
    rows = {t.key: row(scores[t.pruner, t.sparsity][t.seed]) for t in TRIALS if (t.pruner, t.sparsity) in scores}
    rows[trial("snip", 0.95, 1).key] = row(5, "FAILED", reason="divergence")
    return rows


def tasks(trials: list[Trial], rows: dict[str, RunRow]) -> list[Task]:
    return tasks_of(runs_of(trials, rows))


def test_the_table_has_mean_interval_seeds_and_share_of_dense() -> None:
    lines = text_of(tasks(TRIALS, found())).splitlines()
    assert (
        lines[0] == "hopper-expert BC: normalized score (winnow/hopper/expert-v0, 20,000 updates; the data's episodes have a mean of 92.5)"
    )
    assert lines[1].split() == ["dense:", "90.0", "[-37.1,", "217.1]", "n=2"]
    assert lines[2].split() == ["sparsity", "SNIP", "Random", "(ERK)"]
    assert lines[3].split() == ["80", "%", "67.5", "[-27.8,", "162.8]", "n=2", "75", "%", "45.0", "[-18.5,", "108.5]", "n=2", "50", "%"]


def test_the_datas_own_score_is_shown_also_where_the_first_trial_has_no_run() -> None:
    rows = found()
    del rows[TRIALS[0].key]
    assert "the data's episodes have a mean of 92.5" in text_of(tasks(TRIALS, rows)).splitlines()[0]


def test_failed_and_missing_seeds_are_shown_as_such() -> None:
    line = next(line for line in text_of(tasks(TRIALS, found())).splitlines() if line.strip().startswith("95 %"))
    assert line.split("   ", 1)[1].split() == [
        "20.0", "n=1", "of", "2", "(1", "failed:", "divergence)",
        "25", "%", "(1", "of", "2", "pairs)", "2", "missing",
    ]  # fmt: skip


@pytest.mark.parametrize(("status", "word"), [("KILLED", "interrupted"), ("RUNNING", "not finished"), ("FINISHED", "no number")])
def test_what_became_of_a_run_has_one_name_in_results_and_report(status: str, word: str) -> None:
    absent = row(math.nan, status)
    (task,) = tasks([TRIALS[0]], {TRIALS[0].key: absent})
    assert task.cells["dense", 0.0].absent == [word] == [outcome(absent, "eval/normalized_score")]


def test_who_ended_a_trial_is_said() -> None:
    ends = [row(5, "KILLED", state="stopped", stopped_at="20000"), row(5, "KILLED", reason="limit"), row(5, "FAILED")]
    assert [outcome(each, "eval/normalized_score") for each in ends] == ["stopped at 20,000", "limit reached", "failed: unknown reason"]


def test_the_share_is_that_of_the_seeds_that_both_have() -> None:
    """Dense 80 and 100, SNIP 60 and 75: 135 / 180; without dense's second seed 60 / 80, not 67.5 / 80. By two seeds dense may be at 0."""
    rows = found()
    share = tasks(TRIALS, rows)[0].cells["snip", 0.8].retained
    assert (share.value, share.note) == (0.75, "no bounds")
    del rows[trial("dense", 0.0, 1).key]
    assert "67.5 [-27.8, 162.8]  n=2  75 % (1 of 2 pairs)" in text_of(tasks(TRIALS, rows))


def test_the_text_says_what_a_short_budget_does_not_show() -> None:
    text = " ".join(text_of(tasks(TRIALS, found())).split())
    assert "budget: 20,000 updates; the paper's claim (95 % removed, return kept) is about 1,000,000" in text
    long = [trial(pruner, sparsity, 0, updates=1_000_000) for pruner, sparsity in CELLS]
    assert "budget:" not in text_of(tasks(long, {}))


def test_what_may_not_be_compared_is_kept_apart() -> None:
    mixed = [*TRIALS, trial("dense", 0.0, 0, updates=50_000), trial("dense", 0.0, 0, dataset="winnow/hopper/medium-v0")]
    mixed += [trial("dense", 0.0, 0, hyper={"learning_rate": 0.1})]
    assert sorted(len(task.cells) for task in tasks(mixed, found())) == [1, 1, 1, 5]


def test_the_interval_is_students() -> None:
    one = mean_interval([10.0])
    assert (one.value, one.seeds, one.note) == (10.0, 1, "one seed")
    assert math.isnan(one.low), "an interval without width would look certain"
    five = mean_interval([10.0, 20.0, 30.0, 40.0, 50.0])
    # 2.776 standard errors of sqrt(250 / 5).
    assert (five.low, five.value, five.high) == pytest.approx((30 - 19.63, 30.0, 30 + 19.63), abs=0.01)


def test_the_figure_is_a_picture_also_of_an_unfinished_sweep() -> None:
    for rows in (found(), {}):
        assert figure(tasks(TRIALS, rows)).startswith(b"\x89PNG")


def test_runs_that_may_be_compared_have_one_measure() -> None:
    """Beside a run with a normalized score, one that has only a return has no number."""
    rows = {TRIALS[0].key: row(50.0), TRIALS[1].key: RunRow("id", "FINISHED", {"eval/return": 3000.0}, {})}
    (task,) = tasks(TRIALS[:2], rows)
    assert [run.state for run in task.runs] == ["done", "no number"]
    assert task.measure == "normalized score"
    (task,) = tasks(TRIALS[1:2], rows)
    assert (task.measure, task.runs[0].last) == ("return", 3000.0)
    with pytest.raises(ValueError, match="has no last score: missing"):
        _ = tasks(TRIALS[:1], {})[0].runs[0].last


def test_programs_get_identifiers_and_every_score() -> None:
    (task,) = to_json(tasks(TRIALS, found()))
    assert task["title"] == "bc on winnow/hopper/expert-v0, 20,000 updates"
    cells = {(cell["pruner"], cell["sparsity"]): cell for cell in task["cells"]}
    assert cells.keys() == set(CELLS)
    assert cells["snip", 0.95] == {
        "pruner": "snip", "sparsity": 0.95, "scores": [20.0], "others": ["failed: divergence"],
        "estimate": {"mean": 20.0, "low": None, "high": None, "seeds": 1},
    }  # fmt: skip
    assert cells["random_erk", 0.95]["estimate"] is None
