"""`rollout`: a policy at play."""

from __future__ import annotations

import argparse
from pathlib import Path

from service.cli import arguments as shared
from trainables.environments import name_modules

HELP = "play a trained policy's evaluation episodes, optionally on video"
EXAMPLE = "rollout 3f2a --episodes 3 --video cheetah.mp4"


def arguments(parser: argparse.ArgumentParser) -> None:
    shared.done_trial(parser)
    help = "play the first N episodes of the trial's evaluations (default 1)"
    parser.add_argument("--episodes", type=shared.positive, default=1, metavar="N", help=help)
    parser.add_argument("--video", type=Path, metavar="FILE.mp4", help="film the episodes; needs no screen")
    shared.imports(parser)
    shared.as_json(parser)


def call(arguments: argparse.Namespace, storage: Path) -> int:
    from service.delivery.rollout import rollout

    name_modules(getattr(arguments, "imports", ()))
    output = print if not arguments.json else lambda _: None
    found = rollout(arguments.trial, storage, episodes=arguments.episodes, video=arguments.video, sweep=arguments.sweep, output=output)
    if arguments.json:
        shared.show(arguments, "", found)
    return 0
