from __future__ import annotations

import pytest

from service.ledger.errors import IllegalTransitionError, StaleEpochError
from service.ledger.ledger import TRANSITIONS, Event, Ledger
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
