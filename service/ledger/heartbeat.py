"""The driver's heartbeat: shows life, and sees that another driver has taken over or that somebody asks it to leave."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from service.ledger import lease
from service.ledger.lease import Lease
from service.storage import shared_files
from trainables.errors import SupersededError, UserError


class Heart:
    """Beats inside `with`; calls `leave(why)`, once, where the driver has to go."""

    def __init__(self, held: Lease, stop_request: Path, leave: Callable[[str], None]) -> None:
        self._lease, self._request, self._leave, self._over = held, stop_request, leave, threading.Event()
        self._thread = threading.Thread(target=self._run, name="heart", daemon=True)

    def __enter__(self) -> Heart:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()

    def _run(self) -> None:
        while not self._over.wait(lease.BEAT):
            # A disk or S3 that is full or away for a while, credentials that are renewed: away for long, another driver takes over.
            with contextlib.suppress(OSError, UserError):
                try:
                    self._lease.check()
                except SupersededError:
                    return self._leave("another driver has taken over") if self._lease.held else None
                self._lease.beat()
                if shared_files.exists(self._request):
                    return self._leave("asked to stop")
        return None
