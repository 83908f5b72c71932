from __future__ import annotations

import pytest

from service.terminal.live_line import Progress


def test_time_left_is_updates_left_over_the_speed_of_all_trials() -> None:
    progress = Progress({"a": 1000, "b": 1000, "c": 1000})
    assert "0/3 done | 0 running | 0 failed" in progress.line()
    progress.start("a", 0, 0.0)
    progress.start("b", 500, 0.0)  # resumed: what it had is not speed
    progress.at("a", 200, 10.0)
    progress.at("b", 700, 10.0)
    assert progress.speed() == pytest.approx(40)
    assert progress.seconds_left() == pytest.approx((800 + 300 + 1000) / 40)


def test_what_is_pruned_is_expected_to_cost_less_than_the_dense_trials_before_it() -> None:
    progress = Progress({})
    progress.expect({"dense": 1000, "pruned": 1000}, costs={"dense": 0.01, "pruned": 0.001})
    progress.start("dense", 0, 0.0)
    progress.at("dense", 500, 10.0)  # twice as slow as was said of it
    assert progress.speed() == pytest.approx(50)
    assert progress.seconds_left() == pytest.approx(10 + 2)
    progress.expect({}, later=2, updates=1000)
    assert progress.seconds_left() == pytest.approx(10 + 2 + 2 * 11), "of what is not known yet, as the mean of what is"


def test_ended_trials_leave_no_time_and_are_counted_by_how_they_ended() -> None:
    progress = Progress({"a": 100, "b": 100})
    for key in ("a", "b"):
        progress.start(key, 0, 0.0)
    progress.at("a", 50, 5.0)
    progress.end("a", "diverged")
    progress.at("b", 100, 10.0)
    progress.end("b", "done")
    assert progress.seconds_left() == 0
    assert "1/2 done | 0 running | 1 failed" in progress.line()


def test_a_trial_that_is_tried_again_is_running_not_failed() -> None:
    progress = Progress({"a": 100})
    progress.start("a", 0, 0.0)
    progress.end("a", "failed")
    progress.start("a", 20, 1.0)
    assert "0/1 done | 1 running | 0 failed" in progress.line()


def test_scores_so_far_are_means_over_the_trials_of_a_cell() -> None:
    progress = Progress({"a": 100, "b": 100})
    progress.score("a", "snip@95", 10.0)
    progress.score("b", "snip@95", 30.0)
    progress.score("b", "snip@95", 50.0)
    assert "scores so far: snip@95 30" in progress.line()


def test_a_line_costs_the_same_whatever_the_number_of_trials() -> None:
    """A driver writes it at each event, so one that counts all trials makes a sweep of n trials cost n x n."""

    class Counted(dict[str, int]):
        read = 0

        def __getitem__(self, key: str) -> int:
            Counted.read += 1
            return super().__getitem__(key)

    def reads(count: int) -> int:
        progress = Progress({})
        progress.expect({str(number): 100 for number in range(count)})
        progress._goal = Counted(progress._goal)
        progress.line()
        for number in range(count // 2):
            progress.start(str(number), 0, float(number))
            progress.at(str(number), 50, number + 0.5)
            progress.end(str(number), "done")
        Counted.read = 0
        assert f"{count // 2}/{count} done" in progress.line()
        return Counted.read

    assert reads(20) == reads(2000)


def test_what_is_left_follows_events_in_any_order() -> None:
    progress = Progress({"a": 100, "b": 100, "c": 100})
    progress.start("a", 0, 0.0)
    progress.at("a", 100, 10.0)
    assert progress.seconds_left() == pytest.approx(20)
    progress.end("a", "failed")
    progress.end("a", "done")  # said twice
    progress.start("b", 50, 10.0)
    assert progress.seconds_left() == pytest.approx(15)
    progress.end("b", "failed")
    assert progress.seconds_left() == pytest.approx(10)
    progress.start("b", 20, 10.0)  # from an older checkpoint
    assert progress.seconds_left() == pytest.approx(18)
    assert "1/3 done | 1 running | 0 failed" in progress.line()


def test_a_line_names_some_cells_of_many() -> None:
    progress = Progress({str(number): 1 for number in range(40)})
    for number in range(40):
        progress.score(str(number), f"snip@{number:02}", float(number))
    assert progress.line().endswith("snip@10 10  snip@11 11  and 28 more cells")
