"""The threads of a block of the execution `onchip`, each for itself: none reads what another may be writing.

Neither a GPU nor the loop that stands for one on a CPU would say so: one is right most of the time, the other always. So the source is
compiled with a thread of the CPU for each of a block's, and ThreadSanitizer watches them train.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from trainables.native import build

HERE = Path(__file__).parent
COMPILER = ["gcc", "-std=gnu11", "-O1", "-g", "-fsanitize=thread", "-fPIC", "-shared"]
ROOT = Path(__file__).parents[3]

TRAIN = """
import ctypes, sys
from types import SimpleNamespace
import torch
from tests.stacks import World, small_trial
from trainables.native import onchip
from trainables.training.updates import Updates

loop = onchip.build.library()
for path in sys.argv[1:]:
    threads = ctypes.CDLL(path)
    threads.winnow_onchip.argtypes = loop.winnow_onchip.argtypes
    made = []
    for library in (loop, threads):
        onchip.build = SimpleNamespace(library=lambda library=library: library)
        world = World([small_trial("td3_bc", "snip", 0.7, hyper={"batch_size": 40})], "onchip").start()
        updates = Updates(world.agent, world.data)
        assert updates.launches
        updates.run(0, 2)  # the second of which is an actor's, too; each batch has two tiles
        made.append(world.rows())
    for name, row in made[0].items():
        if "whole" in path:
            torch.testing.assert_close(made[1][name], row, rtol=1e-5, atol=1e-6)
print("trained")
"""


def compiled(folder: Path, without: str = "") -> Path:
    """The source as it is, or without the SYNC of what `without` matches."""
    folder.mkdir()
    for header in build.NATIVE.glob("onchip*.h"):
        text = header.read_text()
        if without:
            text = re.sub(without, lambda match: match[0].replace("SYNC", ""), text, count=1)
        (folder / header.name).write_text(text)
    library = folder / f"{folder.name}.so"
    subprocess.run([*COMPILER, f"-I{folder}", HERE / "onchip_threads.c", "-o", library, "-lm", "-lpthread"], check=True)
    return library


def test_no_thread_reads_what_another_writes(tmp_path: Path) -> None:
    """And where a barrier is missing, that is found: else there would be nothing to see."""
    sanitizer = subprocess.run(["gcc", "-print-file-name=libtsan.so"], capture_output=True, text=True, check=False).stdout.strip()
    told = os.environ | {"LD_PRELOAD": sanitizer, "TSAN_OPTIONS": f"log_path={tmp_path}/found exitcode=0", "PYTHONPATH": str(ROOT)}
    if not os.path.isabs(sanitizer) or subprocess.run([sys.executable, "-c", "pass"], env=told, check=False).returncode:
        pytest.skip("no ThreadSanitizer that runs here")
    whole, torn = compiled(tmp_path / "whole"), compiled(tmp_path / "torn", without=r"rectified\(sum\) : sum;\s*\}\s*SYNC")
    ran = subprocess.run([sys.executable, "-c", TRAIN, whole, torn], env=told, cwd=ROOT, capture_output=True, text=True, check=False)
    found = "".join(file.read_text() for file in tmp_path.glob("found*"))
    if "FATAL: ThreadSanitizer" in ran.stderr + found:
        pytest.skip("ThreadSanitizer cannot run in the addresses that this kernel has chosen")
    assert (ran.returncode, ran.stdout) == (0, "trained\n"), ran.stderr[-2000:]
    assert "/whole/" not in found, found[:2000]
    assert re.search(r"data race \S+/torn/onchip_network.h:\d+ in (forward_through|summed)", found)  # who writes, or who reads
