"""What Tab offers in a shell, by argcomplete: sweeps, their fields, trials of the storage."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import Any

from search_spaces.sweep import Sweep, sweep_names
from service.storage import paths

Completer = Callable[..., Iterable[str]]


def complete(parser: argparse.ArgumentParser) -> None:
    """Answer the shell and leave, where it asks; nothing otherwise."""
    if "_ARGCOMPLETE" in os.environ:
        import argcomplete

        argcomplete.autocomplete(parser, always_complete_options="long")


def sweeps(**_: Any) -> list[str]:
    return list(sweep_names())


def settings(**_: Any) -> list[str]:
    """`seeds=`, `updates=`, ..."""
    return [f"{field.name}=" for field in fields(Sweep)]


def trials(parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    """Names of the storage's trials, and their keys."""
    from service.ledger import manifest

    ledgers = manifest.read_all(paths.root(parsed_args.storage))
    entries = [entry for ledger in ledgers.values() for entry in ledger.entries.values()]
    return sorted({entry.trial.name for entry in entries} | {entry.trial.key for entry in entries})
