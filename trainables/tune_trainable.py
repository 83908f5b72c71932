"""The Ray Tune trainable: one ray_trial trains one stack and hands every report to a listener. The only file here that imports ray.

Ray's own checkpoints and results are not used: run_stack resumes by trial key, the listener keeps the metrics, and what step()
returns to the driver is only news for the manifest and the progress line.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from ray import tune

from trainables.errors import UserError
from trainables.reports import Diverged, Evaluated, Finished, Report, Trained
from trainables.trial import Stack, Trial

NEWS_EVERY = 1.0  # seconds between two results sent to the driver


class Listener(Protocol):
    def __call__(self, report: Report) -> None: ...
    def close(self) -> None: ...


class StackTrainable(tune.Trainable):  # type: ignore[misc]
    """Trains stack number `config["stack"]`; a warm actor takes the next one through reset_config."""

    def setup(
        self, config: dict[str, Any], *, stacks: list[list[Any]], storage: str, listen: Callable[[Stack, Path], Listener], **options: Any
    ) -> None:
        """`stacks`: all stacks of the run, as JSON values of their trials; `options` go to run_stack."""
        self._stacks, self._root, self._listen, self._options = stacks, Path(storage), listen, options
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.cleanup()
        self._stack = Stack(tuple(Trial.from_json(value) for value in self._stacks[new_config["stack"]]))
        self._reports: Iterator[Report] | None = None
        self._listener: Listener | None = None
        return True

    def step(self) -> dict[str, Any]:
        """Pass on reports for about a second; any failure ends the ray_trial with its class, since Tune would only retry it blindly."""
        news: dict[str, Any] = {"scores": {}, "diverged": {}}
        try:
            if self._reports is None or self._listener is None:
                from trainables.run import run_stack  # imports torch, so only here, once per warm actor

                self._listener = self._listen(self._stack, self._root)
                self._reports = run_stack(self._stack, self._root, **self._options)
            started = time.monotonic()
            for report in self._reports:
                self._listener(report)
                news |= self._news(report, news)
                if time.monotonic() - started > NEWS_EVERY:
                    return news
        except Exception as error:
            news["failure"] = {"reason": (why := reason(error)), "message": one_line(error, named=why != "user_error")}
        self.cleanup()
        return news | {"done": True}

    def cleanup(self) -> None:
        for owned in (getattr(self, "_reports", None), getattr(self, "_listener", None)):
            if owned is not None:
                owned.close()
        self._reports = self._listener = None

    def _news(self, report: Report, news: dict[str, Any]) -> dict[str, Any]:
        keys, update = [trial.key for trial in self._stack.trials], {"update": report.update}
        match report:
            case Trained(updates_per_second=rate):
                return update | {"rate": rate}
            case Evaluated(scores=scores):
                return update | {"scores": {key: sum(s) / len(s) for key, s in zip(keys, scores, strict=True) if s}}
            case Diverged(member=member, reason=why):
                return update | {"diverged": news["diverged"] | {keys[member]: why}}
            case Finished(seconds=seconds, execution=execution):
                return update | {"seconds": seconds, "execution": execution}
        return update


def reason(error: Exception) -> str:
    """The class of a failure: what may be tried again, and how, hangs on it."""
    text = str(error).lower()
    if isinstance(error, UserError):
        return "user_error"
    if isinstance(error, MemoryError) or "out of memory" in text or "not enough memory" in text or "allocate memory" in text:
        return "out_of_memory"
    return "infrastructure" if isinstance(error, OSError) else "error"


def one_line(error: Exception, named: bool) -> str:
    """The first line of an error's text, after its class where `named`."""
    text = (str(error).strip().splitlines() or [""])[0][:500]
    return f"{type(error).__name__}: {text}" if named else text
