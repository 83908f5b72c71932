"""What is set once in a process that trains."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys

import pytest

# glibc's own count of the free memory that it holds, since not every kernel counts page faults
PROGRAM = """
import ctypes
import torch
from trainables.training.process import set_up_torch
if {kept}:
    set_up_torch()
FIELDS = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
mallinfo2 = ctypes.CDLL(None).mallinfo2
mallinfo2.restype = type("mallinfo2", (ctypes.Structure,), dict(_fields_=[(name, ctypes.c_size_t) for name in FIELDS]))
torch.ones(2**24)  # 64 MB: more than what glibc keeps of its own accord, wherever the heap's top is
print(mallinfo2().fordblks, torch.get_num_threads())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason=f"{platform.libc_ver()} is not a glibc that counts its memory")
def test_memory_is_kept_from_update_to_update() -> None:
    found = {}
    for kept in (True, False):
        run = subprocess.run([sys.executable, "-c", PROGRAM.format(kept=kept)], check=True, capture_output=True, text=True)
        found[kept], threads = map(int, run.stdout.split())
        assert threads == 1 or not kept
    assert found[True] >= 64 * 2**20
    assert found[False] < 64 * 2**20  # or there is nothing to gain any more
