"""One trial or stack with no cluster and no tracking server.

python -m trainables --dataset winnow/halfcheetah/expert-v0 --algorithm td3_bc --pruner snip --sparsity 0.95 --seed 0
python -m trainables --dataset winnow/hopper/medium-v0 --algorithm iql --seed 0 1 2 --updates 50000 --hyper beta=1.0
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainables import failures, plugins, project
from trainables.command_line import Parser
from trainables.environments import name_modules
from trainables.errors import UserError, first_line, unknown
from trainables.output import is_notebook, open_streams, print_any_text
from trainables.trial import CHOICES, MAPPINGS, PLURALS, TRAINING_CHOICES, Stack, Trial, options_of
from trainables.trial.numbers import integer, integers, literal
from trainables.trial.protocols import PROTOCOLS, SET, protocol
from trainables.trial.published import published, reward_shift
from trainables.version import version

METAVARS = {"float": "X", "int": "N"}
NOTES = {"data": "the version of the dataset that a trial's record names, by the beginning of its hash"}
BOOLS = ("true", "false", "1", "0")

if TYPE_CHECKING:
    from trainables.reports import Report


def main(arguments: Sequence[str] | None = None) -> int:
    """Train the trials and print their scores; exit code 0 when done, 1 if a member diverged or memory ran out, 2 for bad input."""
    open_streams()
    print_any_text()
    try:
        project.apply()
        given = vars(parser().parse_args(arguments))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    options = {name: given.pop(name) for name in ("device", "execution", "tf32")}
    storage: Path | None = given.pop("storage")
    modules = given.pop("imports")
    try:
        name_modules(modules)
        stack = stack_of(given)
        if storage:
            check_writable(storage)
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        from trainables.run import run_stack

        if options["device"] == "auto":
            import torch

            options["device"] = "cuda" if torch.cuda.is_available() else "cpu"
        return follow(stack, run_stack(stack, storage, **options))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (RuntimeError, MemoryError) as error:
        if failures.reason(error) != "out_of_memory":
            raise
        print(f"error: not enough memory: {first_line(error)}; take fewer seeds, a smaller batch or a smaller network", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped" + (f"; the same command resumes from {storage}" if storage else ""), file=sys.stderr)
        return 130


def stack_of(given: Mapping[str, Any]) -> Stack:
    """The trials that the parsed arguments stand for, after printing what papers set for them. Raises UserError for values that make no
    sense."""
    given = put({name: value for name, value in given.items() if name != "settings"}, given["settings"])
    use_published, code_base = given.pop("published"), given.pop("protocol")
    given |= values(given)
    if use_published:
        given["hyper"] = show(published(given["algorithm"], given["dataset"])) | given["hyper"]
    if given["reward_shift"] is None:
        given["reward_shift"] = shift = reward_shift(given["algorithm"], given["dataset"])
        if shift:
            say(f"rewards {shift:+g}, as the authors of {given['algorithm']} do; --reward-shift 0 leaves them as they are")
    given = with_protocol(given, protocol(code_base, given["algorithm"]))
    return Stack(tuple(Trial(**(given | {"seed": seed})) for seed in given["seed"]))


def put(given: Mapping[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """What was given, with `--set NAME=VALUE` in a sweep's words: `seeds=0,1`, `hyper.beta=1.0`, `published=1`.

    Raises UserError for another name, and for a value of the wrong kind."""
    singular, kinds = {several: one for one, several in PLURALS.items()}, {field.name: str(field.type) for field in fields(Trial)}
    kinds |= {"published": "bool"}
    changed = {name: list(value) if isinstance(value, list) else value for name, value in given.items()}
    for setting in settings:
        name, equals, text = setting.partition("=")
        name = singular.get(name.strip(), name.strip())
        mapping, _, key = name.partition(".")
        if not equals:
            raise UserError(f"--set {setting!r} is not of the form name=value, e.g. seeds=0,1,2")
        if key and mapping in MAPPINGS:
            changed[mapping].append(f"{key}={text}")
        elif name not in changed or name in (*MAPPINGS, "data"):
            raise unknown("setting", name, [*(name for name in changed if name not in MAPPINGS), *(f"{each}.<name>" for each in MAPPINGS)])
        elif kinds.get(name) == "bool":
            if text.lower() not in BOOLS:
                raise unknown(name, text, BOOLS)
            changed[name] = text.lower() in ("true", "1")
        elif kinds.get(name) == "float":
            try:
                changed[name] = float(text)
            except ValueError:
                raise UserError(f"{name} {text!r} is not a number") from None
        else:
            changed[name] = [text] if name == "seed" else text
    return changed


def values(given: Mapping[str, Any]) -> dict[str, Any]:
    """The values of what is given as text: seeds, whole numbers, settings by name; UserError for what is not one."""
    options = {field.name: f"--{field.name.replace('_', '-')}" for field in fields(Trial)}
    whole = [field.name for field in fields(Trial) if str(field.type) == "int" and isinstance(given[field.name], str)]
    seeds = [seed for text in given["seed"] for seed in integers(options["seed"], text)]
    mappings = {name: dict(assignment(options[name], text) for text in given[name]) for name in MAPPINGS}
    return {"seed": seeds, **{name: integer(options[name], given[name]) for name in whole}, **mappings}


def parser() -> argparse.ArgumentParser:
    made = Parser(prog="python -m trainables", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for field in fields(Trial):
        option = f"--{field.name.replace('_', '-')}"
        required = field.default is MISSING and field.default_factory is MISSING
        if field.name == "seed":
            text = "one or more, as 0 1, 0,1 or 0-4; several train as one stack (default 0)"
            made.add_argument("--seed", nargs="+", default=["0"], metavar="N", help=text)
        elif field.name == "fresh":
            made.add_argument(
                "--fresh-for", dest="fresh", default="", metavar="SWEEP", help="train the separate copy that `--fresh` makes for that sweep"
            )
            made.add_argument("--fresh", default=argparse.SUPPRESS, help=argparse.SUPPRESS)  # an older name
        elif field.name in MAPPINGS:
            notes = {
                "hyper": "hyperparameters of the algorithm, e.g. beta=1.0 for iql",
                "sparsity_of": "sparsities of single networks, e.g. critic=0.9",
                "pruning": "settings of the pruner, e.g. delta=1000 for rigl",
            }
            made.add_argument(option, nargs="*", default=[], metavar="NAME=VALUE", help=notes[field.name])
        elif str(field.type) == "bool":
            notes = {
                "authors": "score with the leaky critic gradient of the authors' code, for comparison only (docs/pruning.md)",
                "allow_disconnected": "train even if a mask leaves no path from input to output",
            }
            how: dict[str, Any] = {"action": "store_true"}
            if field.name in SET:
                how = {"action": argparse.BooleanOptionalAction, "default": None}
            made.add_argument(option, **how, help=notes[field.name])
        else:
            kind = {"float": float}.get(str(field.type), str)
            note = "required" if required else f"default {field.default}" if field.default != "" else NOTES[field.name]
            named = {name: plugins.names(f"{name}s") for name in ("algorithm", "pruner")}
            choices = (CHOICES | TRAINING_CHOICES | named).get(field.name, ())
            note += f"; one of {', '.join(choices)}" if choices else ""
            default = "" if required else field.default
            if field.name in SET:  # to know whether it was given
                default = None
            if field.name == "reward_shift":
                default, note = None, "default: the paper's for the dataset (iql and xql on sparse mazes: -1), else 0"
            made.add_argument(option, type=kind, default=default, metavar=METAVARS.get(str(field.type), "NAME"), help=note)
        if field.name in PLURALS:  # the word of a sweep
            several = {"nargs": "+"} if field.name == "seed" else {"type": float} if field.name == "sparsity" else {}
            made.add_argument(f"--{PLURALS[field.name]}", dest=field.name, default=argparse.SUPPRESS, help=argparse.SUPPRESS, **several)
    made.add_argument("--version", action="version", version=f"winnow {version()}")
    made.add_argument("--published", action="store_true", help="use the papers' settings for this dataset (trainables/trial/published.py)")
    help = f"use the settings of a code base in place of defaults: {', '.join(PROTOCOLS)} (trainables/trial/protocols.py)"
    made.add_argument("--protocol", default="", metavar="NAME", help=help)
    made.add_argument(
        "--storage", type=Path, default=None, help="keep checkpoints, masks and policies in this folder, and resume from them"
    )
    made.add_argument("--set", dest="settings", action="append", default=[], metavar="NAME=VALUE", help="any of these by its name in a "
                      "sweep, e.g. seeds=0,1 or hyper.beta=1.0; may be repeated")  # fmt: skip
    made.add_argument("--device", default="cpu", help="auto, or a torch device, such as cuda:0 (default cpu)")
    made.add_argument(
        "--execution", default="auto", help=f"how masked layers are computed: auto, {', '.join(plugins.names('execution'))} (default auto)"
    )
    help = "a module that registers environments; no other module is imported for them; may be repeated (also $WINNOW_IMPORT)"
    made.add_argument("--import", dest="imports", action="append", default=[], metavar="MODULE", help=help)
    made.add_argument(
        "--tf32", action=argparse.BooleanOptionalAction, default=False, help="let GPUs round the factors of matrix products to 10 bits"
    )
    return made


def show(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings, after printing them."""
    say("published settings: " + (", ".join(f"{name}={value}" for name, value in settings.items()) or "the algorithm's defaults"))
    return settings


def with_protocol(given: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """The fields of a trial, with a protocol's settings where none is given and they make a difference, else the defaults."""
    taken = {*options_of(given["pruner"], given["algorithm"]), *TRAINING_CHOICES}
    usual = {f.name: f.default for f in fields(Trial) if f.name in SET}
    meant = usual | {name: value for name, value in settings.items() if name in taken}
    put = {name: value for name, value in meant.items() if given.get(name) is None}
    return given | put | {"hyper": {**settings["hyper"], **given["hyper"]}}


def check_writable(storage: Path) -> None:
    """Raise UserError unless the folder, or its nearest existing parent, can be written to."""
    if storage.parts[:1] == ("s3:",):
        raise UserError("--storage: only sweeps (winnow) can store results on S3; give a folder")
    nearest = next(path for path in (storage.absolute(), *storage.absolute().parents) if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise UserError(f"--storage {str(storage)!r}: {nearest} is not a writable folder")


def assignment(option: str, text: str) -> tuple[str, Any]:
    """`alpha=2.5` -> ("alpha", 2.5)."""
    name, separator, value = text.partition("=")
    try:
        return name, literal(value)
    except ValueError:
        raise UserError(f"{option} {text!r} is not NAME=NUMBER, e.g. alpha=2.5" if separator else f"{option} {text!r} has no '='") from None


def follow(stack: Stack, reports: Iterator[Report]) -> int:
    """Show one progress line while reports come in, and print the scores. Returns the exit code."""
    from trainables import reports as kinds
    from trainables.evaluation.metrics import known, metrics_of

    started, diverged, rate = time.monotonic(), 0, 0.0
    total = stack.lead.updates
    for report in reports:
        if isinstance(report, kinds.Pruned):
            for trial, details, warned in zip(stack.trials, report.details, report.warnings, strict=True):
                if report.update == 0:
                    say(f"{trial.name}: " + "  ".join(layers(details)))
                for warning in warned:
                    say(f"warning: {trial.name} after {report.update:,} updates: {warning}")
        elif isinstance(report, kinds.Trained):
            rate = report.updates_per_second
            left = len(stack) * (total - report.update) / rate
            losses = "  ".join(f"{name.removeprefix('train/')} {value:.4g}" for name, value in report.metrics[0].items())
            progress(f"{report.update:,} of {total:,} updates  {rate:,.0f}/s  {clock(left)} left  {losses}")
        elif isinstance(report, kinds.Evaluated):
            means = [metrics_of(known(episodes)) for episodes in report.episodes]
            returns = "  ".join(f"{own['return']:.0f}" for own in means)
            scores = "  ".join(f"{own['normalized_score']:.1f}" for own in means if "normalized_score" in own)
            successes = "  ".join(f"{100 * own['success_rate']:.0f} %" for own in means if "success_rate" in own)
            when = f"{stack.lead.final_episodes} final episodes" if report.final else f"after {report.update:,} updates"
            say(
                f"{when}: return {returns}"
                + (f"  normalized score {scores}" if scores else "")
                + (f"  success {successes}" if successes else "")
            )
        elif isinstance(report, kinds.Diverged):
            diverged += 1
            say(f"{stack.trials[report.member].name} diverged: {report.reason}")
        elif isinstance(report, kinds.Finished):
            say(f"finished in {clock(time.monotonic() - started)} ({report.execution} execution, {rate:,.0f} updates/s)")
    return 1 if diverged else 0


def layers(networks: Mapping[str, Any]) -> list[str]:
    """`actor.0 keeps 14.70 %` for each layer of each network."""
    return [f"{name}.{i} keeps {100 * one['density']:.2f} %" for name, about in networks.items() for i, one in enumerate(about["layers"])]


def clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


_last_line = 0.0


def progress(text: str) -> None:
    """On a terminal and in a notebook, one line that is overwritten; elsewhere, a line every ten seconds."""
    global _last_line
    if is_notebook(sys.stdout):
        print(f"\r{text:<120}", end="", flush=True)
    elif sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
    elif time.monotonic() - _last_line > 10:
        _last_line = time.monotonic()
        print(text, file=sys.stderr, flush=True)


def say(text: str) -> None:
    """Print a line that stays."""
    if is_notebook(sys.stdout):
        text = f"\r{text:<120}"
    elif sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
