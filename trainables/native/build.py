"""Compiles the C of `trainables/native/`, once per machine and with its C compiler, and declares its structs for ctypes. No torch.

The library is stored in `$WINNOW_CACHE` (default `~/.cache/winnow`), named by the hash of source and flags. `WINNOW_SIMD` is `auto`
(the best this processor has), `avx512`, `avx2` or `generic` (what the compiler does without any flag: NEON on ARM).
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from trainables.errors import MachineError, UserError, unknown
from trainables.storage import cache

NATIVE = Path(__file__).parent
SOURCES = [NATIVE / name for name in ("kernels.c", "product.c", "update.c", "replay.c", "rows.c", "simulate.c", "onchip.c")]
HEADERS = sorted(NATIVE.glob("*.h"))
REPLAYED = ("forward", "backward", "input_gradient", "input_gradient_backward", "gather", "track")  # in replay.c, by name
FLAGS = ("-std=gnu11", "-O3", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi", "-shared", "-fPIC")
SIMD = {"generic": (), "avx2": ("-mavx2", "-mfma"), "avx512": ("-mavx2", "-mfma", "-mavx512f")}  # the best one last
NEEDS: dict[str, set[str]] = {
    "generic": set(),
    "avx2": {"avx2", "fma"},
    "avx512": {"avx2", "fma", "avx512f"},
}  # of the processor, as Linux names it


def simd() -> str:
    """The instruction set in use; UserError where `WINNOW_SIMD` names none."""
    level = os.environ.get("WINNOW_SIMD", "auto")
    if level == "auto":
        return [name for name in SIMD if NEEDS[name] <= _features()][-1]
    if level not in SIMD:
        raise unknown("WINNOW_SIMD", level, ("auto", *SIMD))
    return level


@functools.cache
def _features() -> set[str]:
    """Linux's description of this processor; empty on other systems."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return {word for line in lines if line.startswith("flags") for word in line.split()}


TILE = 64  # batch elements that go through the network together, as in tile.h
NORM_EPSILON = 1e-6  # of layer normalization, added to the variance; flax's default, as in ReBRAC's code


class LayerStruct(ctypes.Structure):
    """As in tile.h."""

    _fields_ = [(name, ctypes.c_int32) for name in ("inputs", "outputs")] + [
        (name, ctypes.c_void_p) for name in ("start", "visit", "tstart")
    ]


class NetworkStruct(ctypes.Structure):
    """As in kernels.c."""

    _fields_ = (
        [(name, ctypes.c_int32) for name in ("members", "copies", "depth", "features", "outputs", "widest", "values", "tanh")]
        + [("norm", ctypes.c_float)]
        + [(name, ctypes.c_int32) for name in ("folding", "residual", "before")]
        + [("tile", ctypes.c_int64)]
        + [(name, ctypes.c_void_p) for name in ("column", "trow", "tvalue", "offset", "layers")]
    )


class AdamStruct(ctypes.Structure):
    """As in update.c."""

    _fields_ = (
        [(name, ctypes.c_int64) for name in ("members", "size")]
        + [("updates", ctypes.POINTER(ctypes.c_int64))]
        + [(name, ctypes.c_void_p) for name in ("value", "gradient", "first", "second", "rate")]
        + [("factor", ctypes.POINTER(ctypes.c_double))]
        + [(name, ctypes.c_double) for name in ("beta1", "beta2", "epsilon")]
    )


class RunnerStruct(ctypes.Structure):
    """As in simulate.c."""

    _fields_ = (
        [(name, ctypes.c_int32) for name in ("controls", "positions", "velocities", "frames", "terminates", "padding")]
        + [(name, ctypes.c_double) for name in ("seconds", "healthy_reward")]
        + [(name, ctypes.c_double * 2) for name in ("height", "angle", "state")]
        + [("velocity_limit", ctypes.c_double), ("control_cost", ctypes.c_float), ("unused", ctypes.c_float)]
        + [(name, ctypes.c_void_p) for name in ("low", "high")]
    )


@functools.cache
def library() -> ctypes.CDLL:
    """The kernels, compiled where that has not been done yet; MachineError where that is impossible."""
    kernels = _loaded(simd())
    pointer, integer, long = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
    for name, arguments in {
        "forward": [pointer, pointer, integer, pointer, integer, integer, integer, pointer, pointer, pointer],
        "backward": [pointer, pointer, integer, pointer, integer, integer, pointer, pointer, pointer, pointer],
        "input_gradient": [pointer, pointer, integer, integer, integer, pointer, pointer, pointer, pointer],
        "input_gradient_backward": [pointer, pointer, integer, integer, integer, *[pointer] * 6],
        "draw": [integer, pointer, long, integer, long, long, pointer, pointer],
        "normal": [long, pointer],
        "gather": [long, pointer, long, pointer, pointer, pointer, pointer],
        "adam": [ctypes.POINTER(AdamStruct)],
        "product": [pointer],
        "replay": [long, pointer],
        "elementwise": [pointer],
        "repeat": [pointer, long, long, pointer, pointer],
        "rows": [long, long, long, pointer, pointer, pointer],
        "track": [integer, long, pointer, pointer, pointer],
        "onchip": [pointer, integer, long, integer, *[pointer] * 3],
        "simulate": [pointer, pointer, pointer, integer, *[pointer] * 10],
    }.items():
        function = getattr(kernels, f"winnow_{name}")
        function.argtypes, function.restype = arguments, None
    return kernels


def reason() -> str:
    """Why the kernels cannot run here, in one line; empty where they can."""
    try:
        library()
    except UserError as error:
        return str(error)
    return ""


def available() -> bool:
    """True if the kernels can run here: they are compiled already, or there is a C compiler."""
    return not reason()


def _loaded(level: str) -> ctypes.CDLL:
    """The loaded library; a file that is damaged or from another system is compiled again, once."""
    file = _compiled(level)
    try:
        return ctypes.CDLL(str(file))
    except OSError:
        with contextlib.suppress(OSError):
            file.unlink()
    try:
        return ctypes.CDLL(str(_compiled(level)))
    except OSError as error:
        message = str(error).removeprefix(f"{file}: ").splitlines()[0]
        raise MachineError(f"cannot load the C kernels {str(file)!r} ({message}); set WINNOW_CACHE, or use execution 'dense'") from None


def _compiled(level: str) -> Path:
    """The shared library's file. Processes that compile it at the same time do not disturb each other: the last rename stays."""
    flags = (*FLAGS, *SIMD[level])
    compiler = os.environ.get("CC", "").strip() or "cc"
    contents = [file.read_bytes() for file in (*SOURCES, *HEADERS)]
    digest = hashlib.sha256(b"\0".join([*contents, " ".join([*flags, platform.machine()]).encode()])).hexdigest()[:16]
    folder = cache.root()
    target = folder / f"kernels-{level}-{digest}.so"
    try:
        cache.private(folder)
        if cache.trusted(target):  # one that others could have written is made again
            return target
        if shutil.which(compiler.split()[0]) is None:
            raise MachineError(f"no C compiler {compiler!r} to build the C kernels; install one, set CC, or use execution 'dense'")
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            made = Path(scratch) / target.name
            command = [*compiler.split(), *flags, *map(str, SOURCES), "-o", str(made), "-lm"]
            subprocess.run(command, check=True, capture_output=True, text=True)
            made.chmod(0o700)
            os.replace(made, target)
    except subprocess.CalledProcessError as error:
        lines = (error.stderr or "no message").strip().splitlines()
        first = next((line for line in lines if "error:" in line), lines[0])  # what comes before says where a file is included
        raise MachineError(f"{compiler!r} failed on the C kernels ({first}); set CC, or use execution 'dense'") from None
    except OSError as error:
        raise MachineError(f"cannot write the C kernels to {str(folder)!r} ({error.strerror}); set WINNOW_CACHE") from None
    return target
