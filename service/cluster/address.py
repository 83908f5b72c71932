"""The address of a running cluster, and whether it can be used. Does not import Ray."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

from service.cluster import embedded
from service.terminal.redaction import redact
from trainables.errors import UserError

ANSWER = 10.0  # seconds that a cluster's head may take to answer
NO_TOKEN = "asks for no token: whoever reaches it can run code there as its user"
HEAD_PORT, CLIENT_PORT = 6379, 10001


def given() -> str:
    """What $RAY_ADDRESS names; empty where Ray is embedded."""
    address = os.environ.get("RAY_ADDRESS", "")
    return "" if address == "local" else address


def check_usable() -> None:
    """Raise UserError where the head that $RAY_ADDRESS names does not answer, which Ray would try for two minutes and then end the
    process, and where none is named and Ray cannot start here."""
    address = given()
    if not address:
        embedded.check_possible()
        return
    host, port = place(address)
    if address == "auto" and not host:
        raise UserError("RAY_ADDRESS=auto, and no cluster runs on this host; `ray start --head`, or unset RAY_ADDRESS")
    if not host:
        raise _no_address(address)
    try:
        socket.create_connection((host, port), timeout=ANSWER).close()
    except OSError as error:
        why = error.strerror or error
        raise UserError(f"RAY_ADDRESS {redact(address)} does not answer ({why}); start it, or unset RAY_ADDRESS") from None


def place(address: str) -> tuple[str, int]:
    """Host and port of a cluster's address; `auto` is the cluster that was started on this host last. Empty where there is none.

    Raises UserError for what is no address."""
    named = running_here() if address == "auto" else address
    try:
        parts = urlsplit(named if "://" in named else f"gcs://{named}")
        return parts.hostname or "", parts.port or (CLIENT_PORT if parts.scheme == "ray" else HEAD_PORT)
    except ValueError:
        raise _no_address(address) from None


def _no_address(given: str) -> UserError:
    return UserError(
        f"RAY_ADDRESS {redact(given)!r} is not a valid address: HOST:PORT, ray://HOST:PORT, or auto for the cluster of this host"
    )


def running_here() -> str:
    """The address of the cluster that `auto` means, from a file that Ray writes at its start; empty if none runs."""
    file = Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp") / "ray" / "ray_current_cluster"
    return file.read_text().strip() if file.exists() else ""


def asks_for_token(host: str, port: int, patience: float = ANSWER) -> bool:
    """Whether a head refuses who brings no token; True, too, where it does not answer in its own protocol."""
    import grpc  # brought by ray[default]

    with grpc.insecure_channel(f"{host}:{port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
        ask = channel.unary_unary("/ray.rpc.NodeInfoGcsService/CheckAlive")
        try:
            ask(b"", timeout=patience)
        except grpc.RpcError:
            return True
    return False
