from __future__ import annotations

import errno

import pytest

from trainables.errors import UserError
from trainables.tune_trainable import one_line, reason


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
        (AttributeError("'Agent' object has no attribute 'critc'"), "error"),
    ],
)
def test_a_failure_has_the_class_that_decides_what_is_tried_again(error: Exception, wanted: str) -> None:
    assert reason(error) == wanted


def test_a_message_is_one_line() -> None:
    assert one_line(RuntimeError("first\nsecond"), named=True) == "RuntimeError: first"
    assert one_line(UserError("mend this"), named=False) == "mend this"
    assert one_line(MemoryError(), named=True) == "MemoryError: "
