"""How users open MLflow."""

from __future__ import annotations

import shlex
from urllib.parse import urlsplit


def how_to_open(uri: str, page: str = "") -> str:
    """The command or address that opens MLflow, at `page` of it; without a password in the address."""
    if uri.startswith("sqlite"):
        return f"all curves: mlflow ui --backend-store-uri {shlex.quote(uri)}" + (
            f"\n  and then: http://127.0.0.1:5000/{page}" if page else ""
        )
    parts = urlsplit(uri)
    address = f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"
    return f"all curves: {address.rstrip('/')}/{page}" if page else f"all curves: {address}"
