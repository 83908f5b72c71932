"""What is secret, and how it is hidden: the one list for messages, logs, journals and what is handed to Ray."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

HIDDEN = "***"  # stands for a secret
SHORTEST = 6  # letters: a shorter value of a secret variable would be found in every other word
_NAME = re.compile(r"(PASSWORD|PASSWD|SECRET|TOKEN|CREDENTIALS?|SIGNATURE|_KEY|_PAT|_SIG|_SAS|_NOTIFY)$")
# `user:password@`; a password may hold `:` and `@`. What follows the colon is no password where it is a port and a path.
_PASSWORD = re.compile(r"(?<=://)(?P<user>[^\s:/?#@]*):(?!\d+(?:/|\?|$))(?P<rest>[^\s'\"]*)@")
# The same where the whole text is one address, whose password may hold anything.
_ADDRESS = re.compile(r"(?P<scheme>[\w+.-]+)://(?P<user>[^:/?#@]*):(?P<rest>.*)@", re.S)
_PORT = re.compile(r"\d+/")
# `token@`, of the web only: a database's user without a password is a name.
_TOKEN = re.compile(r"(?<=://)[^\s:/?#@]+@")
_WEB = re.compile(r"(?:https?|git\+\w+|wss?|ray)$", re.I)
_PARAMETER = re.compile(
    r"(?P<name>[?&;][\w.-]*?(?:password|passwd|pwd|token|secret|signature|credential|(?<![a-z])(?:key|sig)))=(?P<value>[^\s&;#'\"]*)", re.I
)
# The address of a webhook is itself the secret: what follows the host of one that is typed, and of those of well-known services.
_TYPED = re.compile(r"(?P<host>--notify(?:=|\s+)['\"]?(?:slack:)?https?://[^\s/?#'\"]+)[/?#][^\s'\"]+", re.I)
_WEBHOOK = re.compile(r"(?P<host>https?://[^\s/?#]+)[/?#]\S+", re.I)
_SERVICE = re.compile(
    r"(?P<host>https?://(?:[^\s/?#'\"]*@)?(?:hooks\.slack(?:-gov)?\.com|[\w.-]*\.webhook\.office\.com|(?:\w+\.)?discord(?:app)?\.com/api/webhooks"
    r"|[^\s/?#'\"]+/hooks))/[^\s'\"`]+",
    re.I,
)


def secret_name(name: str) -> bool:
    """Whether an environment variable of that name holds a secret: `AWS_SECRET_ACCESS_KEY`, `MLFLOW_TRACKING_TOKEN`, `HF_TOKEN`."""
    return bool(_NAME.search(name.upper()))


def redact(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """The text with `***` for each secret of a URL in it, and for each value of a secret variable of `environment`.

    In a URL these are the password before the host, the token before the host of a web address, and parameters such as `password`,
    `token`, `api_key` and `sig`. Of a webhook's URL it is all that follows the host."""
    values = {value for name, value in environment.items() if len(value) >= SHORTEST and secret_name(name)}
    for value in sorted(values, key=len, reverse=True):
        text = text.replace(value, HIDDEN)
    for value in environment.values():
        if "://" in value and (found := _password_of(value)):
            text = text.replace(found[0], f"{found['scheme']}://{found['user']}:{HIDDEN}@")
    text = _SERVICE.sub(rf"\g<host>/{HIDDEN}", _TYPED.sub(rf"\g<host>/{HIDDEN}", text))
    text = _PARAMETER.sub(lambda found: f"{found['name']}={HIDDEN}", text)
    text = _PASSWORD.sub(lambda found: f"{HIDDEN}@" if _web(found) else f"{found['user']}:{HIDDEN}@", text)
    text = _TOKEN.sub(lambda found: f"{HIDDEN}@" if _web(found) else found[0], text)
    return text


def redact_webhook(url: str) -> str:
    """The address of a webhook without what follows its host, wherever that is."""
    return redact(_WEBHOOK.sub(rf"\g<host>/{HIDDEN}", url), {})


def holds_secret(text: str) -> bool:
    """Whether there is a secret in a text."""
    return redact(text) != text or _password_of(text) is not None


def _password_of(address: str) -> re.Match[str] | None:
    """Where a text is one address with a user's password. `host:5000/` of the web is no user."""
    found = _ADDRESS.match(address)
    return None if found and _WEB.fullmatch(found["scheme"]) and _PORT.match(found["rest"]) else found


def hides_secret(url: str) -> bool:
    """Whether a secret was taken out of a URL."""
    return any(f"{before}{HIDDEN}{after}" in url for before, after in (("", "@"), ("=", ""), ("/", "")))


def _web(found: re.Match[str]) -> bool:
    """Whether the URL of a match is a web address."""
    return bool(_WEB.search(found.string, 0, found.start() - 3))
