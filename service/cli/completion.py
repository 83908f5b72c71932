"""What Tab offers in a shell, by argcomplete: sweeps, their fields, trials of the storage."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable
from typing import Any

from search_spaces.sweep import fields as sweep_fields
from search_spaces.sweep import sweep_names
from service.storage import paths
from trainables.trial import PLURALS

Completer = Callable[..., Iterable[str]]


def complete(parser: argparse.ArgumentParser) -> None:
    """Answer the shell and leave, where it asks; nothing otherwise."""
    if "_ARGCOMPLETE" in os.environ:
        import argcomplete

        argcomplete.autocomplete(parser, always_complete_options="long")


def sweeps(**_: Any) -> list[str]:
    return list(sweep_names())


def settings(prefix: str, **_: Any) -> list[str]:
    """`seeds=`, `hyper.alpha=`, ..., and after the `=` what the field may be; after a comma, too."""
    name, equals, _text = prefix.partition("=")
    if not equals:
        return [f"{each}=" for each in sweep_fields.names()]
    before = prefix[: max(prefix.rfind("="), prefix.rfind(",")) + 1]
    taken = before[len(name) + 1 :].split(",")
    return [f"{before}{choice}" for choice in sweep_fields.choices(PLURALS.get(name, name)) if choice not in taken]


def trials(parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    """Names of the storage's trials, and their keys."""
    from service.ledger import manifest

    ledgers = manifest.read_all(paths.root(parsed_args.storage))
    entries = [entry for ledger in ledgers.values() for entry in ledger.entries.values()]
    return sorted({entry.trial.name for entry in entries} | {entry.trial.key for entry in entries})
