"""Types the commands of docs/from-nothing.md, and writes its files, in an empty folder and an empty home; renews the page's table of times.

    python -m benchmarks.from_nothing                # minutes, mostly for the installation; needs a package index
    python -m benchmarks.from_nothing --page         # and a picture of the report's page, in Chromium

Ray's head has ports and a folder of its own and is ended by its process group, since `ray stop` would end everybody's.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.tables import fill, markdown

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "from-nothing.md"
STEP = re.compile(r"(?:`([\w./-]+\.py)`:\n\n)?```(sh|python)\n(.*?)^```", re.M | re.S)
PICTURE = (1280, 1600)  # pixels
PATIENCE = 1800.0  # seconds for a command


@dataclass(frozen=True)
class Typed:
    command: str
    seconds: float
    load: float = field(default_factory=lambda: os.getloadavg()[0])  # of the machine when it ended


def steps(text: str) -> Iterator[tuple[str, str]]:
    """(`pruners/mine.py`, its text) for a file of a page, ("", a command) for a line of a shell block, in the page's order."""
    for name, kind, block in STEP.findall(text):
        if kind == "python":
            yield name, block
        else:
            yield from (("", line) for line in block.splitlines() if line and not line.startswith("#"))


@dataclass
class Shell:
    """A bash that runs one command after the other, with nothing of this machine's user but Python and the compiler."""

    folder: Path
    python: Path = Path(sys.base_prefix) / "bin"
    more: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        home = self.folder / "home"
        home.mkdir()
        index = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}  # where this machine's packages come from
        environment = index | {"HOME": str(home), "PATH": f"{self.python}:/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", **self.more}
        self._bash = subprocess.Popen(
            ["bash", "--noprofile", "--norc"], cwd=self.folder / "work", env=environment, text=True, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def type(self, command: str) -> Typed:
        """Run a command, showing what it prints; raises RuntimeError where it fails."""
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        begun = time.monotonic()
        print(f"$ {command}", flush=True)
        self._bash.stdin.write(f"{{ {command}\n}} < /dev/null\nended=$?; echo; echo ended:$ended:$PWD\n")
        self._bash.stdin.flush()
        for line in self._bash.stdout:
            if found := re.fullmatch(r"ended:(\d+):(.*)\n", line):
                self.here = Path(found[2])
                if int(found[1]):
                    raise RuntimeError(f"{command}: exit code {found[1]}")
                return Typed(command, time.monotonic() - begun)
            print(f"  {line}" * bool(line.strip()), end="", flush=True)
        raise RuntimeError(f"{command}: bash has ended")

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._bash.pid, signal.SIGKILL)
        self._bash.communicate()


@contextlib.contextmanager
def head(shell: Shell, command: str, folder: Path) -> Iterator[Typed]:
    """Ray's head by a command of the page, with free ports, until the end; the shell's commands find its job server."""
    names = ("port", "dashboard-port", "dashboard-agent-listen-port", "ray-client-server-port", "metrics-export-port")
    sockets = [socket.socket() for _ in names]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    options = " ".join(f"--{name}={port}" for name, port in zip(names, ports, strict=True))
    begun = time.monotonic()
    alone = f"--dashboard-host=127.0.0.1 --temp-dir={folder} {options} --block > {folder}/head.log 2>&1 & echo $! > {folder}/head.pid"
    shell.type(f"{command} {alone}")
    try:
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", ports[1]), 1):
                break
            time.sleep(0.2)
        shell.type(f"export RAY_API_SERVER_ADDRESS=http://127.0.0.1:{ports[1]}")
        yield Typed(command, time.monotonic() - begun)
    finally:
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            os.kill(int((folder / "head.pid").read_text()), signal.SIGTERM)


def run(folder: Path, more: dict[str, str] | None = None, skip: tuple[str, ...] = ()) -> list[Typed]:
    """Do what the page says in `folder`, which is empty but for `work/winnow`, a clone; commands that begin with one of `skip` are left
    out."""
    shell, typed = Shell(folder, more=more or {}), []
    rays = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # short: sockets have names of at most 107 characters
    try:
        with contextlib.ExitStack() as inside:
            for name, text in steps(PAGE.read_text()):
                if name:
                    (shell.here / name).write_text(text)
                elif text.startswith(("ray stop", *skip)):
                    continue
                elif text.startswith("ray start"):
                    typed.append(inside.enter_context(head(shell, text, rays)))
                else:
                    typed.append(shell.type(text))
    finally:
        shell.close()
        shutil.rmtree(rays, ignore_errors=True)
    return typed


def table(typed: list[Typed]) -> str:
    rows = [["command", "seconds"], *([f"`{each.command}`", f"{each.seconds:.0f}"] for each in typed if each.seconds >= 0.5)]
    loads = [each.load for each in typed]
    on = f"{os.cpu_count()} cores with a load of {min(loads):.0f} to {max(loads):.0f}"
    return f"{markdown(rows)}\n\n{sum(each.seconds for each in typed) / 60:.0f} minutes in all, on {on}."


def picture(page: Path, to: Path) -> None:
    """What Chromium shows of a page."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        raise SystemExit("no Chromium here (Debian: apt-get install chromium)")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size={PICTURE[0]},{PICTURE[1]}"]
    subprocess.run([browser, *options, f"--screenshot={to}", page.absolute().as_uri()], check=True, capture_output=True, timeout=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", type=Path, metavar="PNG", help="also a picture of the report's page")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="work here, and leave it (default: a folder that is removed)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="from-nothing-") as temporary:
        folder = given.keep or Path(temporary)
        (folder / "work").mkdir(parents=True)
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder / "work" / "winnow")], check=True)
        typed = run(folder)
        if given.page:
            picture(folder / "work" / "mine" / "storage" / "reports" / "steady_or_snip" / "page.html", given.page)
    fill(PAGE, "from_nothing", table(typed))


if __name__ == "__main__":
    main()
