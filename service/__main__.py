"""The commands: python -m service COMMAND SWEEP."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from search_spaces.sweep import Sweep
from service.signals import INTERRUPTED, UNREAD, unread
from trainables import paths, registry
from trainables.errors import UserError

EXAMPLES = """examples:
  python -m service plan quickstart
  python -m service run quickstart --set seeds=0,1,2 --set updates=50000
  python -m service submit mujoco_sparsity --follow
"""
# command -> what it does, and an example of its own
COMMANDS = {
    "plan": ("what a run would do; starts nothing", "plan quickstart --set seeds=0,1,2"),
    "run": ("run a sweep, or go on with it, then show its results", "run quickstart --set updates=50000"),
    "resume": ("run, and try again what failed or diverged", "resume quickstart"),
    "submit": ("run a sweep as a job of a Ray cluster", "submit quickstart --address http://127.0.0.1:8265 --follow"),
    "status": ("the state of every trial of a sweep", "status quickstart --watch"),
    "stop": ("ask the driver of a sweep to leave, wherever it runs", "stop quickstart"),
    "sync": ("bring MLflow up to date by hand", "sync quickstart"),
    "verify": ("prove that MLflow holds exactly what the trials wrote", "verify quickstart"),
    "results": ("table and figure from what MLflow holds", "results quickstart"),
    "report": ("statistics, figures and a page over one sweep or several, from MLflow alone", "report quickstart mujoco_sparsity"),
    "overlap": ("how alike the masks are, between seeds and between pruners", "overlap quickstart"),
    "logs": ("the story of one trial", "logs 3f2a"),
    "doctor": ("what this machine lacks for sweeps, and how to mend it", "doctor --storage s3://bucket/prefix"),
}
REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EHOSTUNREACH, errno.EIO)  # which users can mend


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0 done, 1 not all is well, 2 bad input (said in one line), 130 interrupted, 141 unread."""
    try:
        try:
            return _run(argv)
        finally:
            sys.stdout.flush()  # not at exit, where it is too late to be quiet
    except BrokenPipeError:
        if not unread():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for what could not be flushed
        return UNREAD


def _run(argv: Sequence[str] | None) -> int:
    arguments = parser().parse_args(argv)
    try:
        return int(globals()[arguments.command](arguments, paths.root(arguments.storage)))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        print(f"error: {error.filename or paths.root(arguments.storage)}: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


def parser() -> argparse.ArgumentParser:
    """Every command imports what it needs when it runs: `plan` answers before torch or ray could be imported."""
    raw = argparse.RawDescriptionHelpFormatter
    top = argparse.ArgumentParser(prog="python -m service", description=__doc__, epilog=EXAMPLES, formatter_class=raw)
    commands = top.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for name, (text, example) in COMMANDS.items():
        sub = commands.add_parser(name, help=text, description=text, epilog=f"example:\n  python -m service {example}", formatter_class=raw)
        if name == "logs":
            sub.add_argument("trial", help="a trial's key, the beginning of one, or its name, e.g. bc/halfcheetah-expert/snip@95/s0")
        elif name == "report":
            sub.add_argument("sweeps", nargs="+", metavar="SWEEP", help="sweeps that MLflow holds, reported together")
            sub.add_argument("--to", type=Path, metavar="FOLDER", help="where to write (default reports/ in the storage)")
        elif name != "doctor":
            sub.add_argument("sweep", help="a file of search_spaces/, e.g. quickstart")
        sub.add_argument(
            "--storage", help="folder, or s3://bucket/prefix, for everything that is written (default $WINNOW_STORAGE, else ./storage)"
        )
        if name in ("plan", "run", "resume", "submit", "results"):
            _settings(sub)
        if name in ("plan", "run", "resume", "submit"):
            _training(sub)
        if name in ("run", "resume", "submit", "results"):
            help = "database of an adaptive sweep's studies (default $WINNOW_STUDY_STORAGE, else study.log in the sweep's folder)"
            sub.add_argument("--study-storage", metavar="URL", help=help)
        if name in ("plan", "status", "verify", "results", "overlap", "logs", "doctor"):
            sub.add_argument("--json", action="store_true", help="for programs instead of people")
        if name == "status":
            sub.add_argument("--watch", action="store_true", help="again and again, until nothing is left to do")
        if name == "submit":
            sub.add_argument("--address", help="the cluster's job server (default $RAY_API_SERVER_ADDRESS, else http://127.0.0.1:8265)")
            sub.add_argument("--follow", action="store_true", help="show the job's output until it ends, and leave with its success")
    return top


def _settings(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--set", dest="settings", action="append", default=[], metavar="NAME=VALUE", help="in place of the sweep's value")


def _training(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    sub.add_argument("--stack-size", type=_positive, help="most trials trained as one model (default: CPU 1, GPU what its memory holds)")
    sub.add_argument("--retry-failed", action="store_true", help="trials that failed or diverged are tried again, as in `resume`")
    sub.add_argument("--fresh", action="store_true", help="also train what another sweep of this storage has done, apart from it")
    sub.add_argument("--max-concurrent", type=_positive, metavar="N", help="most stacks at a time (default: what fits)")
    sub.add_argument("--gpu-fraction", type=_fraction, default=0.5, metavar="F", help="share of a GPU that a stack takes (default 0.5)")
    choices = ("auto", *registry.names("execution"))
    sub.add_argument("--execution", choices=choices, default="auto", help="how masked layers are computed")
    sub.add_argument("--tf32", action="store_true", help="a GPU may round the factors of matrix products to 10 bits")
    sub.add_argument("--checkpoint-every", type=_positive, default=5_000, metavar="UPDATES")


def plan(arguments: argparse.Namespace, storage: Path) -> int:
    from service.plan import describe, make_plan, to_json

    found = make_plan(
        arguments.sweep, arguments.settings, storage=storage, device=arguments.device, size=arguments.stack_size,
        retry=arguments.retry_failed, fresh=arguments.fresh, slots=arguments.max_concurrent,
    )  # fmt: skip
    _show(arguments, describe(found), to_json(found))
    return 0


def run(arguments: argparse.Namespace, storage: Path) -> int:
    from service import run as runner

    return runner.run(
        arguments.sweep, arguments.settings, storage=storage, device=arguments.device, size=arguments.stack_size,
        retry=arguments.retry_failed, fresh=arguments.fresh, most=arguments.max_concurrent, gpu_fraction=arguments.gpu_fraction,
        execution=arguments.execution, checkpoint_every=arguments.checkpoint_every, tf32=arguments.tf32,
        study_storage=arguments.study_storage,
    )  # fmt: skip


def resume(arguments: argparse.Namespace, storage: Path) -> int:
    arguments.retry_failed = True
    return run(arguments, storage)


def submit(arguments: argparse.Namespace, storage: Path) -> int:
    from service.submit import submit as hand_over

    given = {
        "--storage": arguments.storage, "--device": arguments.device, "--stack-size": arguments.stack_size,
        "--max-concurrent": arguments.max_concurrent, "--gpu-fraction": arguments.gpu_fraction,
        "--execution": arguments.execution, "--checkpoint-every": arguments.checkpoint_every,
        "--study-storage": arguments.study_storage,
    }  # fmt: skip
    options = [f"{name}={value}" for name, value in given.items() if value is not None]
    options += [f"--{name}" for name in ("retry-failed", "fresh", "tf32") if getattr(arguments, name.replace("-", "_"))]
    options += [f"--set={setting}" for setting in arguments.settings]
    return hand_over(arguments.sweep, arguments.settings, options, address=arguments.address, follow=arguments.follow)


def status(arguments: argparse.Namespace, storage: Path) -> int:
    from service import status as state

    if arguments.watch:
        state.watch(arguments.sweep, storage)
    else:
        found = state.read(arguments.sweep, storage)
        _show(arguments, state.describe(found), found.to_json())
    return 0


def stop(arguments: argparse.Namespace, storage: Path) -> int:
    from service.stop import stop as ask

    return ask(arguments.sweep, storage)


def sync(arguments: argparse.Namespace, storage: Path) -> int:
    from service.shipper import Shipper
    from service.status import journal_of
    from service.tracking import Tracking

    tracking = Tracking(storage)
    shipped = Shipper(storage, arguments.sweep, journal_of(arguments.sweep, storage), tracking).ship()
    print(f"{shipped} points shipped; MLflow holds all that is committed")
    return 0


def verify(arguments: argparse.Namespace, storage: Path) -> int:
    from service.status import journal_of
    from service.verify import describe, differences

    ledger = journal_of(arguments.sweep, storage)
    found = differences(arguments.sweep, ledger, storage)
    _show(arguments, describe(ledger, found), {"trials": len(ledger.entries), "differences": found})
    return 1 if found else 0


def results(arguments: argparse.Namespace, storage: Path) -> int:
    from search_spaces.sweep import expand, load_sweep, override
    from service import results as scores
    from service.plan import as_trained
    from service.shipper import Shipper
    from service.status import journal_of
    from service.tracking import Tracking

    sweep = override(load_sweep(arguments.sweep), arguments.settings)
    grid, ledger = expand(sweep), journal_of(arguments.sweep, storage)
    if sweep.search:
        return _search_results(arguments, sweep, storage)
    trials = [as_trained(trial, arguments.sweep, ledger) for trial in grid]
    tracking = Tracking(storage)
    if paths.remote(storage)[0] and tracking.uri.startswith("sqlite:"):
        Shipper(storage, arguments.sweep, ledger, tracking).ship()  # another host may have trained: this one's MLflow is filled here
    if arguments.json:
        _show(arguments, "", scores.to_json(scores.find(trials, tracking)))
    else:
        scores.show(arguments.sweep, trials, tracking, storage)
    return 0


def _search_results(arguments: argparse.Namespace, sweep: Sweep, storage: Path) -> int:
    """The results of an adaptive sweep."""
    from service import search_results as scores
    from service.adaptive import findings
    from service.run import studies_of
    from service.tracking import Tracking

    found = findings(arguments.sweep, sweep, storage, studies_of(sweep, storage, arguments.study_storage))
    if arguments.json:
        _show(arguments, "", scores.to_json(found))
    else:
        scores.show(arguments.sweep, found, Tracking(storage), storage)
    return 0


def report(arguments: argparse.Namespace, storage: Path) -> int:
    from service.report.build import report as make

    return make(arguments.sweeps, storage, arguments.to)


def overlap(arguments: argparse.Namespace, storage: Path) -> int:
    from service.overlap import describe, overlaps, to_json  # imports torch
    from service.status import journal_of

    found = overlaps(journal_of(arguments.sweep, storage), storage)
    _show(arguments, describe(found), to_json(found))
    return 0


def logs(arguments: argparse.Namespace, storage: Path) -> int:
    from service.logs import describe, story

    found = story(arguments.trial, storage)
    _show(arguments, describe(found), found)
    return 0


def doctor(arguments: argparse.Namespace, storage: Path) -> int:
    from service.doctor import examine

    return examine(storage, json=arguments.json)


def _show(arguments: argparse.Namespace, text: str, value: object) -> None:
    """The same for people, or for programs with `--json`."""
    if arguments.json:
        import json

        text = json.dumps(value, indent=1)
    print(text)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def _fraction(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise ValueError
    return value


if __name__ == "__main__":
    code = main()
    if code == INTERRUPTED:  # no time for what libraries do at exit
        os._exit(code)
    sys.exit(code)
