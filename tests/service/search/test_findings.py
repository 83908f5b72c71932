"""The results of a search as tables: the best first, and what could not be trained."""

from __future__ import annotations

from typing import Any

from service.search.findings import REASONS_SHOWN, SHOWN, Finding, Try, table, to_json


def tried(number: int, *values: float, why: str = "", on_front: bool = False, **params: Any) -> Try:
    state = "infeasible" if why else "done" if values else "failed"
    return Try(number, state, values, params or {"pruner": "snip"}, f"trial {number}", (f"key{number}",), on_front, why)


def test_the_best_suggestions_come_first_and_no_more_than_can_be_read() -> None:
    scores = [float(score) for score in (5, 90, 20, 70, 10, 60, 30, 80, 40, 50, 15, 25)]
    found = Finding("study", "score", (*(tried(number, score) for number, score in enumerate(scores)), tried(99)))
    assert [each.values[0] for each in found.best()] == sorted(scores, reverse=True)[:SHOWN]
    head, columns, *rows, failed = table(found).splitlines()
    assert failed == "failed: pruner SNIP: "
    assert head == "study: best scores; 12 done, 1 failed"
    assert columns.split() == ["score", "pruner", "trial", "keys"]
    assert [row.split()[0] for row in rows] == [f"{score:.1f}" for score in sorted(scores, reverse=True)[:SHOWN]]
    assert len(to_json([found])[0]["tries"]) == 13, "programs get all"


def test_a_front_is_what_no_other_beats_the_densest_first() -> None:
    found = Finding("study", "pareto", (tried(0, 50.0, 0.1, on_front=True), tried(1, 40.0, 0.2), tried(2, 90.0, 0.9, on_front=True)))
    assert [each.number for each in found.best()] == [2, 0]
    assert [row.split()[:3] for row in table(found).splitlines()[2:]] == [["90.0", "90.00", "%"], ["50.0", "10.00", "%"]]


def test_of_many_infeasible_suggestions_a_few_are_named() -> None:
    many = [tried(number, why="no path is left", pruner="random_erk", sparsity=0.98765432) for number in range(REASONS_SHOWN + 2)]
    lines = table(Finding("study", "score", tuple(many))).splitlines()
    assert lines[0] == f"study: best scores; {len(many)} infeasible"
    assert lines[1:-1] == ["infeasible: pruner Random (ERK), sparsity 0.9877: no path is left"] * REASONS_SHOWN
    assert lines[-1] == "and 2 more infeasible ones (--json)"
    assert table(Finding("study", "score", ())) == "study: best scores; nothing suggested yet"
