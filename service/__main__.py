# PYTHON_ARGCOMPLETE_OK
"""The commands: python -m service COMMAND SWEEP."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from search_spaces.sweep import Sweep
from service.cli.completion import complete
from service.cli.parser import parser
from service.storage import paths
from service.terminal.signals import INTERRUPTED, UNREAD, unread
from service.terminal.waiting import waiting
from trainables.errors import UserError

# Which users can mend: a full, read-only or foreign storage, one that cannot be reached, and a path that is none.
REFUSALS = (
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EHOSTUNREACH, errno.EIO, errno.ESTALE, errno.ENOLCK,
    errno.EOPNOTSUPP, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP, errno.EBUSY,
)  # fmt: skip


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
    known = parser()
    complete(known)
    arguments = known.parse_args(argv)
    try:
        return int(globals()[arguments.command](arguments, paths.root(getattr(arguments, "storage", None))))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        print(f"error: {error.filename or paths.root(getattr(arguments, 'storage', None))}: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


def plan(arguments: argparse.Namespace, storage: Path) -> int:
    from service.planning.plan import describe, make_plan, to_json

    found = make_plan(
        arguments.sweep, arguments.settings, storage=storage, device=arguments.device, size=arguments.stack_size,
        retry=arguments.retry_failed, fresh=arguments.fresh, slots=arguments.max_concurrent, execution=arguments.execution,
    )  # fmt: skip
    _show(arguments, describe(found), to_json(found))
    return 0


def run(arguments: argparse.Namespace, storage: Path) -> int:
    from service.driving import session as runner

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
    from service.cluster.job import submit as hand_over

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
    from service.inspection import status as state

    if arguments.watch:
        state.watch(arguments.sweep, storage)
    else:
        found = state.read(arguments.sweep, storage)
        _show(arguments, state.describe(found), found.to_json())
    return 0


def stop(arguments: argparse.Namespace, storage: Path) -> int:
    from service.inspection.stop import stop as ask

    return ask(arguments.sweep, storage)


def sync(arguments: argparse.Namespace, storage: Path) -> int:
    from service.inspection.status import ledger_of
    from service.tracking.runs import Tracking
    from service.tracking.shipper import Shipper

    ledger = ledger_of(arguments.sweep, storage)
    with waiting("shipping to MLflow"):
        shipped = Shipper(storage, arguments.sweep, ledger, Tracking(storage)).ship()
    _show(arguments, f"{shipped} points shipped; MLflow holds all that is committed", {"points": shipped})
    return 0


def verify(arguments: argparse.Namespace, storage: Path) -> int:
    from service.inspection.status import ledger_of
    from service.tracking.verify import describe, differences

    ledger = ledger_of(arguments.sweep, storage)
    with waiting("comparing with MLflow"):
        found = differences(arguments.sweep, ledger, storage)
    _show(arguments, describe(ledger, found), {"trials": len(ledger.entries), "differences": found})
    return 1 if found else 0


def results(arguments: argparse.Namespace, storage: Path) -> int:
    from search_spaces.sweep import expand, load_sweep, override
    from service.inspection.status import ledger_of
    from service.planning.plan import as_trained
    from service.results import quick_table as scores
    from service.tracking.runs import Tracking
    from service.tracking.shipper import Shipper

    sweep = override(load_sweep(arguments.sweep), arguments.settings)
    grid, ledger = expand(sweep), ledger_of(arguments.sweep, storage)
    if sweep.search:
        return _search_results(arguments, sweep, storage)
    trials = [as_trained(trial, arguments.sweep, ledger) for trial in grid]
    tracking = Tracking(storage)
    with waiting("reading MLflow"):
        if paths.remote(storage)[0] and tracking.uri.startswith("sqlite:"):
            Shipper(storage, arguments.sweep, ledger, tracking).ship()  # another host may have trained: this one's MLflow is filled here
        if arguments.json:
            _show(arguments, "", scores.to_json(scores.find(trials, tracking), trials))
        else:
            scores.tell(arguments.sweep, trials, tracking, storage)
    return 0


def _search_results(arguments: argparse.Namespace, sweep: Sweep, storage: Path) -> int:
    """The results of an adaptive sweep."""
    from service.driving.session import studies_of
    from service.search import findings as scores
    from service.search.studies import findings
    from service.tracking.runs import Tracking

    found = findings(arguments.sweep, sweep, storage, studies_of(sweep, storage, arguments.study_storage))
    if arguments.json:
        _show(arguments, "", scores.to_json(found))
    else:
        scores.tell(arguments.sweep, found, Tracking(storage), storage)
    return 0


def report(arguments: argparse.Namespace, storage: Path) -> int:
    from service.results.report.build import report as make

    with waiting("reading MLflow and drawing"):
        return make(arguments.sweeps, storage, arguments.to)


def overlap(arguments: argparse.Namespace, storage: Path) -> int:
    from service.inspection.status import ledger_of
    from service.results.mask_overlap import describe, overlaps, to_json  # imports torch

    found = overlaps(ledger_of(arguments.sweep, storage), storage)
    _show(arguments, describe(found), to_json(found))
    return 0


def logs(arguments: argparse.Namespace, storage: Path) -> int:
    from service.inspection.logs import describe, story

    found = story(arguments.trial, storage)
    _show(arguments, describe(found), found)
    return 0


def export(arguments: argparse.Namespace, storage: Path) -> int:
    from service.delivery.export import export as write

    folder = write(arguments.trial, arguments.to, storage, format=arguments.format, sweep=arguments.sweep)
    print(f"{folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")
    return 0


def promote(arguments: argparse.Namespace, storage: Path) -> int:
    from service.delivery.promote import promote as register

    version, uri = register(arguments.trial, storage, name=arguments.name, sweep=arguments.sweep)
    print(version.describe(uri))
    return 0


def rollout(arguments: argparse.Namespace, storage: Path) -> int:
    from service.delivery.rollout import rollout as play

    tell = print if not arguments.json else lambda _: None
    found = play(arguments.trial, storage, episodes=arguments.episodes, video=arguments.video, sweep=arguments.sweep, output=tell)
    if arguments.json:
        _show(arguments, "", found)
    return 0


def archive(arguments: argparse.Namespace, storage: Path) -> int:
    from service.delivery.archive import archive as write

    count = write(arguments.sweeps, arguments.to, storage)
    print(f"{arguments.to}: {count} finished trials, {arguments.to.expanduser().stat().st_size / 1e3:,.0f} kB")
    return 0


def adopt(arguments: argparse.Namespace, storage: Path) -> int:
    from service.delivery.archive import adopt as take
    from service.delivery.archive import describe

    print(describe(take(arguments.file, storage)))
    return 0


def datasets(arguments: argparse.Namespace, storage: Path) -> int:
    return int(arguments.act(arguments) or 0)


def doctor(arguments: argparse.Namespace, storage: Path) -> int:
    from service.inspection.doctor import examine

    return examine(storage, json=arguments.json)


def _show(arguments: argparse.Namespace, text: str, value: object) -> None:
    """The same for people, or for programs with `--json`."""
    if arguments.json:
        import json

        text = json.dumps(value, indent=1)
    print(text)


if __name__ == "__main__":
    code = main()
    if code == INTERRUPTED:  # no time for what libraries do at exit
        os._exit(code)
    sys.exit(code)
