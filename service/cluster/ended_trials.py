"""Lets Tune forget the ray_trials that have ended. It keeps every one for its report at the end, some 50 kB each, and looks through all of
them at each step, so that a sweep of thousands would get slower and larger from one to the next."""

from __future__ import annotations

from typing import Any

from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.schedulers import FIFOScheduler

MANY = 64  # ray_trials that are forgotten at once


class Forgetful(FIFOScheduler):  # type: ignore[misc]
    """First come, first served, as without a scheduler: Tune hands its controller to schedulers alone."""

    def __init__(self) -> None:
        super().__init__()
        self._controller: Any = None

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        self._controller = tune_controller

    def withdraw(self, ray_trial: Any) -> None:
        """Take back one that waits for a worker; its end is told as any other."""
        if ray_trial in self._controller._staged_trials:  # else Tune would keep an idle worker for it
            self._controller._unstage_trial_with_resources(ray_trial)
        self._controller.stop_trial(ray_trial)

    def forget(self, trials: list[Any]) -> None:
        """Forget what has ended of the controller's own list, between two of its steps."""
        ended = {trial for trial in trials if trial.is_finished()}
        if len(ended) < MANY:
            return
        trials[:] = [trial for trial in trials if trial not in ended]
        for held in (self._controller._stopped_trials, self._controller._failed_trials, self._controller._trials_to_cache):
            held.difference_update(ended)
        for trial in ended:
            self._controller._trial_metadata.pop(trial.trial_id, None)


class Silent(TrialProgressCallback):  # type: ignore[misc]
    """Takes the place of the callback that Tune adds for a progress that is not shown here, and that keeps every ray_trial, too."""

    def on_trial_result(self, *given: Any, **named: Any) -> None: ...
    def on_trial_error(self, *given: Any, **named: Any) -> None: ...
    def on_trial_complete(self, *given: Any, **named: Any) -> None: ...
