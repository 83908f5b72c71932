"""What is set once in a process that trains."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import sys
from collections.abc import Iterator

import torch

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1  # of glibc's mallopt
KEPT = 2**30  # bytes


def set_up_torch(tf32: bool = False) -> None:
    """One thread, no denormal numbers, products as precise as asked for, and memory that is kept."""
    torch.set_num_threads(1)  # one thread per trial: with two, trials side by side slow each other to a crawl
    torch.set_flush_denormal(True)  # Adam's second moments underflow, and arithmetic on denormal numbers is up to 100 times slower
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    keep_memory()


@contextlib.contextmanager
def torch_as_before() -> Iterator[None]:
    """Gives torch's settings back at its end, in a process that does other things, too. The C library goes on keeping its memory."""
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    flushed = sys.float_info.min / 2 == 0  # torch does not tell
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(flushed)
        torch.set_float32_matmul_precision(precision)


@functools.cache
def keep_memory() -> None:
    """Have the C library keep freed memory for what is allocated next, where it is glibc.

    Otherwise a dense update of CQL gives its activations back to the system and asks for them again: 10,000 page faults, a third of its
    time (benchmarks/README.md)."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(TRIM_THRESHOLD, KEPT)
    mallopt(MMAP_THRESHOLD, KEPT)
