"""How users open MLflow."""

from __future__ import annotations

import shlex
from urllib.parse import urlsplit

from service.terminal.redaction import redact


def how_to_open(uri: str, page: str = "") -> str:
    """The command, for a database, or the address that opens MLflow, at `page` of it; without a password in the address."""
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https"):
        return f"all curves: mlflow ui --backend-store-uri {shlex.quote(redact(uri))}" + (
            f"\n  and then: http://127.0.0.1:5000/{page}" if page else ""
        )
    address = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    return f"all curves: {address.rstrip('/')}/{page}" if page else f"all curves: {address}"
