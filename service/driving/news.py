"""News of a run for a person elsewhere: a POST to a webhook, from a thread of its own, so that no server can hold up the driver."""

from __future__ import annotations

import html
import json
import os
import platform
import queue
import re
import threading
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from service.terminal.redaction import hides_secret, redact_webhook
from service.terminal.signals import blocked
from trainables.errors import UserError

VARIABLE = "WINNOW_NOTIFY"
FORM = r"(?P<slack>slack:)?(?P<url>https?://(?P<host>[^\s/?#]+)[^\s]*)"
SLACK = r"(?:[^@]*@)?hooks\.slack(?:-gov)?\.com(?::\d+)?"  # whose messages have a shape of their own
TIMEOUT = (5.0, 10.0)  # seconds to connect, and to wait for the answer
PAUSES = (1.0, 2.0, 4.0, 8.0)  # seconds before each further try
AGAIN = (408, 425, 429)  # statuses that may be another one later, beside 500 and above
STALLED_EVERY = 600.0  # seconds between two messages about stalled workers


def address(given: str | None) -> str:
    """The address to tell, the one given or $WINNOW_NOTIFY; empty for nobody. Raises UserError for what is none, and for a hidden one."""
    known = os.environ.get(VARIABLE, "")
    if given and hides_secret(given):
        if not known:
            raise UserError(f"the address of --notify {given} is not stored; give it again, or set {VARIABLE}")
        given = known
    chosen, name = (given, "--notify") if given else (known, VARIABLE)
    if chosen and not _is_webhook(chosen):
        raise UserError(f"{name} {redact_webhook(chosen)!r} is not a webhook address: http://..., https://..., or slack: and one of these")
    return chosen


def _is_webhook(address: str) -> bool:
    found = re.fullmatch(FORM, address)
    try:
        return bool(found and urlsplit(found["url"]).port != 0)
    except ValueError:  # a port that is none
        return False


class News:
    """Tells one address about one sweep. `tell` and `finish` do nothing without an address."""

    def __init__(self, address: str, sweep: str) -> None:
        found = re.fullmatch(FORM, address)
        self._url, self._shown, self._sweep = found["url"] if found else "", redact_webhook(address), sweep
        self._slack = bool(found and (found["slack"] or re.fullmatch(SLACK, found["host"], re.I)))
        self._queue: queue.SimpleQueue[tuple[str, bytes] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="news", daemon=True)
        self._hurry = threading.Event()  # no more tries: the end has waited long enough
        self._stalled = -STALLED_EVERY
        self.trouble: list[str] = []  # what was not delivered, and why

    def tell(self, event: str, text: str, **more: Any) -> None:
        """Send a message, some time soon; returns at once. `event` is done, failed, stalled or limit; `more` is for programs."""
        if not self._url:
            return
        if event == "stalled":
            now, before = time.monotonic(), self._stalled
            if now - before < STALLED_EVERY:
                return
            self._stalled = now
        self._queue.put((event, self._body(event, text, more)))
        if self._thread.ident is None:
            with blocked():
                self._thread.start()

    def finish(self, patience: float) -> None:
        """Wait at most so many seconds until everything is delivered; prints one line where it is not."""
        if self._thread.ident is None:
            return
        self._queue.put(None)
        self._thread.join(patience)
        self._hurry.set()
        if self._thread.is_alive():
            self.trouble.append(f"no answer within {patience:g} s")
        if self.trouble:
            print(f"notification to {self._shown} failed: {'; '.join(self.trouble)}", flush=True)

    def _body(self, event: str, text: str, more: Mapping[str, Any]) -> bytes:
        said = f"{self._sweep}: {text}"
        if self._slack:
            return json.dumps({"text": html.escape(said, quote=False)}).encode()
        about = {"event": event, "sweep": self._sweep, "text": said, "host": platform.node(), "time": round(time.time(), 3)}
        return json.dumps({**about, **more}).encode()

    def _run(self) -> None:
        for event, body in iter(self._queue.get, None):
            trouble = ""
            for pause in (0.0, *PAUSES):
                if self._hurry.wait(pause):
                    return
                trouble, again = self._post(body)
                if not again:
                    break
            if trouble:
                self.trouble.append(f"{event}: {trouble}")

    def _post(self, body: bytes) -> tuple[str, bool]:
        """What went wrong, without anything of the address; and whether another try may go well."""
        import requests  # takes a moment

        try:
            answer = requests.post(
                self._url, data=body, headers={"Content-Type": "application/json"}, timeout=TIMEOUT, allow_redirects=False, stream=True
            )
        except requests.RequestException as error:
            return type(error).__name__, isinstance(error, requests.ConnectionError | requests.Timeout)
        except Exception as error:  # of a host's name that cannot be one, and the like
            return type(error).__name__, False
        answer.close()
        if 200 <= answer.status_code < 300:
            return "", False
        return f"HTTP {answer.status_code}", answer.status_code in AGAIN or answer.status_code >= 500
