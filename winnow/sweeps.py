"""Sweeps from Python: what the commands `plan`, `run` and `results` do, as values and data frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from winnow import given
from winnow.shown import Progress, lines_to

if TYPE_CHECKING:
    import pandas as pd

    from service.planning.plan import Plan
    from service.planning.run_settings import RunSettings
    from service.results.cells import Task

Storage = str | Path | None
Name = str | Path  # of a sweep, or the path of its file


def plan(sweep: Name, settings: Mapping[str, Any] | None = None, *, storage: Storage = None, **options: Any) -> Plan:
    """What a run of the sweep would do: `.trials`, `.state` of each by its key, `.todo`. Starts nothing.

    `sweep` is a name or the path of a file. `settings` replace fields of the sweep, as `--set` does (`{"seeds": (0, 1)}`); `options` are
    those of the command `run`, such as `device="cpu"`, `stack_size=2` or `fresh=True`. Raises UserError for bad input.
    """
    from service.planning.plan import make_plan

    where = _storage(storage)
    return make_plan(given.sweep(sweep), _settings(settings, options), storage=where)


def run(
    sweep: Name, settings: Mapping[str, Any] | None = None, *, storage: Storage = None, progress: Progress = True, **options: Any
) -> pd.DataFrame:
    """Run the sweep, or continue it; returns `results(sweep)`, where failed trials have their reason.

    Takes what `plan` takes, in the main thread. It prints what the command prints; with `progress=False` nothing, and a function for
    `progress` gets each line. Where a limit such as `max_hours` ends the run, `.attrs["notes"]` says so. Raises UserError for bad input and
    KeyboardInterrupt where it was interrupted. After either, the same call continues from the checkpoints.
    """
    from service.driving import session
    from service.terminal.signals import INTERRUPTED

    where, limits = _storage(storage), list[str]()
    with lines_to(progress):
        code = session.run(plan(sweep, settings, storage=where, **options), where, limits.append)
    if code == INTERRUPTED and not limits:
        raise KeyboardInterrupt
    return results(given.sweep(sweep), storage=where)


def results(*sweeps: Name, storage: Storage = None) -> pd.DataFrame:
    """A row per trial of the sweeps, whatever became of it, as MLflow knows it; `.attrs["notes"]` says what to know about them.

    Raises UserError for a sweep that MLflow does not hold."""
    from service.results.report.tables import trial_rows

    return _frame(trial_rows, sweeps, storage)


def curves(*sweeps: Name, storage: Storage = None) -> pd.DataFrame:
    """A row per evaluation of each trial: score, updates, FLOPs and seconds of training."""
    from service.results.report.tables import curve_rows

    return _frame(curve_rows, sweeps, storage)


def cells(*sweeps: Name, storage: Storage = None) -> pd.DataFrame:
    """A row per cell, that is per dataset, algorithm, method, sparsity and number of updates: means over seeds with their intervals."""
    from service.results.report.tables import cell_rows

    return _frame(cell_rows, sweeps, storage)


def _frame(rows: Any, sweeps: Sequence[Name], storage: Storage) -> pd.DataFrame:
    import pandas as pd

    where = _storage(storage)
    tasks, notes = _tasks(given.sweeps(sweeps, "results"), where)
    frame = pd.DataFrame(rows(tasks))
    frame.attrs["notes"] = notes
    return frame


def _tasks(sweeps: Sequence[str], storage: Path) -> tuple[list[Task], list[str]]:
    from service.results.cells import tasks_of
    from service.results.report.gather import gather
    from service.tracking.runs import Tracking

    found = gather(sweeps, Tracking(storage), storage)
    return list(tasks_of(found.runs)), found.notes


def _storage(storage: Storage) -> Path:
    given.renew()
    return given.storage(storage)


def _settings(settings: Mapping[str, Any] | None, options: Mapping[str, Any]) -> RunSettings:
    from service.cli.training import project_options
    from service.planning.options import TrainingOptions
    from service.planning.run_settings import RunSettings

    given.renew()
    taken = given.options(options)
    asked = {name: taken.pop(name) for name in given.ASKED if name in taken}
    return RunSettings(overrides=given.overrides(settings or {}), options=TrainingOptions(**project_options() | taken), **asked)
