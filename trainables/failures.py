"""The class of a failure, on which hangs what may be tried again, and what the manifest keeps of it. Imports neither ray nor torch."""

from __future__ import annotations

import traceback

from trainables.errors import StoppedError, SupersededError, UserError

MOST_TRACEBACK = 4000  # characters
# CUDA's words, and torch's on a CPU in two versions.
OUT_OF_MEMORY = ("out of memory", "not enough memory", "allocate memory")
BROKEN = ("cuda error", "cuda driver error")  # of the card or its driver: a worker that begins anew, perhaps elsewhere, may do better


def failure(error: Exception) -> dict[str, str]:
    """What the manifest keeps of it: class, one line, and the end of the traceback where it tells more than the line."""
    why = reason(error)
    told = {"reason": why, "message": one_line(error, named=why != "user_error")}
    return told if why in ("user_error", "stopped") else told | {"traceback": traceback.format_exc()[-MOST_TRACEBACK:]}


def reason(error: BaseException) -> str:
    """The class of a failure: what may be tried again, and how, hangs on it."""
    text = str(error).lower()
    if isinstance(error, UserError):
        return "user_error"
    if isinstance(error, SupersededError):
        return "superseded"
    if isinstance(error, StoppedError):
        return "stopped"
    if isinstance(error, MemoryError) or any(words in text for words in OUT_OF_MEMORY):
        return "out_of_memory"
    # Ray's own errors are of its processes and nodes; a RayTaskError stands for what the function itself raised.
    ray = type(error).__module__.startswith("ray.") and not type(error).__name__.startswith("RayTaskError")
    broken = isinstance(error, OSError) or ray or any(words in text for words in BROKEN)
    return "infrastructure" if broken else "error"


def one_line(error: Exception, named: bool) -> str:
    """The first line of an error's text, after its class where `named`."""
    text = (str(error).strip().splitlines() or [""])[0][:500]
    return f"{type(error).__name__}: {text}" if named else text
