"""How people open MLflow's page."""

from __future__ import annotations

from urllib.parse import urlsplit


def look(uri: str, page: str = "") -> str:
    """How to open MLflow, at one page of it; a password in the address is not shown."""
    if uri.startswith("sqlite:"):
        return f"all curves: mlflow ui --backend-store-uri {uri}" + (f"\n  and then: http://127.0.0.1:5000/{page}" if page else "")
    parts = urlsplit(uri)
    address = f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"
    return f"all curves: {address.rstrip('/')}/{page}" if page else f"all curves: {address}"
