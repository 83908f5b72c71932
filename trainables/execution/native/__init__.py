"""The C kernels of `kernels.c`, compiled once per machine by its own C compiler, called through ctypes.

The library lies in `$WINNOW_CACHE` (default `~/.cache/winnow`), named by the hash of source and flags. `WINNOW_SIMD` is `auto`
(the best this processor has), `avx2` or `generic` (what the compiler does without any flag).
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from trainables.errors import UserError, unknown

SOURCE = Path(__file__).with_name("kernels.c")
FLAGS = ("-std=gnu11", "-O3", "-fno-math-errno", "-Wno-psabi", "-shared", "-fPIC")
SIMD = {"generic": (), "avx2": ("-mavx2", "-mfma")}


def simd() -> str:
    """The instruction set in use; UserError where `WINNOW_SIMD` names none."""
    asked = os.environ.get("WINNOW_SIMD", "auto")
    if asked == "auto":
        return "avx2" if torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512") else "generic"
    if asked not in SIMD:
        raise unknown("WINNOW_SIMD", asked, ("auto", *SIMD))
    return asked


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


def library() -> ctypes.CDLL:
    """The kernels, compiled where that has not been done yet; UserError where that is impossible."""
    return _load(simd())


@functools.cache
def _load(level: str) -> ctypes.CDLL:
    found = ctypes.CDLL(str(_compiled(level)))
    pointer, integer, long, double = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_double
    for name, arguments in {
        "forward": [pointer, pointer, integer, pointer, integer, integer, integer, pointer, pointer],
        "backward": [pointer, pointer, integer, pointer, integer, integer, pointer, pointer, pointer, pointer],
        "adam": [integer, long, pointer, pointer, pointer, pointer, pointer, double, double, double, long],
        "track": [integer, long, pointer, pointer, pointer],
    }.items():
        function = getattr(found, f"winnow_{name}")
        function.argtypes, function.restype = arguments, None
    return found


def _compiled(level: str) -> Path:
    """The shared library's file. Processes that compile it at the same time do not disturb each other: the last rename stays."""
    flags = (*FLAGS, *SIMD[level])
    compiler = os.environ.get("CC", "cc")
    digest = hashlib.sha256(b"\0".join([SOURCE.read_bytes(), " ".join(flags).encode(), platform.machine().encode()])).hexdigest()[:16]
    folder = Path(os.environ.get("WINNOW_CACHE") or Path.home() / ".cache" / "winnow")
    target = folder / f"kernels-{level}-{digest}.so"
    if target.exists():
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            made = Path(scratch) / target.name
            subprocess.run([*compiler.split(), *flags, str(SOURCE), "-o", str(made), "-lm"], check=True, capture_output=True, text=True)
            os.replace(made, target)
    except FileNotFoundError:
        raise UserError(f"no C compiler {compiler!r} to build the sparse kernels; install one, set CC, or use execution 'dense'") from None
    except subprocess.CalledProcessError as error:
        first = (error.stderr or "no message").strip().splitlines()[0]
        raise UserError(f"{compiler!r} failed on the sparse kernels ({first}); set CC, or use execution 'dense'") from None
    except OSError as error:
        raise UserError(f"cannot write the sparse kernels to {str(folder)!r} ({error.strerror}); set WINNOW_CACHE") from None
    return target


def adam(rows: Sequence[Tensor], rate: Tensor, update: int, betas: tuple[float, float], epsilon: float) -> None:
    """One Adam update in place of `rows`: parameters, gradient, first and second moment, each float32 [K, V], with a learning rate
    per member [K] or [K, 1]; `update` counts from 1. torch.optim.Adam's formulas in one pass; a member's numbers do not depend on K."""
    members, size = rows[0].shape
    library().winnow_adam(members, size, *_pointers(*rows), _per_member(rate, members), *betas, epsilon, update)
    torch.autograd.graph.increment_version(rows[0])


def track(target: Tensor, online: Tensor, tau: Tensor) -> None:
    """Polyak averaging of rows [K, V] in place: target += tau (online - target), with `tau` per member [K] or [K, 1]."""
    members, size = target.shape
    library().winnow_track(members, size, *_pointers(target, online), _per_member(tau, members))
    torch.autograd.graph.increment_version(target)


def _pointers(*rows: Tensor) -> list[int]:
    shape = rows[0].shape
    if any(t.dtype != torch.float32 or not t.is_cpu or not t.is_contiguous() or t.shape != shape for t in rows):
        raise ValueError(f"float32 CPU rows of one shape are wanted; got {[(t.dtype, t.device.type, tuple(t.shape)) for t in rows]}")
    return [t.data_ptr() for t in rows]


def _per_member(values: Tensor, members: int) -> int:
    if values.dtype != torch.float32 or not values.is_contiguous() or values.numel() != members:
        raise ValueError(f"one float32 number for each of {members} members is wanted; got {values.dtype} {tuple(values.shape)}")
    return values.data_ptr()
