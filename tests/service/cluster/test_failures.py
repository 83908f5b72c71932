from __future__ import annotations

import errno

import pytest
import ray

from trainables.errors import UserError, first_line
from trainables.failures import reason


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (UserError("the mask leaves no path"), "user_error"),
        (MemoryError(), "out_of_memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB"), "out_of_memory"),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried to allocate"),
            "out_of_memory",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), "infrastructure"),
        (RuntimeError("CUDA error: uncorrectable ECC error encountered"), "infrastructure"),
        (ray.exceptions.WorkerCrashedError(), "infrastructure"),
        (ray.exceptions.RayTaskError("play", "ValueError: no such row", ValueError("no such row")).as_instanceof_cause(), "error"),
        (AttributeError("'Agent' object has no attribute 'critc'"), "error"),
    ],
)
def test_a_failure_has_the_class_that_decides_what_is_tried_again(error: Exception, wanted: str) -> None:
    assert reason(error) == wanted


def test_a_message_is_one_line() -> None:
    assert first_line(RuntimeError("first\nsecond"), named=True) == "RuntimeError: first"
    assert first_line(UserError("mend this")) == "mend this"
    assert first_line(MemoryError(), named=True) == first_line(MemoryError()) == "MemoryError"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR", "infrastructure"),
        ("Task was killed due to the node running low on memory.\nMemory on the node was 15.28GB / 15.28GB", "out_of_memory"),
        ("The actor died because of an error raised in its creation task, ...\nModuleNotFoundError: No module named 'x'", "error"),
        ("", "infrastructure"),
    ],
)
def test_rays_words_about_a_dead_worker_have_a_class(text: str, why: str) -> None:
    from service.cluster.tune_stacks import death

    assert death(text, 4)["reason"] == why
    assert death(text, 1)["reason"] == ("infrastructure" if why == "out_of_memory" else why)
    assert death(text, 4)["message"] == f"the worker died: {text.splitlines()[-1] if text else 'no message'}"
