"""The address of a running cluster. Does not import Ray."""

from __future__ import annotations

import os
import socket
from urllib.parse import urlsplit

from service.terminal.redaction import redact
from trainables.errors import UserError

ANSWER = 10.0  # seconds that a cluster's head may take to answer


def check_reachable() -> None:
    """Raise UserError where $RAY_ADDRESS names a head that does not answer: Ray would try for two minutes, and then end the process."""
    address = os.environ.get("RAY_ADDRESS", "")
    parts = urlsplit(address if "://" in address else f"ray://{address}")
    if not parts.hostname or address in ("auto", "local"):
        return
    try:
        socket.create_connection((parts.hostname, parts.port or 6379), timeout=ANSWER).close()
    except OSError as error:
        raise UserError(
            f"RAY_ADDRESS {redact(address)} does not answer ({error.strerror or error}); start it, or unset RAY_ADDRESS"
        ) from None
