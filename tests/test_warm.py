"""A command in a fork of a warm process ends and speaks as one in a Python of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.warm import ROOT, Warm, needs_python

SHOW = "import os, sys; print(sys.argv[1:], os.getcwd(), os.environ['MINE'], len(os.environ)); sys.exit({code})"
PLACED = "import theirs, sys; print(theirs.__file__, sys.path[0] == '', __name__, 'ray' in sys.modules)"


def both(warm: Warm, words: list[str], cwd: Path, environment: dict[str, str]) -> list[subprocess.CompletedProcess[str]]:
    """By a fork, and by a Python of its own."""
    command = [sys.executable, *words]
    return [
        warm(command, cwd=cwd, env=environment),
        subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False),
    ]


@pytest.mark.parametrize(
    "words",
    [
        ["-c", SHOW.format(code=""), "one", "--two"],
        ["-c", SHOW.format(code=3)],
        ["-c", SHOW.format(code="'in words'")],
        ["-c", "import atexit, sys; atexit.register(print, 'at the end'); sys.stderr.write('half a line')"],
        ["-c", "import os; os._exit(137)"],
        ["-c", "import os, signal; print('lost'); os.kill(os.getpid(), signal.SIGKILL)"],
        ["-c", "import threading, time; threading.Thread(target=lambda: (time.sleep(0.1), print('later'))).start()"],
        ["-m", "theirs", "--help"],
        ["-m", "service", "plan", "nothing"],
        ["-m", "winnow", "--version"],
    ],
    ids=lambda words: " ".join(words)[-20:],
)
def test_it_says_and_returns_the_same(words: list[str], warm: Warm, tmp_path: Path) -> None:
    (tmp_path / "theirs.py").write_text("import sys; print(sys.argv, __name__)")
    environment = dict(os.environ) | {"MINE": "here", "PYTHONPATH": str(ROOT), "WINNOW_REVISION": "abc"}
    environment.pop("RAY_ADDRESS", None)
    forked, own = both(warm, words, tmp_path, environment)
    assert (forked.returncode, forked.stdout, forked.stderr) == (own.returncode, own.stdout, own.stderr)


def test_an_error_is_a_traceback_and_modules_come_from_the_path(warm: Warm, tmp_path: Path) -> None:
    (tmp_path / "theirs.py").write_text("")
    environment = dict(os.environ) | {"PYTHONPATH": f"{ROOT}:{tmp_path}"}
    environment.pop("RAY_ADDRESS", None)
    forked, own = both(warm, ["-c", PLACED], ROOT, environment)
    assert own.stdout == f"{tmp_path}/theirs.py True __main__ False\n"
    assert forked.stdout == f"{tmp_path}/theirs.py True __main__ True\n", "it is the imports that are spared"
    forked, own = both(warm, ["-c", "1 / 0"], ROOT, environment)
    assert forked.returncode == own.returncode == 1
    assert forked.stderr.splitlines()[-1] == own.stderr.splitlines()[-1] == "ZeroDivisionError: division by zero"


def test_several_at_once_and_one_that_takes_too_long(warm: Warm, tmp_path: Path) -> None:
    """Each waits for the file that the other one makes."""
    wait = "import pathlib, sys, time\npathlib.Path(sys.argv[1]).touch()\nwhile not pathlib.Path(sys.argv[2]).exists(): time.sleep(0.01)"
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}

    def waits(*names: str) -> int:
        return warm([sys.executable, "-c", wait, *names], cwd=tmp_path, env=environment).returncode

    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(waits, "ab", "ba")) == [0, 0]
    with pytest.raises(subprocess.TimeoutExpired):
        warm([sys.executable, "-c", wait, "c", "d"], cwd=tmp_path, env=environment, timeout=0.5)


@pytest.mark.parametrize("change", [{"PYTHONUTF8": "1"}, {"LC_ALL": "POSIX"}, {"RAY_ADDRESS": "127.0.0.1:1"}])
def test_what_python_reads_at_its_start_takes_a_python_of_its_own(change: dict[str, str], warm: Warm) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", *change)}
    assert not needs_python(environment)
    assert needs_python(environment | change)
    done = warm([sys.executable, "-c", "import sys; print('ray' in sys.modules)"], cwd=ROOT, env=environment | change)
    assert done.stdout == "False\n"
