"""C programs on an ARM processor (NEON): cross-compiled, and run under QEMU.

Debian: apt-get install qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross. What needs them is skipped where they are not installed.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from trainables.native import build

COMPILER, EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64"
FLAGS = [flag for flag in build.FLAGS if flag not in ("-shared", "-fPIC")]
emulated = pytest.mark.skipif(not (shutil.which(COMPILER) and shutil.which(EMULATOR)), reason=f"needs {COMPILER} and {EMULATOR}")


def array(kind: str, name: str, numbers: Iterable[float]) -> str:
    """A C array that holds `numbers` exactly."""
    shown = (float(n).hex() if kind == "float" else str(int(n)) for n in numbers)
    return f"static {kind} {name}[] = {{{', '.join(shown)}}};"


def compiled(source: Path, target: Path) -> str:
    """The object file `target` of a source of the project."""
    subprocess.run([COMPILER, *FLAGS, "-c", str(source), "-o", str(target)], check=True)
    return str(target)


def told(program: str, folder: Path, objects: Sequence[str] = ()) -> list[float]:
    """The numbers that a C program prints with "%a", one per line; it may include the project's sources."""
    source, binary = folder / "main.c", folder / "main"
    source.write_text(program)
    command = [COMPILER, *FLAGS, "-static", f"-I{build.NATIVE}", str(source), *objects, "-o", str(binary), "-lm"]
    subprocess.run(command, check=True)
    lines = subprocess.run([EMULATOR, str(binary)], check=True, capture_output=True, text=True).stdout.split()
    return [float.fromhex(line) for line in lines]
