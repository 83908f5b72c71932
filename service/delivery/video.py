"""Episodes as an MP4 file, also without a screen or a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from service.terminal.waiting import waiting
from trainables import project
from trainables.errors import UserError

PROBE = "import mujoco; mujoco.Renderer(mujoco.MjModel.from_xml_string('<mujoco/>'), 16, 16).close()"
INSTALL = "EGL renders without a screen: apt-get install libegl1 libgl1-mesa-dri; or osmesa: apt-get install libosmesa6"


def choose_renderer() -> str:
    """Find a value of MUJOCO_GL that works and set it: the present one, else the first of EGL, OSMesa and, with a screen, GLFW. Raises
    UserError, with what to install, if none works."""
    given = os.environ.get("MUJOCO_GL", "")
    tried = [given] if given else ["egl", "osmesa", *(["glfw"] if os.environ.get("DISPLAY") else [])]
    with waiting("looking for a renderer"):
        for name in tried:
            if _works(name):
                os.environ["MUJOCO_GL"] = name
                return name
    raise UserError(f"no renderer works for MuJoCo here ({'MUJOCO_GL=' + given if given else 'tried ' + ', '.join(tried)}); {INSTALL}")


@cache
def _works(renderer: str) -> bool:
    """Whether MuJoCo draws by it in a new process: in this one, mujoco may be imported already."""
    done = subprocess.run([sys.executable, "-c", PROBE], env=os.environ | {"MUJOCO_GL": renderer}, capture_output=True, check=False)
    return done.returncode == 0


class Video:
    """Writes frames to `path`, which appears only when the `with` succeeds."""

    def __init__(self, path: Path) -> None:
        """Raises UserError if such a file cannot be written."""
        self.path = project.expanded(path).absolute()
        if self.path.suffix != ".mp4":
            raise UserError(f"video {str(path)!r} does not end in .mp4")
        if not self.path.parent.is_dir():
            raise UserError(f"video {str(path)!r}: there is no folder {str(self.path.parent)!r}")
        try:
            import imageio_ffmpeg  # noqa: F401
        except ImportError:
            raise UserError("--video needs the package 'imageio-ffmpeg': pip install 'winnow-rl[video]'") from None
        choose_renderer()
        self._temporary = self.path.with_name(f".{self.path.stem}.{os.getpid()}.tmp.mp4")
        self._encoder: Any = None

    def frame(self, picture: Any, fps: int) -> None:
        """Add a frame [height, width, 3], uint8."""
        import imageio_ffmpeg
        import numpy as np

        if self._encoder is None:
            size = picture.shape[1], picture.shape[0]
            self._encoder = imageio_ffmpeg.write_frames(self._temporary, size, fps=fps, macro_block_size=2)  # H.264 needs even sizes
            self._encoder.send(None)
        self._encoder.send(np.ascontiguousarray(picture))

    def __enter__(self) -> Video:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if self._encoder is not None:
                self._encoder.close()
                if kind is None:
                    os.replace(self._temporary, self.path)
        finally:
            self._temporary.unlink(missing_ok=True)
