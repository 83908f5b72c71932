"""Classes of failures, which decide what is retried, and what is recorded of a failure. Imports neither ray nor torch."""

from __future__ import annotations

import platform
import traceback

from trainables.errors import MachineError, StoppedError, SupersededError, UserError, first_line

LINE_LIMIT, TRACEBACK_LIMIT = 500, 4000  # characters
# CUDA's wording, and torch's on a CPU in two versions.
OUT_OF_MEMORY = ("out of memory", "not enough memory", "allocate memory")
BROKEN = ("cuda error", "cuda driver error")  # of the GPU or its driver: a fresh worker, perhaps on another node, may succeed


def failure(error: Exception) -> dict[str, str]:
    """What is recorded of a failure: its class, one line, and the end of the traceback where that adds something."""
    why = reason(error)
    expected = isinstance(error, (UserError, StoppedError))  # its line says all
    line = first_line(error, named=not isinstance(error, UserError))
    if why == "infrastructure":
        line = f"{platform.node()}: {line}"
    recorded = {"reason": why, "message": line[:LINE_LIMIT]}
    if why == "gone":  # the driver has to tell a storage that is gone from a host that does not see it
        recorded["host"] = platform.node()
    return recorded if expected else recorded | {"traceback": traceback.format_exc()[-TRACEBACK_LIMIT:]}


def reason(error: BaseException) -> str:
    """The class of a failure. It decides whether and how the work is retried."""
    text = str(error).lower()
    if isinstance(error, MachineError):
        return "infrastructure"
    if isinstance(error, UserError):
        return "user_error"
    if isinstance(error, SupersededError):
        return error.kind
    if isinstance(error, StoppedError):
        return "stopped"
    if isinstance(error, MemoryError) or any(words in text for words in OUT_OF_MEMORY):
        return "out_of_memory"
    # Ray's own errors concern its processes and nodes; a RayTaskError wraps what the function itself raised.
    ray = type(error).__module__.startswith("ray.") and not type(error).__name__.startswith("RayTaskError")
    broken = isinstance(error, OSError) or ray or any(words in text for words in BROKEN)
    return "infrastructure" if broken else "error"
