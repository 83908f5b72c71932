"""The suite's own count of its CPU time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

from tests.costs import DEAREST, Costs, spent

SPIN = "import time\nwhile time.process_time() < 0.2: pass"


def test_what_a_process_that_a_test_started_has_taken_counts() -> None:
    before = spent()
    subprocess.run([sys.executable, "-S", "-c", SPIN], check=True)
    assert spent() - before >= 0.15  # of a clock that ticks


def test_make_lets_python_keep_what_it_compiles() -> None:
    command = ["make", "--eval", "show: ; @env", "show"]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "KEPT": "1"}
    shown = subprocess.run(command, cwd=Path(__file__).parents[1], env=environment, capture_output=True, text=True, check=True).stdout
    assert "KEPT=1" in shown
    assert "PYTHONDONTWRITEBYTECODE" not in shown


def test_the_costs_of_all_processes_of_a_run_are_added_up_and_the_dearest_tests_named() -> None:
    costs, lines = Costs(), []
    reporter = SimpleNamespace(section=lines.append, write_line=lines.append)
    for worker in (100, 200):
        tests = [[f"{worker}::test_{number}", float(worker + number)] for number in range(DEAREST)]
        costs.pytest_testnodedown(SimpleNamespace(workeroutput={"costs": {"all": 1e6 + worker, "tests": tests}}))
    costs.pytest_testnodedown(SimpleNamespace())  # one that crashed
    costs.pytest_terminal_summary(reporter)
    head, first, *_, last = lines
    assert 2_000_300 <= int(head.split()[2]) <= 2_000_301 + spent()
    assert (first.split(), last.split(), len(lines)) == (["209.0", "s", "200::test_9"], ["200.0", "s", "200::test_0"], 1 + DEAREST)
