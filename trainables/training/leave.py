"""The request to leave, which another thread makes and training looks at after each update: as cheap as reading a number."""

from __future__ import annotations

import ctypes


class Leave:
    """`asked`: training is to commit what it has and end. Its answer: the `update` that it had reached, and the one that is `kept`."""

    __slots__ = ("flag", "kept", "update")

    def __init__(self) -> None:
        self.flag = ctypes.c_int64()  # where C sees it
        self.update = self.kept = 0

    @property
    def asked(self) -> bool:
        return bool(self.flag.value)

    @asked.setter
    def asked(self, asked: bool) -> None:
        self.flag.value = asked
