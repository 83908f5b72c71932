"""What is secret, and how it is hidden: the one list for messages, logs, journals and what is handed to Ray."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

HIDDEN = "***"  # stands for a secret
SHORTEST = 6  # letters: a shorter value of a secret variable would be found in every other word
_NAME = re.compile(r"(PASSWORD|PASSWD|SECRET|TOKEN|CREDENTIALS?|SIGNATURE|_KEY|_PAT|_SIG|_SAS)$")
# `user:password@`; a password may hold `:` and `@`. What follows the colon is no password where it is a port and a path.
_PASSWORD = re.compile(r"(?<=://)(?P<user>[^\s:/?#@]*):(?!\d+(?:/|\?|$))(?P<rest>[^\s'\"]*)@")
# `token@`, of the web only: a database's user without a password is a name.
_TOKEN = re.compile(r"(?<=://)[^\s:/?#@]+@")
_WEB = re.compile(r"(?:https?|git\+\w+|wss?|ray)$", re.I)
_PARAMETER = re.compile(
    r"(?P<name>[?&;][\w.-]*?(?:password|passwd|pwd|token|secret|signature|credential|(?<![a-z])(?:key|sig)))=(?P<value>[^\s&;#'\"]*)", re.I
)


def secret_name(name: str) -> bool:
    """Whether an environment variable of that name holds a secret: `AWS_SECRET_ACCESS_KEY`, `MLFLOW_TRACKING_TOKEN`, `HF_TOKEN`."""
    return bool(_NAME.search(name.upper()))


def redact(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """The text with `***` for each secret of a URL in it, and for each value of a secret variable of `environment`.

    In a URL these are the password before the host, the token before the host of a web address, and parameters such as `password`,
    `token`, `api_key` and `sig`."""
    text = _PARAMETER.sub(lambda found: f"{found['name']}={HIDDEN}", text)
    text = _PASSWORD.sub(lambda found: f"{HIDDEN}@" if _web(found) else f"{found['user']}:{HIDDEN}@", text)
    text = _TOKEN.sub(lambda found: f"{HIDDEN}@" if _web(found) else found[0], text)
    values = {value for name, value in environment.items() if len(value) >= SHORTEST and secret_name(name)}
    for value in sorted(values, key=len, reverse=True):
        text = text.replace(value, HIDDEN)
    return text


def holds_secret(text: str) -> bool:
    """Whether there is a secret in a text."""
    return redact(text) != text


def hides_secret(url: str) -> bool:
    """Whether a secret was taken out of a URL."""
    return f"{HIDDEN}@" in url or f"={HIDDEN}" in url


def _web(found: re.Match[str]) -> bool:
    """Whether the URL of a match is a web address."""
    return bool(_WEB.search(found.string, 0, found.start() - 3))
