from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.faults.support.harness import wait_for

# The main thread waits in C, as inside a library, where no signal handler of Python's runs.
PROGRAM = """
import ctypes, os, signal, sys, threading
from service.terminal.signals import Leaving, commands

commands()
said = []
leaving = Leaving(lambda: said.append(print("last words", flush=True)))
if "deaf" in sys.argv:
    signal.set_wakeup_fd = lambda *_, **__: -1
with leaving.installed():
    if "forked" in sys.argv:
        there, here = os.pipe()
        child = os.fork()
        if not child:
            os.write(here, b".")
            signal.pause()
        os.read(there, 1)
        threading.Thread(target=lambda: (sys.stdin.readline(), os.kill(child, signal.SIGTERM))).start()
    elif "itself" in sys.argv:
        threading.Thread(target=lambda: (sys.stdin.readline(), leaving.now("the head has died", 1))).start()
    lock, library = ctypes.create_string_buffer(128), ctypes.CDLL(None)
    library.pthread_mutex_lock(lock)
    print("waits", flush=True)
    library.pthread_mutex_lock(lock)
"""


def state(pid: int) -> str:
    """Of the main thread: S where it sleeps."""
    return Path(f"/proc/{pid}/task/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def left(*words: str, within: float = 15) -> tuple[int | None, str, str]:
    """Exit code (None where it did not end), stdout and stderr of a process that is asked to leave."""
    command: Sequence[str] = [sys.executable, "-c", PROGRAM, *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, stdin=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "waits\n"
        wait_for(lambda: all(state(process.pid) == "S" for _ in range(20)))
        if "itself" in words or "forked" in words:
            process.stdin.write("now\n")
            process.stdin.flush()
        else:
            process.terminate()
        if "twice" in words:
            time.sleep(0.5)
            process.terminate()
        out, error = process.communicate(timeout=within)
        return process.returncode, out, error
    except subprocess.TimeoutExpired:
        return None, "", ""
    finally:
        process.kill()
        process.communicate()


def test_a_process_whose_main_thread_waits_inside_a_library_leaves_in_time() -> None:
    assert left() == (130, "last words\n", "left at once (SIGTERM)\n")


def test_a_second_signal_changes_nothing() -> None:
    assert left("twice") == (130, "last words\n", "left at once (SIGTERM)\n")


def test_also_where_it_is_a_thread_of_its_own_that_asks() -> None:
    assert left("itself") == (1, "last words\n", "left at once (the head has died)\n")


def test_without_a_watchdog_that_hears_by_itself_it_stays() -> None:
    assert left("deaf", within=6) == (None, "", "")


def test_a_signal_to_a_forked_child_is_not_the_parent_s() -> None:
    assert left("forked", within=5) == (None, "", "")


# A signal comes while Python runs the callback of a weak reference, which it does anywhere.
IN_A_CALLBACK = """
import os, signal, sys, time, weakref
from service.terminal.signals import Leaving

def come(_):
    os.kill(os.getpid(), signal.SIGTERM)
    for _ in range(1000):
        pass

with Leaving(lambda: None).installed():
    if "dropped" in sys.argv:
        sys.unraisablehook = sys.__unraisablehook__
    thing = {0}
    reference = weakref.ref(thing, come)
    try:
        del thing
        time.sleep(1 if "dropped" in sys.argv else 60)
        print("went on")
    except KeyboardInterrupt:
        print("left")
"""


def in_a_callback(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", IN_A_CALLBACK, *words], capture_output=True, text=True, check=True, timeout=60)


def test_a_signal_that_comes_in_a_callback_is_obeyed_after_it() -> None:
    ended = in_a_callback()
    assert (ended.stdout, ended.stderr) == ("left\n", "")


def test_before_there_is_anything_to_leave_it_is_obeyed_without_a_word() -> None:
    begun = "take, commands, obey = signals.take, signals.commands, signals.obey\ntake()\ncommands()\n"
    program = IN_A_CALLBACK.replace("from service.terminal.signals import Leaving", f"from service.terminal import signals\n{begun}")
    program = program.replace("with Leaving(lambda: None).installed():", "if True:").replace("time.sleep(1 if", "obey(); time.sleep(1 if")
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert (ended.stdout, ended.stderr) == ("left\n", "")


# No command runs: a notebook, or a script that calls winnow.run.
IN_A_SCRIPT = """
import os, signal, sys, threading, time
from service.terminal import signals

def press(number):
    os.kill(os.getpid(), number)

def long():
    time.sleep(signals.LEAVE + 1)
    return "in good order"

before = signal.getsignal(signal.SIGINT)
with signals.Leaving(lambda: print("last words", flush=True)).installed():
    try:
        if "shielded" in sys.argv:
            with signals.shielded():
                press(signal.SIGINT)
                print(long(), flush=True)
        press(signal.SIGINT)
        time.sleep(60)
    except KeyboardInterrupt:
        if "ended" in sys.argv:
            press(signal.SIGTERM)
        print(long(), flush=True)
print("goes on", signal.getsignal(signal.SIGINT) is before, signals.left(), signals.more())
"""


def in_a_script(*words: str) -> tuple[int, list[str], str]:
    ended = subprocess.run([sys.executable, "-c", IN_A_SCRIPT, *words], capture_output=True, text=True, check=False, timeout=60)
    return ended.returncode, ended.stdout.splitlines(), ended.stderr


def test_where_no_command_runs_ctrl_c_ends_the_call_and_not_the_process() -> None:
    """However long it takes, and also where foreign code must not be interrupted; afterwards nobody knows of it."""
    assert in_a_script() == (0, ["in good order", "goes on True False 0"], "")
    assert in_a_script("shielded") == (0, ["in good order", "in good order", "goes on True False 0"], "")


def test_a_signal_that_ends_processes_ends_it_there_too() -> None:
    assert in_a_script("ended") == (130, ["last words"], "left at once (SIGINT)\n")


def test_without_a_second_raise_it_would_be_dropped() -> None:
    ended = in_a_callback("dropped")
    assert ended.stdout == "went on\n"
    assert "Exception ignored in" in ended.stderr


# A batch system has sent SIGUSR1; the run that should end at it hangs.
WARNED = """
import os, signal, sys, time
from service.terminal import signals

signals.WARNED = 0.3
signals.take()
signals.commands()
with signals.Leaving(lambda: print("last words", flush=True)).installed():
    print(signals.warned())
    os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGUSR1)
    print(signals.warned(), signals.leaving())
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        print(signals.Leaving.current.why)
"""


def test_a_warning_does_not_end_a_process_but_one_that_is_still_there_later_leaves() -> None:
    ended = subprocess.run([sys.executable, "-c", WARNED], capture_output=True, text=True, check=True, timeout=60)
    assert (ended.stdout.splitlines(), ended.stderr) == (["False", "True False", "SIGTERM"], "")
