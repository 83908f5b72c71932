"""Which trial is meant by a word: its key, the beginning of its key, or its name."""

from __future__ import annotations

import difflib
from collections.abc import Container, Mapping

from trainables.errors import UserError

SHOWN = 8  # choices named in an error


def lookup(wanted: str, names: Mapping[str, str], done: Container[str] = (), hint: str = "give a key") -> str | None:
    """The key of the trial that `wanted` means, among names by key; None where there is none. Those that are `done` come first.

    Raises UserError, with the choices and the hint, where several are left."""
    keys = [key for key, name in names.items() if wanted in (key, name)]
    keys = keys or [key for key in names if wanted and key.startswith(wanted)]
    keys = [key for key in keys if key in done] or keys
    if len(keys) > 1:
        some = ", ".join(f"{key} ({names[key]})" for key in keys[:SHOWN])
        raise UserError(f"{wanted!r} matches {len(keys)} trials: {some}{', ...' if len(keys) > SHOWN else ''}; {hint}")
    return keys[0] if keys else None


def nearest(wanted: str, names: Mapping[str, str]) -> str:
    """The names and keys that are most like `wanted`, for an error; `none` where there are no trials."""
    near = difflib.get_close_matches(wanted, [*names.values(), *names], n=SHOWN, cutoff=0.3) or list(names.values())[:SHOWN]
    return ", ".join(dict.fromkeys(near)) or "none"
