"""Which library the package glfw loads: gymnasium's MuJoCo environments import it for a window that nobody here opens.

Left to itself it starts a Python for each library it finds, only to ask for its version: half of what making an environment takes, and a
stray traceback where a Ctrl-C reaches one of them.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

VARIABLE = "PYGLFW_LIBRARY"  # glfw's own, read when it is imported


@contextlib.contextmanager
def its_own_library() -> Iterator[None]:
    """Meanwhile an import of glfw loads the library in its own wheel; nothing changes where it is imported, told otherwise or elsewhere."""
    library = None if "glfw" in sys.modules or VARIABLE in os.environ or _wayland() else _library()
    if library is None:
        yield
        return
    os.environ[VARIABLE] = str(library)
    try:
        yield
    finally:
        os.environ.pop(VARIABLE, None)


def _wayland() -> bool:
    """Whether glfw would load its other library: a desktop's own business."""
    return "wayland" in (os.environ.get("XDG_SESSION_TYPE"), os.environ.get("PYGLFW_LIBRARY_VARIANT", "").lower())


def _library() -> Path | None:
    spec = importlib.util.find_spec("glfw")
    folders = spec.submodule_search_locations if spec else None
    found = [path for folder in folders or () if (path := Path(folder, "x11", "libglfw.so")).is_file()]
    return found[0] if found else None
