"""The arguments of commands that train, and the settings that they stand for."""

from __future__ import annotations

import argparse
from dataclasses import fields
from typing import Any

from service.cli import arguments as shared
from service.planning.options import DEVICES, HEAVIEST, HOURS, KEEP, PRIORITIES, TrainingOptions, checked, executions, flag
from service.planning.run_settings import RunSettings
from trainables import project
from trainables.environments import named_modules
from trainables.errors import UserError

UNTYPED = TrainingOptions()


def options(parser: argparse.ArgumentParser) -> None:
    """Those of TrainingOptions. An option that is not typed is not among the parsed arguments, so that `resume` can keep the stored one."""

    def add(flag: str, help: str, **how: Any) -> None:
        parser.add_argument(flag, default=argparse.SUPPRESS, help=help, **how)

    where = (
        "train on cores (cpu), GPUs (cuda) or both (all); auto: both where torch can use a GPU, only the GPUs for a search (default auto)"
    )
    add("--device", where, choices=DEVICES)
    pin = "with GPUs and cores in use, train trials that are compared with one another on one kind of device"
    add("--pin", pin, action=argparse.BooleanOptionalAction)
    size = (
        "most trials to train as one model (default: on a CPU 1 to 4, by how many there are; on a GPU as many as fit and add to its speed)"
    )
    add("--stack-size", size, type=shared.positive, metavar="N")
    add("--max-concurrent", "most stacks to train at a time (default: as many as fit)", type=shared.positive, metavar="N")
    share = "share of a GPU per stack (default: as many stacks per GPU as measurements show to raise its speed)"
    add("--gpu-fraction", share, type=_fraction, metavar="F")
    add("--execution", f"how masked layers are computed (default {UNTYPED.execution})", choices=executions())
    add("--tf32", "let GPUs round the factors of matrix products to 10 bits", action=argparse.BooleanOptionalAction)
    every = f"updates between two checkpoints (default {UNTYPED.checkpoint_every})"
    add("--checkpoint-every", every, type=shared.positive, metavar="UPDATES")
    stalled = "end a worker that makes no progress for this long and retry its trials (default: only report it)"
    add("--stalled-after", stalled, type=_seconds, metavar="SECONDS")
    kept = (
        "what to keep of finished trials: all, final (no checkpoints) or curves (nor policies and masks, once MLflow has them; default all)"
    )
    add("--keep", kept, choices=KEEP)
    add("--max-hours", "end at a checkpoint after H hours; run it again to continue", metavar="H")
    add("--max-core-hours", "end at a checkpoint after H core-hours in total", metavar="H")
    add("--max-gpu-hours", "end at a checkpoint after H GPU-hours; a share of a GPU counts as that share", metavar="H")
    add("--until", "end at a checkpoint at this time of day, e.g. 07:00 by this machine's clock or 07:00+02:00", metavar="HH:MM")
    add("--weight", "this sweep's share of a cluster that several sweeps use, relative to theirs (default 1)", metavar="W")
    first = "on such a cluster: high goes before the others, whose trials make way at a checkpoint, low after them (default normal)"
    add("--priority", first, choices=tuple(PRIORITIES))
    shared.imports(parser)


def settings(parser: argparse.ArgumentParser) -> None:
    """All that a run can be asked for, apart from the study's database."""
    shared.overrides(parser)
    options(parser)
    parser.add_argument("--retry-failed", action="store_true", help="retry failed trials")
    fresh = "train separate copies of trials that another sweep in this storage has finished"
    parser.add_argument("--fresh", action="store_true", help=fresh)
    origin(parser)


def origin(parser: argparse.ArgumentParser) -> None:
    """What to do about trials of other data or other code."""
    help = "retrain, as separate trials, what was trained on another version of a dataset"
    parser.add_argument("--new-data", action="store_true", help=help)
    parser.add_argument("--same-code", action="store_true", help="refuse to continue or reuse trials that other code has trained")


def typed_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The training options that were typed, and the modules in $WINNOW_IMPORT."""
    typed = {field.name: getattr(arguments, field.name) for field in fields(TrainingOptions) if hasattr(arguments, field.name)}
    typed |= {name: _typed(name, typed[name], "positive number of hours") for name in HOURS if name in typed}
    if "weight" in typed:
        typed["weight"] = _typed("weight", typed["weight"], f"number in (0, {HEAVIEST:g}]")
    modules = named_modules(typed.get("imports", ()))
    return typed | ({"imports": modules} if modules else {})


def project_options() -> dict[str, Any]:
    """The training options in the [defaults] of the project's winnow.toml; raises UserError for another one or a wrong kind."""
    return checked(project.settings().get("defaults", {}), f" in [defaults] of {project.FILE}")


def run_settings(arguments: argparse.Namespace) -> RunSettings:
    return RunSettings(
        overrides=tuple(arguments.overrides),
        options=TrainingOptions(**project_options() | typed_options(arguments)),
        retry_failed=arguments.retry_failed,
        fresh=arguments.fresh,
        study_storage=getattr(arguments, "study_storage", None),
        new_data=arguments.new_data,
        same_code=arguments.same_code,
        notify=getattr(arguments, "notify", None),
    )


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _seconds(text: str) -> float:
    if not 0 < (value := _number(text)) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of seconds")
    return value


def _typed(name: str, text: str, what: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UserError(f"{flag(name)} {text!r} is not a {what}") from None


def _fraction(text: str) -> float:
    if not 0 < (value := _number(text)) <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is outside (0, 1]")
    return value
