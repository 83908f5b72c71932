"""What turns measurements into tables: nothing is lost on the way, and shares are of the same seeds."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A program of benchmarks/ by name: they are run from the repository's root."""
    monkeypatch.syspath_prepend(str(ROOT))
    return lambda name: importlib.import_module(f"benchmarks.{name}")


def test_a_table_has_exactly_one_place_on_its_page(program: Any, tmp_path: Path) -> None:
    fill, page = program("tables").fill, tmp_path / "page.md"
    page.write_text("a\n<!-- one -->\nold\n<!-- end -->\nb\n<!-- two -->\n<!-- end -->\n")
    fill(page, "one", r"\1 new")
    assert page.read_text() == "a\n<!-- one -->\n\\1 new\n<!-- end -->\nb\n<!-- two -->\n<!-- end -->\n"
    with pytest.raises(ValueError, match=r"page\.md has 0 places `<!-- three -->`"):
        fill(page, "three", "x")
    page.write_text(page.read_text() * 2)
    with pytest.raises(ValueError, match="has 2 places"):
        fill(page, "one", "x")


def test_the_page_shows_what_was_measured(program: Any) -> None:
    page = (ROOT / "benchmarks" / "README.md").read_text()
    tables = program("tables")
    for name, text in tables.texts().items():
        assert f"<!-- {name} -->\n{text}\n<!-- end -->" in page, f"{name}: run `python -m benchmarks.tables`"
    first_page = (ROOT / "README.md").read_text()
    assert f"<!-- speed -->\n{tables.speed()}\n<!-- end -->" in first_page, "speed: run `python -m benchmarks.tables`"


@pytest.mark.parametrize(
    ("name", "page"),
    [
        ("methods", "methods.md"),
        ("results", "results.md"),
        ("settings", "settings.md"),
        ("full", "full-study.md"),
        ("recipe", "full-study.md"),
        ("side_by_side", "side-by-side.md"),
        ("small_data", "small-data.md"),
    ],
)
def test_a_page_shows_what_was_trained(program: Any, name: str, page: str) -> None:
    content = (ROOT / "docs" / page).read_text()
    for mark, text in program(f"learning.{name}").texts().items():
        assert f"<!-- {mark} -->\n{text}\n<!-- end -->" in content, f"{mark}: run `python -m benchmarks.learning.{name}`"


def test_the_first_page_shows_what_make_claim_has_trained(program: Any) -> None:
    claim = program("learning.claim")
    table = program("tables").markdown(claim.table())
    assert f"<!-- claim -->\n{table}\n<!-- end -->" in (ROOT / "README.md").read_text(), "run `python -m benchmarks.learning.claim`"
    assert all(len(scores) == len(claim.SWEEP.seeds) for cells in claim.read().values() for scores in cells.values())


def test_a_pruned_network_is_compared_after_as_many_updates_as_dense_ones_make(program: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    full = program("learning.full")
    place = (full.PRUNED.datasets[0], "bc")

    def trial(pruner: str, seed: int, scores: dict[int, float]) -> Any:
        ends = {"loss": 0.1, "dormant units": 0.2, "feature rank": 100.0}
        pruned = {"signal": 0.5, "loss": 0.1 * (2 + seed), "dormant units": 0.3, "feature rank": 90.0}
        return full.Trained(*place, pruner, seed, scores, *((10.0, ends) if pruner == "dense" else (5.0, pruned)))

    trials = [trial("dense", seed, {50_000: 40.0, 125_000: 50.0, 250_000: 80.0}) for seed in (0, 1, 2)]
    trials += [trial("snip", seed, {50_000: 10.0 + seed, 250_000: 60.0, 1_000_000: 78.0 + seed}) for seed in (0, 1, 2)]
    trials += [trial("random_erk", 0, {50_000: 40.0, 250_000: 80.0, 1_000_000: 80.0})]
    monkeypatch.setattr(full, "read", lambda: trials)
    tasks = {task.trial.updates: task for task in full.tasks() if (task.trial.dataset, task.trial.algorithm) == place}
    shares = [tasks[budget].cells["snip", 0.95].retained for budget in full.BUDGETS]
    assert [(round(share.value, 4), share.seeds) for share in shares] == [(0.275, 3), (0.75, 3), (0.9875, 3)]
    verdict = {row[1]: row[2:] for row in list(full.verdict())[1:] if row[0] == "BC"}
    lost, kept = (f"{number} of 1 ({number} yes, {1 - number} no, 0 open), 5 to come" for number in (0, 1))
    by_its_mean = "1 of 1 (0 yes, 0 no, 1 open), 5 to come"
    assert verdict["SNIP 95 %"] == [lost, lost, by_its_mean, kept]
    assert verdict["Random (ERK) 95 %"] == ["-"] * 4, "a cell without all its seeds is not judged"
    row = next(row for row in full.cells() if row[3] == "80.0")
    assert row[2:5] == ["80.0", "80.0", "28 % [21, 34]"]
    assert row[7] == "100 % 1/3"
    (row,) = list(full.inside())[1:]
    assert row[2:] == ["SNIP", "99 %", "0.50", "0.100, 0.300", "0.20, 0.30", "100, 90"], "a cell without all its seeds is not in it"


def test_a_count_says_how_much_of_it_is_beside_dense_networks_that_fell(program: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    full = program("learning.full")

    def trials(pruner: str, seconds: float, scores: dict[int, float], outcome: str = "") -> list[Any]:
        place = (full.PRUNED.datasets[0], "bc")
        return [full.Trained(*place, pruner, seed, {n: v + seed for n, v in scores.items()}, seconds, {}, outcome) for seed in (0, 1, 2)]

    found = trials("dense", 10.0, {50_000: 80.0, 125_000: 60.0, 200_000: 30.0, 250_000: 20.0})
    found += trials("snip", 4.9, {50_000: 80.0, 250_000: 79.0, 1_000_000: 79.0})
    found += trials("random_erk", 5.1, {50_000: 10.0, 250_000: 20.0, 1_000_000: 31.0})
    found += trials("grasp", 0.0, {}, "failed: divergence")
    monkeypatch.setattr(full, "read", lambda: found)
    verdict = {row[1]: [cell.removesuffix(", 5 to come") for cell in row[2:]] for row in list(full.verdict())[1:] if row[0] == "BC"}
    kept, lost = "1 of 1 (1 yes, 0 no, 0 open)", "0 of 1 (0 yes, 1 no, 0 open)"
    fallen = f"{kept}, 1 of the 1 beside dense networks that fell"
    assert verdict["SNIP 95 %"] == [kept, fallen, fallen, kept], "they fell later than after as much time"
    assert verdict["Random (ERK) 95 %"] == [lost, fallen, fallen, fallen]
    assert verdict["GraSP 95 %"] == ["0 of 1 (0 yes, 0 no, 0 open, 1 diverged)"] * 4


def test_networks_are_compared_with_controls_once_both_are_whole(program: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    full = program("learning.full")

    def trials(pruner: str, score: float, datasets: Sequence[str] = full.PRUNED.datasets) -> list[Any]:
        scores = dict.fromkeys(full.BUDGETS, score)
        return [full.Trained(name, "bc", pruner, seed, scores, 5.0, {}) for name in datasets for seed in (0, 1, 2)]

    found = [
        *trials("dense", 80.0),
        *trials("snip", 60.0),
        *trials("small_dense", 70.0),
        *trials("snip+shuffle", 59.0, full.PRUNED.datasets[1:]),
    ]
    monkeypatch.setattr(full, "read", lambda: found)
    lines = full.beside_controls().splitlines()
    assert [line.partition(" points")[0] for line in lines if "BC" in line] == [
        f"BC, {budget:,} updates, SNIP 95 % against Small dense 95 %, over 6 tasks: -10.0" for budget in full.BUDGETS
    ]
    verdict = {row[1]: row[2:] for row in list(full.verdict())[1:] if row[0] == "BC"}
    assert {name: cells[2].split(" (")[0] for name, cells in verdict.items() if cells[2] != "-"} == {
        "SNIP 95 %": "0 of 6", "Small dense 95 %": "0 of 6", "SNIP 95 %, shuffled": "0 of 5"
    }  # fmt: skip
    head, *rows = full.others()
    assert head[-2:] == ["SNIP, shuffled", "Small dense"]
    assert {tuple(cell.split(" [")[0] for cell in row[-2:]) for row in rows} == {("74 %", "88 %"), ("-", "88 %")}
    found += trials("snip+shuffle", 59.0, full.PRUNED.datasets[:1])
    assert "SNIP 95 % against SNIP 95 %, shuffled, over 6 tasks: +1.0" in full.beside_controls()


def test_methods_are_compared_where_all_their_seeds_are_there(program: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    beside = program("learning.side_by_side")
    dataset, other = beside.SWEEP.datasets

    def trials(method: str, scores: dict[float, list[float]], flops: float, dataset: str = dataset) -> list[Any]:
        return [
            beside.Trained(dataset, "bc", method, rate, seed, score, 10.0 + seed, flops)
            for rate, found in scores.items()
            for seed, score in enumerate(found)
        ]

    snip, half = beside.methods()[1], beside.methods()[-1]
    assert (snip, half) == ("SNIP 95 %", "SNIP 50 %, 2:4")
    found = [
        *trials("dense", {3e-4: [50.0, 50.0, 50.0], 1e-3: [80.0, 80.0, 80.0]}, 100.0),
        *trials(snip, {3e-4: [60.0, 60.0, 60.0], 1e-3: [40.0, 40.0, 40.0]}, 5.0),
        *trials(half, {3e-4: [60.0, 60.0, 60.0], 1e-3: [40.0, 40.0]}, 50.0),
        *trials("dense", {3e-4: [1.0]}, 100.0, other),
    ]
    monkeypatch.setattr(beside, "read", lambda: found)
    rows = {row[0]: row[1:] for row in beside.scores("bc")}
    assert rows["dense"] == ["50.0", "80.0", "1.0 1/3", "-", "11", "100 %"]
    assert rows[half] == ["60.0", "40.0 2/3", "-", "-", "11", "50 %"]
    rates = {row[0]: row[1:] for row in beside.rates()}
    assert rates["dense"] == ["1", "62 %", "100 %", "100 %", "0", "1"]
    assert rates[snip] == ["1", "75 %", "50 %", "75 %", "1", "0"]
    assert rates[half] == ["0", "-", "-", "-", "-", "-"]


def test_little_data_is_compared_task_by_task_and_corrected_for_all(program: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    small = program("learning.small_data")
    dataset, other = small.SWEEP.datasets

    def trials(pruner: str, final: Sequence[float], algorithm: str = "td3_bc", dataset: str = dataset, best: float = 0.0) -> list[Any]:
        scores = [{12_500: best, small.SWEEP.updates: score} for score in final]
        return [small.Trained(dataset, algorithm, 10_000, pruner, seed, each) for seed, each in enumerate(scores)]

    found = [
        *trials("dense", [10.0, 12.0, 14.0], best=50.0),
        *trials("snip", [80.0, 82.0, 84.0]),
        *trials("sparse_reg", [20.0, 22.0, 24.0]),
        *trials("small_dense", [10.0, 12.0]),
        *trials("dense", [10.0, 12.0, 14.0], dataset=other),
        *trials("snip", [10.0, 12.0, 14.0], dataset=other),
    ]
    monkeypatch.setattr(small, "read", lambda: found)
    head, *rows = small.scores()
    assert head[3:] == ["dense", "its best evaluation", "SNIP", "Sparse-Reg", "Small dense"]
    assert {(row[0], row[1], row[2]): row[4:] for row in rows} == {
        ("walker2d-expert", "10,000", "TD3+BC"): ["50.0", "82.0 [77.0, 87.0]", "22.0 [17.0, 27.0]", "11.0 [-1.7, 23.7] 2/3"],
        ("halfcheetah-expert", "10,000", "TD3+BC"): ["12.0", "12.0 [7.0, 17.0]", "-", "-"],
    }
    parts = [line.replace(" 95 %, leaky critic gradient", "").partition(" points") for line in small.differences().splitlines()[1:-1]]
    assert [(line, rest.rpartition("): ")[2]) for line, _, rest in parts] == [
        ("halfcheetah-expert TD3+BC, transitions 10000, SNIP against dense, over 1 task: +0.0", "equal within 5 points"),
        ("walker2d-expert TD3+BC, transitions 10000, SNIP against dense, over 1 task: +70.0", "different, also after correction"),
        ("walker2d-expert TD3+BC, transitions 10000, Sparse-Reg against dense, over 1 task: +10.0", "different"),
        ("3 of 24 comparisons are done; 1 of them differ after Holm's correction for 24", ""),
        ("TD3+BC, transitions 10000, SNIP against dense, over 2 tasks: +35.0", "different"),
    ]


def test_what_helps_is_shown_beside_dense_networks(program: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = program("learning.recipe")
    found = [recipe.Trained("bc", "snip", "layer_norm", "layer", 250_000, 1e-3, seed, 50.0) for seed in (0, 1, 2)]
    found += [recipe.Trained("bc", "dense", "layer_norm", "none", 250_000, 3e-4, 0, 90.0)]
    found += [recipe.Trained("bc", "snip", "mlp", "none", 1_000_000, 3e-4, seed, 40.0) for seed in (0, 1)]
    monkeypatch.setattr(recipe, "read", lambda: found)
    head, *rows = recipe.recipe()
    cells = {tuple(row[:4]): {name: cell for name, cell in zip(head[4:], row[4:], strict=True) if cell != "-"} for row in rows}
    assert cells == {
        ("BC", "layer norm", "none", "250,000"): {"dense, 0.0003": "90.0 1/3"},
        ("BC", "layer norm", "layer", "250,000"): {"SNIP, 0.001": "50.0"},
        ("BC", "mlp", "none", "1,000,000"): {"SNIP, 0.0003": "40.0 2/3"},
    }


def test_what_helps_has_all_trials_of_the_full_study_that_it_shows() -> None:
    """Both tables are on one page, and are made by two programs."""
    made = {name: json.loads((ROOT / "benchmarks" / "learning" / f"{name}.json").read_text()) for name in ("full", "recipe")}
    shown = {
        (row["algorithm"], row["pruner"], row["seed"]): row["score"]
        for row in made["recipe"]
        if (row["network"], row["rescale"], row["updates"]) == ("mlp", "none", 1_000_000)
    }
    trained = {
        (row["algorithm"], row["pruner"], row["seed"]): round(row["scores"]["1000000"], 2)
        for row in made["full"]
        if row["dataset"] == "winnow/halfcheetah/expert-v1" and row["pruner"] in ("snip", "random_erk")
    }
    assert shown == trained, "run `python -m benchmarks.learning.recipe`"
    assert len(shown) >= 16


def test_no_row_is_lost_where_a_sweep_was_not_shipped(program: Any, tmp_path: Path) -> None:
    pages, file = program("learning.pages"), tmp_path / "full.json"
    pages.write(file, [{"seed": 1}, {"seed": 0}])
    with pytest.raises(SystemExit, match=r"full\.json has 2 rows and would keep 1: `winnow adopt` and `winnow sync`"):
        pages.write(file, [{"seed": 2}])
    assert file.read_text() == '[\n{"seed": 0},\n{"seed": 1}\n]\n'


def settings_trials(settings: Any, scores: dict[tuple[str, int, float], float]) -> list[Any]:
    """Every trial of BC's settings, with a score by pruner, calibration and learning rate; the seeds differ by 2 points."""
    return [
        settings.Trained("bc", dataset, pruner, batches, rate, seed, scores.get((pruner, batches, rate), 40.0) + 2 * seed - 1)
        for dataset in settings.PRUNED.datasets
        for pruner, batches in (("dense", 1), *settings.METHODS)
        for rate in settings.RATES
        for seed in settings.PRUNED.seeds
    ]


@pytest.mark.parametrize(
    ("scores", "taken"),
    [
        ({}, ["0.0003", "0.0003", "1 x 256"]),  # all alike: the defaults
        ({("dense", 1, 1e-3): 50.0}, ["0.001", "0.0003", "1 x 256"]),
        ({("snip", 1, 1e-3): 46.1}, ["0.0003", "0.001", "1 x 256"]),  # 6.1 of 40 for a third of the networks: 0.051
        ({("snip", 1, 1e-3): 45.9}, ["0.0003", "0.0003", "1 x 256"]),  # 0.049, a tie
        ({("snip", 16, 3e-4): 43.0}, ["0.0003", "0.0003", "16 x 256"]),
        ({("snip", 16, 1e-3): 60.0}, ["0.0003", "0.001", "16 x 256"]),  # of the calibrations at the learning rate that was taken
        ({("snip", 16, 3e-4): 60.0, ("random_erk", 1, 1e-3): 70.0}, ["0.0003", "0.001", "1 x 256"]),
    ],
)
def test_settings_are_chosen_by_the_rule(program: Any, scores: dict[tuple[str, int, float], float], taken: list[str]) -> None:
    settings = program("learning.settings")
    assert [choice.taken for choice in settings.choices(settings_trials(settings, scores)) if choice.algorithm == "bc"] == taken


def test_settings_stay_open_where_a_trial_is_missing(program: Any) -> None:
    settings = program("learning.settings")
    trials = [
        trial for trial in settings_trials(settings, {}) if (trial.pruner, trial.seed, trial.dataset) != ("random_erk", 1, trial.dataset)
    ]
    dense, pruned, calibration = [choice for choice in settings.choices(trials) if choice.algorithm == "bc"]
    assert (dense.taken, pruned.taken, pruned.missing, calibration.taken) == ("0.0003", "", 3, "")


def test_every_table_that_a_program_fills_has_its_place() -> None:
    pages = "".join(page.read_text() for page in (*ROOT.glob("docs/*.md"), ROOT / "README.md", ROOT / "benchmarks" / "README.md"))
    named = {name for file in ROOT.glob("benchmarks/**/*.py") for name in re.findall(r'fill\(\S+, "(\w+)"', file.read_text())}
    assert {"retained", "dense", "layers", "scores"} <= named
    assert [name for name in named if f"<!-- {name} -->" not in pages] == []


def test_a_share_is_of_the_seeds_that_both_have(program: Any) -> None:
    cell = program("learning.retained").cell
    assert cell({0: 30.0, 1: 90.0}, {1: 100.0, 2: 10.0}) == "60.0 (30.0 to 90.0), 90 % n=2"
    assert cell({0: 30.0, 1: 60.0, 2: 90.0}, {}) == "60.0 (30.0 to 90.0)"
    assert cell({}, {0: 1.0}) == ""


def test_every_score_of_the_retained_share_is_in_its_tables(program: Any) -> None:
    """As many seeds in the cells as scores in the file."""
    retained = program("learning.retained")
    found = retained.load()
    assert sum(len(entry["scores"]) for entry in found.values()) == sum(
        len(seeds) for own in retained.cells(found).values() for seeds in own.values()
    )
    rows = [*list(retained.table(found))[1:], *list(retained.dense_table(found))[1:]]
    filled = sum(bool(cell) for row in rows for cell in row if "(" in cell)
    assert filled == sum(len(own) for own in retained.cells(found).values())


def test_d3rlpys_trial_is_told_apart_by_its_hyperparameters(program: Any) -> None:
    place_of = program("learning.methods").place_of
    row = {"dataset": "winnow/hopper/expert-v0", "algorithm": "rebrac", "updates": 10_000, "hyper": {"actor_penalty": 0.1}}
    assert place_of(row) == ("hopper-expert", "ReBRAC actor_penalty 0.1", "10,000")
    assert place_of(row | {"hyper": {}})[1] == "ReBRAC"
