"""Commands of `python -m trainables.datasets.collect`: record, list, train, ship."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from trainables.datasets import local
from trainables.datasets.__main__ import add_recording
from trainables.datasets.collect import policy, tiers
from trainables.errors import UserError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 when done, 2 for input that the user can mend (said in one line on stderr)."""
    given = _parser().parse_args(arguments)
    try:
        return int(given.act(given) or 0)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m trainables.datasets.collect", description="Record datasets with the shipped policies.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    recording = commands.add_parser("record", help="record a dataset (offline, seeded); one that exists is kept")
    add_recording(recording)
    recording.set_defaults(act=record)

    listing = commands.add_parser("list", help="what can be recorded, and what is on this machine")
    listing.set_defaults(act=_list)

    train = commands.add_parser("train", help="train a behaviour policy (needs the extra [collect]); resumes")
    train.add_argument("environment", help="such as HalfCheetah-v5")
    train.add_argument("--algorithm", default="tqc", help="tqc (default) or ppo")
    train.add_argument("--steps", type=int, default=1_000_000)
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--to", type=Path, required=True, metavar="DIR")
    train.set_defaults(act=_train)

    ship = commands.add_parser("ship", help="choose snapshots of a training and write the shipped files")
    ship.add_argument("runs", nargs="+", type=Path, metavar="DIR")
    ship.add_argument("--to", type=Path, default=None, metavar="DIR", help="default: the package's folder of policies")
    ship.set_defaults(act=_ship)
    return parser


def record(given: argparse.Namespace) -> int:
    """Record what `add_recording` asked for; returns the exit code."""
    from trainables.datasets.collect.record import record as write
    from trainables.datasets.table import load_table

    names = tiers.all_ids() if given.all else given.datasets
    if not names:
        raise UserError(f"no dataset given; there are: {', '.join(tiers.all_ids())}, or --all")
    if given.seed < 0:
        raise UserError(f"seed {given.seed} is not an integer >= 0")
    for name in names:  # all are checked before the first is recorded
        tiers.segments(tiers.parse(name)[1], policy.card(tiers.parse(name)[0]), given.transitions)
    for name in names:
        kept = local.exists(name) and not given.force
        write(name, given.transitions, given.seed, given.force, None if kept else _Line(name))
        table = load_table(name)
        mean = float(table.episode_returns.mean())
        print(
            f"{name}: {'kept' if kept else 'recorded'}, {len(table)} transitions in {len(table.episode_returns)} episodes, "
            f"mean return {mean:.0f}, normalized {table.reference.normalize(mean):.1f}, hash {table.hash[:12]}"
            + (f" ({table.note})" if table.note else "")
        )
    return 0


def _list(given: argparse.Namespace) -> None:
    for name in tiers.all_ids():
        family, tier = tiers.parse(name)
        known = policy.card(family)["tiers"].get(tier, {}).get("returns", {}).get("sampled")
        score = f"return {known['mean']:7.0f} +- {known['std']:5.0f}, normalized {known['normalized']:5.1f}" if known else "a mixture"
        print(f"{name:38} {'here' if local.exists(name) else '-':6} {score}")


def _train(given: argparse.Namespace) -> None:
    from trainables.datasets.collect.train import train

    train(given.environment, given.algorithm, given.steps, given.seed, given.to)


def _ship(given: argparse.Namespace) -> None:
    from trainables.datasets.collect.ship import ship

    for run in given.runs:
        path = ship(run, given.to)
        size = path.with_suffix(".safetensors").stat().st_size
        print(f"{run} -> {path} and {path.with_suffix('.safetensors').name} ({size / 1e6:.2f} MB)")


class _Line:
    """A progress line on stderr for waits over two seconds, once a second, in place on a terminal."""

    def __init__(self, name: str) -> None:
        self.name, self.started, self.said = name, time.monotonic(), 1.0

    def __call__(self, done: int, total: int) -> None:
        took = time.monotonic() - self.started
        every = 1.0 if sys.stderr.isatty() else 10.0
        if took - self.said >= every or (done == total and self.said > 1.0):
            self.said = took
            end = "\r" if sys.stderr.isatty() and done < total else "\n"
            left = took * (total - done) / done
            print(f"{self.name}: {done} of {total} transitions, {left:.0f} s left ", end=end, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
