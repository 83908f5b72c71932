"""What the tests cost: the suite's CPU time, that of the processes it starts included, and its ten most expensive tests, at the end."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

DEAREST = 10
SHOWN_FROM = 30.0  # seconds


_forks = 0.0


def of_forks(seconds: float) -> None:
    """CPU seconds of a command that the process of tests/warm.py has waited for: they are counted with the test that ran it."""
    global _forks
    _forks += seconds


def spent() -> float:
    """CPU seconds of this process and of those that it, or the process that commands are forked from, has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system + _forks


class Costs:
    """A plugin of each process that runs tests, and of the one that collects their numbers."""

    def __init__(self) -> None:
        self.tests: dict[str, float] = {}
        self.elsewhere = 0.0

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """What a test takes; the first that asks for a fixture pays for it."""
        before = spent()
        try:
            return (yield)
        finally:
            self.tests[item.nodeid] = spent() - before

    def dearest(self) -> list[tuple[str, float]]:
        return sorted(self.tests.items(), key=lambda test: -test[1])[:DEAREST]

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if (output := getattr(session.config, "workeroutput", None)) is not None:
            output["costs"] = {"all": spent(), "tests": self.dearest()}

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """A process of pytest-xdist's has ended."""
        found = getattr(node, "workeroutput", {}).get("costs", {"all": 0.0, "tests": []})
        self.elsewhere += found["all"]
        self.tests |= dict(found["tests"])

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Ahead of pytest's own summary, whose last line stays the last one. Nothing for runs that cost next to nothing."""
        total = self.elsewhere + time.process_time() if self.elsewhere else spent()
        if total > SHOWN_FROM:
            terminalreporter.section(f"CPU time: {total:.0f} s; the most expensive tests")
            for test, seconds in self.dearest():
                terminalreporter.write_line(f"{seconds:6.1f} s  {test}")
