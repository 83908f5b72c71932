"""`transitions`: a dataset cut to at most so many, in whole episodes. Imports neither numpy nor torch."""

from __future__ import annotations

from trainables.errors import UserError


def check(dataset: str, transitions: int, there: int, longest: int) -> None:
    """Raise UserError unless so many are fewer than the dataset has and hold its longest episode; 0 takes all.

    A trial with `transitions` is another trial, so one that cuts nothing off would be trained twice; and with fewer than an episode has,
    it would depend on the seed whether there is one that fits."""
    if transitions and transitions >= there:
        raise UserError(f"transitions {transitions} of {dataset!r} cut nothing off: it has {there}; transitions=all takes all")
    if transitions and transitions < longest:
        raise UserError(f"transitions {transitions} of {dataset!r} hold no whole episode: they have up to {longest}")
