from __future__ import annotations

import pytest

from service.ledger.errors import IllegalTransitionError, StaleEpochError
from service.ledger.ledger import TRANSITIONS, Event, Ledger
from service.ledger.others import done_elsewhere, settle
from trainables.trial import Trial

TRIAL = Trial(dataset="test/hopper/random-v0", algorithm="bc")


def planned(trial: Trial = TRIAL, epoch: int = 1) -> Event:
    return Event(key=trial.key, state="planned", epoch=epoch, detail={"trial": trial.to_json()})


def opened(epoch: int, owner: str = "here") -> Event:
    return Event(key="", state="opened", epoch=epoch, detail={"owner": owner})


def ledger_in(state: str) -> Ledger:
    """A ledger that knows one trial in a state, by the shortest way there."""
    ways = {"": [], "planned": [], "leased": ["leased"], "done": ["leased", "done"], "failed": ["leased", "failed"]}
    ledger = Ledger()
    ledger.apply(opened(1))
    if state:
        ledger.apply(planned())
    for step in ways.get(state, ["leased", state]):
        ledger.apply(Event(key=TRIAL.key, state=step, epoch=1))
    return ledger


@pytest.mark.parametrize("before", TRANSITIONS)
@pytest.mark.parametrize("after", ["planned", "leased", "done", "failed", "diverged"])
def test_exactly_the_transitions_of_the_table_are_possible(before: str, after: str) -> None:
    ledger = ledger_in(before)
    event = planned() if after == "planned" else Event(key=TRIAL.key, state=after, epoch=1)
    if after in TRANSITIONS[before]:
        ledger.apply(event)
        assert ledger.state(TRIAL.key) == after
    else:
        with pytest.raises(IllegalTransitionError, match=f"cannot become '{after}'"):
            ledger.apply(event)
        assert ledger.state(TRIAL.key) == before


def test_an_illegal_transition_tells_the_trials_story() -> None:
    with pytest.raises(IllegalTransitionError, match=r"bc/hopper-random/dense/s0: .*planned.* -> .*leased.* -> .*done \(epoch 1\)"):
        ledger_in("done").apply(Event(key=TRIAL.key, state="leased", epoch=1))


def test_a_driver_that_was_superseded_can_write_nothing() -> None:
    ledger = ledger_in("leased")
    ledger.apply(opened(2, "elsewhere"))
    with pytest.raises(StaleEpochError, match="elsewhere took over with 2"):
        ledger.apply(Event(key=TRIAL.key, state="done", epoch=1))
    assert ledger.state(TRIAL.key) == "leased"
    ledger.apply(Event(key=TRIAL.key, state="leased", epoch=2))


def test_a_run_that_another_sweep_has_trained_is_not_of_who_asked_for_this_one() -> None:
    ledger, bob = Ledger(), {"user": "bob"}
    ledger.apply(Event(key="", state="opened", epoch=1, detail={"owner": "here", "by": bob}))
    ledger.apply(planned())
    ledger.apply(Event(key=TRIAL.key, state="leased", epoch=1))
    assert ledger.asked_by(ledger.entries[TRIAL.key]) == bob
    for state, detail in (("planned", {}), ("done", {"sweep": "another"})):
        ledger.apply(Event(key=TRIAL.key, state=state, epoch=1, detail=detail))
    assert ledger.asked_by(ledger.entries[TRIAL.key]) == {}
    assert ledger.asked_by() == bob, "but the sweep's run is"


@pytest.mark.parametrize(("state", "after"), [("planned", "done"), ("failed", "done"), ("stopped", "done"), ("leased", "leased"), ("", "")])
def test_what_another_sweep_has_done_is_done_unless_a_worker_of_this_one_has_it(state: str, after: str) -> None:
    settled = settle({"smoke": ledger_in(state), "another": ledger_in("done")}, "smoke")
    assert settled.state(TRIAL.key) == after
    assert not state or after == state or settled.entries[TRIAL.key].detail == {"sweep": "another"}


def test_a_trial_that_is_done_elsewhere_is_of_the_sweep_that_has_trained_it() -> None:
    """Which may be this one, whose own record was forgotten: then of the one that still has it."""
    for trainer, told in (("third", "third"), ("smoke", "another")):
        other = ledger_in("planned")
        other.apply(Event(key=TRIAL.key, state="done", epoch=1, detail={"sweep": trainer}))
        assert done_elsewhere({"smoke": Ledger(), "another": other}, "smoke") == {TRIAL.key: told}
