"""The overlap of a sweep's masks: real masks in a storage folder, compared with counts made by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from service.__main__ import main
from service.ledger.manifest import Manifest
from service.results.mask_overlap import by_chance, overlaps
from service.storage import paths
from tests.stacks import World, small_trial
from trainables.pruning.mask_statistics import jaccard
from trainables.training import files_of_trial


@pytest.fixture
def swept(tmp_path: Path) -> tuple[Path, World]:
    """SNIP with three seeds, ERK with two, a dense trial, two small dense ones, and a trial without masks."""
    trials = [small_trial("td3_bc", "snip", 0.5, seed) for seed in (0, 1, 2)] + [
        small_trial("td3_bc", "random_erk", 0.5, s) for s in (0, 1)
    ]
    world = World([*trials, small_trial("td3_bc")]).start()
    files_of_trial.write_masks(tmp_path, world.stack, world.masks, [{}] * 6)
    small = World([small_trial("td3_bc", "small_dense", 0.5, seed) for seed in (0, 1)]).start()
    files_of_trial.write_masks(tmp_path, small.stack, small.masks, [{}] * 2)
    journal = Manifest(tmp_path, "smoke")
    journal.plan([*small.stack.trials, *world.stack.trials, small_trial("td3_bc", "snip", 0.5, 7)])
    journal.close()
    return tmp_path, world


def test_seeds_are_compared_with_seeds_and_pruners_seed_by_seed(swept: tuple[Path, World]) -> None:
    storage, world = swept
    journal = Manifest(storage, "smoke")
    found = {(o.network, *o.methods): o for o in overlaps(journal.ledger, storage)}
    journal.close()
    own = [[layer[member : member + 1] for layer in world.masks["critic"]] for member in range(6)]
    snip = "snip+calibration_size=64"
    methods = ((snip, snip), ("random_erk", "random_erk"), (snip, "random_erk"))
    assert found.keys() == {(n, *m) for n in ("actor", "critic") for m in methods}
    between = found["critic", snip, snip]
    assert between.pairs == 3
    assert between.mean == pytest.approx((jaccard(own[0], own[1]) + jaccard(own[0], own[2]) + jaccard(own[1], own[2])) / 3)
    mixed = found["critic", snip, "random_erk"]
    assert mixed.pairs == 2
    assert mixed.mean == pytest.approx((jaccard(own[0], own[3]) + jaccard(own[1], own[4])) / 2)
    assert mixed.chance == pytest.approx((by_chance(own[0], own[3]) + by_chance(own[1], own[4])) / 2)


def test_versions_of_a_dataset_are_not_compared(swept: tuple[Path, World], capsys: pytest.CaptureFixture[str]) -> None:
    """Of SNIP's three seeds two were trained on one version, of which one apart; ERK's two seeds on one each, the first afresh."""
    storage, world = swept
    hashes = ["ab" * 32, "ab" * 32, "cd" * 32, "ab" * 32, "cd" * 32]
    changed = {1: {"data": hashes[0][:16]}, 3: {"fresh": "smoke"}}
    trials = [replace(trial, **changed.get(number, {})) for number, trial in enumerate(world.stack.trials[:5])]
    for number in changed:
        paths.trial(storage, world.stack.trials[number].key).rename(paths.trial(storage, trials[number].key))
    for trial, hash in zip(trials, hashes, strict=True):
        lines = [{"kind": "attempt", "dataset_hash": hash}, {"kind": "finished", "update": 4}]
        paths.spool(storage, trial.key).write_text("".join(json.dumps(line) + "\n" for line in lines))
    journal = Manifest(storage, "smoke")
    journal.plan(trials)
    found = [(o.data, *o.methods, o.pairs) for o in overlaps(journal.ledger, storage) if o.network == "actor"]
    journal.close()
    snip, a, c = "snip+calibration_size=64", hashes[0][:12], hashes[2][:12]
    assert found == [(a, snip, snip, 1), (a, snip, "random_erk", 1)]
    assert main(["overlap", "smoke", "--storage", str(storage)]) == 0
    text = capsys.readouterr().out
    assert f"TD3+BC on test-made-up at 50 % (test/made-up-v0, data {a}): actor" in text
    assert c not in text, "its masks have nothing to be compared with"


def test_tasks_of_one_name_have_a_table_each(swept: tuple[Path, World], capsys: pytest.CaptureFixture[str]) -> None:
    storage, _ = swept
    longer = World([replace(small_trial("td3_bc", "snip", 0.5, seed), updates=5) for seed in (0, 1)]).start()
    files_of_trial.write_masks(storage, longer.stack, longer.masks, [{}] * 2)
    journal = Manifest(storage, "smoke")
    journal.plan(longer.stack.trials)
    journal.close()
    assert main(["overlap", "smoke", "--storage", str(storage)]) == 0
    titles = [line for line in capsys.readouterr().out.splitlines() if line.endswith(": actor")]
    assert len(titles) == len(set(titles)) == 2
    assert any(", 5 updates" in title for title in titles)


def test_settings_of_a_pruner_make_a_method_and_a_copy_counts_once(swept: tuple[Path, World], capsys: pytest.CaptureFixture[str]) -> None:
    """They are compared with the default and with other pruners, seed by seed, and never taken for one method."""
    storage, world = swept
    by_delta = {delta: [small_trial("td3_bc", "rigl", 0.5, seed, pruning={"delta": delta}) for seed in (0, 1)] for delta in (1000, 2)}
    copies = [replace(trial, fresh="smoke") for trial in world.stack.trials[:2]]
    for trials in (*by_delta.values(), copies):
        made = World(trials).start()
        files_of_trial.write_masks(storage, made.stack, made.masks, [{}] * 2)
    journal = Manifest(storage, "smoke")
    journal.plan([*by_delta[1000], *by_delta[2], *copies])
    found = {o.methods: o.pairs for o in overlaps(journal.ledger, storage) if o.network == "actor"}
    journal.close()
    snip, erk, rigl, other = "snip+calibration_size=64", "random_erk", "rigl+calibration_size=64", "rigl+calibration_size=64+delta=2"
    assert {frozenset(methods): pairs for methods, pairs in found.items()} == {
        frozenset({snip}): 3, frozenset({erk}): 1, frozenset({rigl}): 1, frozenset({other}): 1,
        frozenset({snip, erk}): 2, frozenset({snip, rigl}): 2, frozenset({snip, other}): 2,
        frozenset({erk, rigl}): 2, frozenset({erk, other}): 2, frozenset({rigl, other}): 2,
    }  # fmt: skip
    assert main(["overlap", "smoke", "--storage", str(storage)]) == 0
    assert capsys.readouterr().out.count("): actor\n") == 1


@pytest.mark.parametrize("differing", ["episodes", "final_episodes"])
def test_tasks_that_differ_in_their_evaluations_have_titles_that_say_so(
    differing: str, swept: tuple[Path, World], capsys: pytest.CaptureFixture[str]
) -> None:
    storage, _ = swept
    other = World([replace(small_trial("td3_bc", "snip", 0.5, seed), **{differing: 7}) for seed in (0, 1)]).start()
    files_of_trial.write_masks(storage, other.stack, other.masks, [{}] * 2)
    journal = Manifest(storage, "smoke")
    journal.plan(other.stack.trials)
    journal.close()
    assert main(["overlap", "smoke", "--storage", str(storage)]) == 0
    titles = [line for line in capsys.readouterr().out.splitlines() if line.endswith(": actor")]
    assert sum(f", {differing} 7)" in title for title in titles) == 1
    assert len(titles) == len(set(titles)) == 2


def test_random_masks_overlap_by_chance_and_no_more() -> None:
    wide = {"hidden": (256, 256)}
    world = World([small_trial("bc", "random_uniform", 0.8, seed, hyper=wide) for seed in (0, 1)]).start()
    a, b = ([layer[member : member + 1] for layer in world.masks["actor"]] for member in (0, 1))
    assert by_chance(a, b) == pytest.approx(0.2 / 1.8, abs=2e-3)
    assert jaccard(a, b) == pytest.approx(by_chance(a, b), abs=5e-3)
    assert by_chance(a, a) < jaccard(a, a) == 1


def test_the_command(swept: tuple[Path, World], capsys: pytest.CaptureFixture[str]) -> None:
    storage, _ = swept
    assert main(["overlap", "smoke", "--storage", str(storage)]) == 0
    text = capsys.readouterr().out
    assert "TD3+BC on test-made-up at 50 % (test/made-up-v0): critic" in text
    assert "dense" not in text
    assert main(["overlap", "smoke", "--storage", str(storage), "--json"]) == 0
    cells = json.loads(capsys.readouterr().out)
    assert len(cells) == 6
    assert f"{cells[0]['mean']:.3f} ({cells[0]['chance']:.3f})" in text
    assert main(["overlap", "none", "--storage", str(storage)]) == 2
