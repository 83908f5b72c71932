"""A driver's time with an adaptive sweep, on a real manifest and a real study, without Ray; and what is told of it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial

from search_spaces.sweep.space import spaces
from service.driving.driver import Driver
from service.ledger import manifest
from service.ledger.manifest import Manifest
from service.planning.options import TrainingOptions
from service.planning.plan import Plan, make_plan
from service.planning.run_settings import RunSettings
from service.search.findings import Finding, find
from service.search.studies import Adaptive
from service.spool import scores
from service.storage import paths
from service.terminal.display import Display
from trainables.trial import Stack, Trial

NAME = "td3bc_adaptive"
SETTINGS = ("datasets=test/hopper/random-v0", "updates=400", "evaluations=4", "search.suggestions=6", "search.objective=score")
CHOICES = ("pruners=snip,magnitude", "sparsities=0.8", "hyper.alpha=1.0", "seeds=0")  # two suggestions, and no more
NINE = ("pruners=snip,magnitude,random_erk", "sparsities=0.5,0.8,0.9", "hyper.alpha=1.0", "seeds=0", "search.suggestions=40")


class Run:
    """A driver's time with the sweep."""

    def __init__(
        self, storage: Path, *settings: str, size: int = 4, place: Any = None, retry_failed: bool = False, plan: Plan | None = None
    ) -> None:
        self.storage = storage
        options = TrainingOptions(device="cpu", stack_size=size)
        chosen = RunSettings(overrides=(*SETTINGS, *settings), options=options, retry_failed=retry_failed)
        self.plan = plan or make_plan(NAME, chosen, storage=storage)
        self.manifest = Manifest(storage, NAME, self.plan.settings.to_json())
        self.adaptive = Adaptive(NAME, self.plan.sweep, storage, self.manifest.ledger, place, again=chosen.command(NAME, storage))
        self.driver = Driver(self.plan, self.manifest, storage, Display(), adaptive=self.adaptive)
        self.driver.prepare()
        self.driver.begin("cpu", 1)

    def next(self) -> Stack:
        stack = self.driver.next()
        assert stack is not None
        self.driver.started(stack)
        return stack

    def train(self, stack: Stack, until: int = 400, score: Callable[[Trial, int], float] | None = None) -> None:
        """Write what workers would, up to an update, and let the driver hear it."""
        for trial in stack.trials:
            write(self.storage, trial, until, score or quality)
        self.driver.reported(stack, {"update": until, "evaluated": until, "scores": {trial.key: 0.0 for trial in stack.trials}})

    def finish(self) -> list[Stack]:
        """Train all that comes, to the end."""
        stacks = []
        while (stack := self.driver.next()) is not None:
            stacks.append(stack)
            self.driver.started(stack)
            self.train(stack)
            self.driver.ended(stack, {})
        assert not self.driver.busy()
        return stacks

    def leave(self) -> None:
        self.driver.leave()
        self.manifest.close()


def quality(trial: Trial, update: int) -> float:
    """Scores with their maximum at sparsity 0.8, higher later."""
    return 100 - 200 * abs(trial.sparsity - 0.8) + 5 * trial.seed + update / 100


def write(storage: Path, trial: Trial, until: int, score: Callable[[Trial, int], float]) -> None:
    """A spool as a worker leaves it: an evaluation and a checkpoint every 100 updates."""
    lines: list[dict[str, Any]] = [{"update": 0, "kind": "pruned", "metrics": {scores.DENSITY: trial.density / 2}}]
    for update in range(100, until + 1, 100):
        lines.append({"update": update, "kind": "evaluated", "metrics": {scores.SCORE: score(trial, update)}})
        lines.append({"update": update, "kind": "checkpointed"})
    if until == trial.updates:
        lines.append({"update": until, "kind": "finished", "seconds": 1.0, "execution": "sparse"})
    file = paths.spool(storage, trial.key)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps({"time": 0, **line}) + "\n" for line in lines))


def study_of(storage: Path, plan: Plan, place: Any = None) -> optuna.Study:
    """The study as anybody may load it: these are the README's words."""
    (space,) = spaces(plan.sweep)
    if place:
        return optuna.load_study(study_name=f"{space.study(NAME)}/{manifest.read(storage, NAME).begun}", storage=place)
    return optuna.load_study(study_name=space.study(NAME), storage=JournalStorage(JournalFileBackend(str(paths.study(storage, NAME)))))


def told(study: optuna.Study) -> list[tuple[Any, ...]]:
    """All that matters of a study."""
    return [(t.number, t.state.name, t.values, t.params, t.user_attrs["key"], t.intermediate_values) for t in study.trials]


def by_key(study: optuna.Study) -> dict[str, FrozenTrial]:
    return {trial.user_attrs["key"]: trial for trial in study.trials}


def found_by(run: Run) -> Finding:
    """What `results` shows of a search with one study."""
    (found,) = find(NAME, run.plan.sweep, manifest.read(run.storage, NAME), run.storage, run.plan.settings.overrides)
    return found


def killed_after(at: int, work: Callable[[], Any]) -> None:
    """Work until the `at`-th fsync, and end the process there as SIGKILL would: nothing is cleaned up."""
    fsync, writes = os.fsync, 0

    def fatal(file: int) -> None:
        nonlocal writes
        fsync(file)
        writes += 1
        if writes == at:
            os._exit(9)

    os.fsync = fatal  # type: ignore[assignment]
    code = 1
    try:
        work()
        code = 0
    finally:
        os._exit(code)
