"""The command that records datasets, as `python -m trainables.datasets` and `python -m trainables.datasets.collect` both have it.

Importing this file imports neither numpy nor torch: a parser is built with it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

from trainables.datasets import local
from trainables.errors import UserError
from trainables.output import to_json
from trainables.trial.numbers import integer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to record, and how much of it."""
    ids = parser.add_argument("datasets", nargs="*", metavar="ID", help="such as winnow/halfcheetah/expert-v0; `list` shows all")
    ids.completer = _ids  # type: ignore[attr-defined]
    parser.add_argument("--all", action="store_true", help="record every dataset that can be")
    parser.add_argument("--transitions", default="100k", metavar="N", help="how many transitions, e.g. 20000 or 20k (default 100k)")
    parser.add_argument("--seed", default="0", metavar="N", help="seed of the recording (default 0)")
    parser.add_argument("--force", action="store_true", help="replace the dataset if it exists")


def _ids(**_: object) -> list[str]:
    """What Tab offers."""
    from trainables.datasets.collect import tiers

    return tiers.all_ids()


def record(given: argparse.Namespace) -> int:
    """Record the datasets that the arguments name, with a line about each; returns the exit code."""
    from trainables.datasets.collect import policy, tiers
    from trainables.datasets.collect.record import record as write
    from trainables.datasets.table import load_table

    as_json = getattr(given, "json", False)  # `python -m trainables.datasets.collect record` has none
    names = tiers.all_ids() if given.all else given.datasets
    if not names:
        raise UserError(f"no dataset given; there are: {', '.join(tiers.all_ids())}, or --all")
    transitions, seed = integer("--transitions", given.transitions), integer("--seed", given.seed)
    if seed < 0:
        raise UserError(f"seed {seed} is not an integer >= 0")
    for name in names:  # all are checked before the first is recorded
        family, tier, version = tiers.parse(name)
        tiers.segments(tier, policy.card(family, version), transitions)
    if reason := policy.why_not_exact():  # the kernels are compiled here, before the time left is estimated
        print(f"warning: the last bits of a recording, and so its hash, depend on this processor: {reason}", file=sys.stderr)
    found = []
    for name in names:
        kept = local.exists(name) and not given.force
        write(name, transitions, seed, given.force, None if kept else _Line(name))
        table = load_table(name)
        mean = float(table.episode_returns.mean())
        found.append(table.in_brief() | {"recorded": not kept})
        if as_json:
            continue
        print(
            f"{name}: {'kept' if kept else 'recorded'}, {len(table)} transitions in {len(table.episode_returns)} episodes, "
            f"mean return {mean:.0f}, normalized {table.reference.normalize(mean):.1f}, hash {table.hash[:12]}"
            + (f" ({table.note})" if table.note else "")
            + (_otherwise(name, transitions, seed) if kept else "")
        )
    if as_json:
        print(to_json(found))
    return 0


def _otherwise(dataset: str, transitions: int, seed: int) -> str:
    """What to say of a dataset that is kept although it was recorded with other settings than the given ones; empty where it was not."""
    about = json.loads((local.folder(dataset) / "data" / "metadata.json").read_text()).get("behaviour", {})
    if "segments" not in about or "seed" not in about:  # made of a learner's replay buffer, or not by us
        return ""
    was = sum(part["transitions"] for part in about["segments"]), about["seed"]
    if was == (transitions, seed):
        return ""
    return f"; recorded with --transitions {was[0]} --seed {was[1]}, not {transitions} and {seed}: --force replaces it"


class _Line:
    """A progress line on stderr for waits over two seconds, once a second, in place on a terminal."""

    def __init__(self, name: str) -> None:
        self.name, self.started, self.shown = name, time.monotonic(), 1.0  # seconds from the start to the last line shown

    def __call__(self, done: int, total: int) -> None:
        took = time.monotonic() - self.started
        every = 1.0 if sys.stderr.isatty() else 10.0
        if took - self.shown >= every or (done == total and self.shown > 1.0):
            self.shown = took
            end = "\r" if sys.stderr.isatty() and done < total else "\n"
            left = took * (total - done) / done
            print(f"{self.name}: {done} of {total} transitions, {left:.0f} s left ", end=end, file=sys.stderr, flush=True)
