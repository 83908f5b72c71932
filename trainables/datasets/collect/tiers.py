"""D4RL's tiers: which of a learner's snapshots plays how many of a dataset's transitions."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from trainables.datasets.collect import policy
from trainables.errors import UserError, unknown

TIERS = ("random", "medium", "medium-replay", "medium-expert", "expert")

MEANING = {
    "random": "uniformly random actions",
    "medium": "one snapshot of the learner, about half way in normalized score; actions sampled as in training",
    "medium-replay": (
        "what the learner saw up to the medium snapshot, recorded again: its uniformly random start if it had one, then its snapshots in "
        "the order of training, each for the share of environment steps it is nearest to, actions sampled as in training. It is not the "
        "replay buffer itself: the policy changes between snapshots only, and episodes are fresh"
    ),
    "replay": (
        "the learner's own replay buffer up to the medium snapshot: whole episodes, evenly spread over the training, "
        "simulated again from their starts and actions"
    ),
    "medium-expert": "half medium, half expert, recorded anew",
    "expert": "the best snapshot of the learner; actions sampled as in training",
}


@dataclass(frozen=True)
class Segment:
    """`transitions` played by the snapshot taken after `snapshot` environment steps, or by uniform actions where it is None."""

    snapshot: int | None
    transitions: int


def parse(dataset: str) -> tuple[str, str, int]:
    """(family, tier, version) of an id `winnow/<family>/<tier>-v<version>`; raises UserError with all ids that can be recorded."""
    match = re.fullmatch(r"winnow/([\w-]+)/([\w-]+)-v(\d+)", dataset)
    if not match or dataset not in all_ids():
        raise unknown("dataset to record", dataset, all_ids())
    return match[1], match[2], int(match[3])


def all_ids() -> list[str]:
    """Every dataset that the shipped policies can record; random actions have no second version."""
    return [
        f"winnow/{family}/{tier}-v{version}"
        for version in policy.versions()
        for family in policy.families(version)
        for tier in TIERS
        if not (version and tier == "random")
    ]


def segments(tier: str, card: dict[str, Any], transitions: int) -> list[Segment]:
    """How a tier of `transitions` rows is put together from the family's snapshots; segments of no transitions are left out."""
    if transitions < 1:
        raise UserError(f"transitions {transitions} is not an integer >= 1")
    medium, expert = card["tiers"]["medium"]["snapshot"], card["tiers"]["expert"]["snapshot"]
    half = transitions // 2
    if replay_of(tier, card):
        return []
    if tier == "medium-replay":
        start, shown = card["settings"].get("learning_starts", 0), card["tiers"]["medium-replay"]["snapshots"]
        # A snapshot stands for the environment steps that it is nearest to, the last one up to the medium policy.
        ends = [start, *((a + b) / 2 for a, b in pairwise(shown)), medium]
        marks = [round(transitions * end / medium) for end in ends]
        parts = [Segment(s, b - a) for s, (a, b) in zip([None, *shown], pairwise([0, *marks]), strict=True)]
    else:
        parts = {
            "random": [Segment(None, transitions)],
            "medium": [Segment(medium, transitions)],
            "medium-expert": [Segment(medium, half), Segment(expert, transitions - half)],
            "expert": [Segment(expert, transitions)],
        }[tier]
    return [segment for segment in parts if segment.transitions > 0]


def replay_of(tier: str, card: dict[str, Any]) -> str:
    """The file of the learner's own replay buffer, where a tier is made of it; empty where it is played by snapshots."""
    return str(card["tiers"].get(tier, {}).get("replay", ""))


def to_json(parts: list[Segment]) -> list[dict[str, Any]]:
    return [asdict(segment) for segment in parts]
