"""Commands of `python -m trainables.datasets.collect`: record, list, train, ship."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from trainables.command_line import Parser
from trainables.datasets import local
from trainables.datasets.collect import policy, tiers
from trainables.datasets.collect.record_command import add_arguments, record
from trainables.errors import UserError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns 0, or 2 after an error of the user, which is one line on stderr."""
    given = _parser().parse_args(arguments)
    try:
        return int(given.act(given) or 0)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m trainables.datasets.collect", description="Record datasets with the shipped policies.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    recording = commands.add_parser("record", help="record a dataset (offline, seeded); keep one that exists")
    add_arguments(recording)
    recording.set_defaults(act=record)

    listing = commands.add_parser("list", help="list what can be recorded, and what is on this machine")
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
    ship.add_argument(
        "--version", type=int, default=0, metavar="N", help="version of the datasets; from 1 on with the learner's own buffer"
    )
    ship.set_defaults(act=_ship)
    return parser


def _list(given: argparse.Namespace) -> None:
    for name in tiers.all_ids():
        family, tier, version = tiers.parse(name)
        known = policy.card(family, version)["tiers"].get(tier, {}).get("returns", {}).get("sampled")
        score = f"return {known['mean']:7.0f} +- {known['std']:5.0f}, normalized {known['normalized']:5.1f}" if known else "a mixture"
        print(f"{name:38} {'here' if local.exists(name) else '-':6} {score}")


def _train(given: argparse.Namespace) -> None:
    from trainables.datasets.collect.train import train

    train(given.environment, given.algorithm, given.steps, given.seed, given.to)


def _ship(given: argparse.Namespace) -> None:
    from trainables.datasets.collect.ship import ship

    for run in given.runs:
        path = ship(run, given.to, given.version)
        size = path.with_suffix(".safetensors").stat().st_size
        print(f"{run} -> {path} and {path.with_suffix('.safetensors').name} ({size / 1e6:.2f} MB)")


if __name__ == "__main__":
    sys.exit(main())
