"""The driver's heartbeat: renews its lease, and notices a takeover, a storage that is gone, or a request to stop."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from service.ledger import lease
from service.ledger.errors import GoneError
from service.ledger.lease import Lease
from service.storage import shared_files
from trainables.errors import SupersededError

LAST = 1.0  # seconds that a beat which is under way is waited for


class Heartbeat:
    """A thread that beats inside `with`; calls `leave(why)` once, when the driver has to leave, with the exit code 1 if all is gone."""

    def __init__(self, held: Lease, stop_request: Path, leave: Callable[..., None]) -> None:
        self._lease, self._request, self._leave, self._over = held, stop_request, leave, threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        self._thread.join(LAST)  # on S3, a beat that came later would make the file of a removed lease again

    def _run(self) -> None:
        while not self._over.wait(lease.BEAT):
            # A full disk, an unreachable S3 or a proxy that answers HTML may recover; if they do not, another driver takes over. So does
            # one if this thread ends by an error that nobody has foreseen.
            with contextlib.suppress(Exception):
                try:
                    self._lease.check()
                except GoneError as error:
                    return self._leave(str(error), 1)
                except SupersededError:
                    return self._leave("another driver has taken over") if self._lease.held else None
                self._lease.beat()
                if shared_files.exists(self._request):
                    return self._leave("asked to stop")
        return None
