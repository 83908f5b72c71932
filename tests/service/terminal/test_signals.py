from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence

# The main thread waits in C, as inside a library, where no signal handler of Python's runs.
PROGRAM = """
import ctypes, os, signal, sys, threading
from service.terminal.signals import Leaving

said = []
leaving = Leaving(lambda: said.append(print("last words", flush=True)))
if "deaf" in sys.argv:
    signal.set_wakeup_fd = lambda *_, **__: -1
with leaving.installed():
    if "forked" in sys.argv:
        child = os.fork()
        if not child:
            signal.pause()
        threading.Timer(0.3, os.kill, [child, signal.SIGTERM]).start()
    elif "itself" in sys.argv:
        threading.Timer(0.3, leaving.now, ["the head has died", 1]).start()
    lock, library = ctypes.create_string_buffer(128), ctypes.CDLL(None)
    library.pthread_mutex_lock(lock)
    print("waits", flush=True)
    library.pthread_mutex_lock(lock)
"""


def left(*words: str, within: float = 15) -> tuple[int | None, str, str]:
    """Exit code (None where it did not end), stdout and stderr of a process that is asked to leave."""
    command: Sequence[str] = [sys.executable, "-c", PROGRAM, *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "waits\n"
        time.sleep(0.3)  # until it does
        if "itself" not in words and "forked" not in words:
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
    began = time.monotonic()
    assert left() == (130, "last words\n", "left at once (SIGTERM)\n")
    assert time.monotonic() - began < 10


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
        time.sleep(1)
        print("went on")
    except KeyboardInterrupt:
        print("left")
"""


def in_a_callback(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", IN_A_CALLBACK, *words], capture_output=True, text=True, check=True, timeout=60)


def test_a_signal_that_comes_in_a_callback_is_obeyed_after_it() -> None:
    ended = in_a_callback()
    assert (ended.stdout, ended.stderr) == ("left\n", "")


def test_without_a_second_raise_it_would_be_dropped() -> None:
    ended = in_a_callback("dropped")
    assert ended.stdout == "went on\n"
    assert "Exception ignored in" in ended.stderr
