"""What is set once in a process that trains."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource
import torch
from trainables.training.process import set_up_torch
if {kept}:
    set_up_torch()
faults = []
for _ in range(20):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    results = [torch.ones(2**18) for _ in range(10)]  # a megabyte each, as the activations of a dense CQL
    del results
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(sum(faults[5:]) / 15, torch.get_num_threads())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have settings of their own")
def test_memory_is_kept_from_update_to_update() -> None:
    found = {}
    for kept in (True, False):
        run = subprocess.run([sys.executable, "-c", PROGRAM.format(kept=kept)], check=True, capture_output=True, text=True)
        found[kept], threads = map(float, run.stdout.split())
        assert threads == 1 or not kept
    assert found[True] < 10
    assert found[False] > 1000  # or there is nothing to gain any more
