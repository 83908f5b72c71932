"""`plan`: what a run would do."""

from __future__ import annotations

import argparse
from pathlib import Path

from service.cli import arguments as shared
from service.cli import training

HELP = "show what a run would do, without starting anything"
EXAMPLE = "plan quickstart --set seeds=0,1,2"


def arguments(parser: argparse.ArgumentParser) -> None:
    shared.sweep(parser)
    training.settings(parser)
    places = "cores, GPUs and MIG slices to forecast the time for (default: those of this machine), e.g. cpu=64,gpu=8,1g.5gb=7"
    parser.add_argument("--places", help=places, metavar="KIND=N,...")
    prices = "price of an hour of a core and of a GPU (default: [prices] of winnow.toml), e.g. cpu=0.04,gpu=2.5"
    parser.add_argument("--prices", help=prices, metavar="KIND=PRICE,...")
    shared.as_json(parser)


def call(arguments: argparse.Namespace, storage: Path) -> int:
    from service.planning.description import describe, to_json
    from service.planning.makespan import amounts, forecast
    from service.planning.plan import make_plan, progress_of
    from trainables import project

    places = {kind: int(count) for kind, count in amounts(arguments.places, "--places", whole=True).items()} if arguments.places else None
    prices = amounts(arguments.prices, "--prices", whole=False) if arguments.prices else project.settings().get("prices", {})
    plan = make_plan(arguments.sweep, training.run_settings(arguments), storage=storage)
    expected = forecast(plan, places, prices, progress_of(storage, plan.todo))
    text = "\n".join([describe(plan), *(expected.lines() if expected else ())])
    shared.show(arguments, text, to_json(plan) | {"forecast": expected.to_json() if expected else None})
    return 0
