"""A Chromium of its own for pages, spoken to over a pipe: its DevTools protocol, without a port, a network or another package."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
# Its sandbox needs rights that containers and root have not; the page comes from here and may load nothing.
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--remote-debugging-pipe",
         "--proxy-server=127.0.0.1:9", "--disable-background-networking", "--hide-scrollbars")  # fmt: skip
# Chromium reads commands from descriptor 3 and answers on 4.
PIPES = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execvp(sys.argv[3], sys.argv[3:])"


class Browser:
    """One page. `told` collects what the page's console and the browser's log have said."""

    def __init__(self, read: int, write: int) -> None:
        self._read, self._write, self._rest, self._number = read, write, b"", 0
        self.told: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    _session: str | None = None

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a command; AssertionError with the browser's words where it refuses."""
        self._number += 1
        session = {"sessionId": self._session} if self._session else {}
        message = {"id": self._number, "method": method, "params": parameters} | session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            self._hear(answer)
        assert "error" not in answer, answer
        return dict(answer["result"])

    def open(self, page: Path, width: int, scheme: str, *, unfold: bool = True) -> None:
        """Load a file `width` CSS pixels wide, with the reader's preference `light` or `dark`, and open all that is folded."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.go(page.as_uri())
        if unfold:
            self.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")

    def go(self, address: str) -> None:
        """Load a page."""
        self.call("Page.navigate", url=address)
        while (message := self._next()).get("method") != "Page.loadEventFired":
            self._hear(message)

    def frames(self, expression: str) -> list[Any]:
        """The value of an expression in each frame that is another document's, as a sandboxed one is."""
        page, found = self._session, []
        for target in self.call("Target.getTargets")["targetInfos"]:
            if target["type"] == "iframe" and not target["url"].startswith("chrome"):
                self._session = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
                found.append(self.evaluate(expression))
                self._session = page
        return found

    def evaluate(self, expression: str) -> Any:
        """The value of a script's expression in the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def picture(self, height: int, top: int = 0) -> bytes:
        """The page from `top` downwards as PNG."""
        width = self.evaluate("innerWidth")
        clip = {"x": 0, "y": top, "width": width, "height": height, "scale": 1}
        return base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)["data"])

    def _next(self) -> Mapping[str, Any]:
        while b"\0" not in self._rest:
            part = os.read(self._read, 1 << 20)
            assert part, "the browser has gone"
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(message))

    def _hear(self, message: Mapping[str, Any]) -> None:
        if message.get("method") in ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
            self.told.append(json.dumps(message["params"]))


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """A headless Chromium with an empty profile in `profile`; AssertionError where there is none."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    assert program, "no Chromium here: apt-get install chromium"
    (to_read, to_write), (from_read, from_write) = os.pipe(), os.pipe()
    words = [sys.executable, "-c", PIPES, str(to_read), str(from_write), program, *FLAGS, f"--user-data-dir={profile}"]
    place = os.environ | {"HOME": str(profile)}
    process = subprocess.Popen(words, pass_fds=(to_read, from_write), stderr=subprocess.DEVNULL, env=place)
    os.close(to_read)
    os.close(from_write)
    try:
        yield Browser(from_read, to_write)
    finally:
        os.close(to_write)  # it ends with its pipe
        os.close(from_read)
        process.terminate()
        process.wait(30)
