"""What is wrong with a command line, in one line with the nearest name, in place of the whole usage."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from trainables.errors import unknown

CHOICE = re.compile(r"argument (?P<name>[^:]+): invalid choice: (?P<value>'.*?'|\S+) \(choose from (?P<choices>.*)\)", re.S)
MISSING = "the following arguments are required: "


class Parser(argparse.ArgumentParser):
    """An argument parser that answers bad input in one line, and exits with code 2."""

    def error(self, message: str) -> NoReturn:
        if found := CHOICE.fullmatch(message):
            name = found["name"].split("/")[-1].lstrip("-").replace("-", " ").lower()
            said = str(unknown(name, found["value"].strip("'"), re.findall(r"[^,\s']+", found["choices"])))
        elif message.startswith(MISSING):
            said = f"missing: {message.removeprefix(MISSING)}"
        else:
            said = re.sub(r"^argument (\S+): ", r"\1: ", message)
        self.exit(2, f"error: {said}; `{self.prog} --help` has more\n")

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """As argparse's, but without any argument it prints the help of a program with commands, and what nobody knows comes with the
        nearest option."""
        given = sys.argv[1:] if args is None else list(args)
        if not given and self._below():
            self.print_help(sys.stderr)
            self.exit(2)
        parsed, extra = self.parse_known_args(given, namespace)
        if extra:
            self._of(given)._refuse(extra[0].partition("=")[0] if extra[0].startswith("-") else extra[0])
        return parsed

    def _refuse(self, word: str) -> NoReturn:
        if not word.startswith("-"):
            self.error(f"{word!r} is one argument too many")
        near = difflib.get_close_matches(word, sorted(set(self._options())), n=1, cutoff=0.6)
        self.error(f"no option {word!r}" + (f"; did you mean {near[0]!r}?" if near else ""))

    def _below(self) -> dict[str, Parser]:
        return {
            name: parser
            for action in self._actions
            if isinstance(action, argparse._SubParsersAction)
            for name, parser in action.choices.items()
        }

    def _of(self, words: list[str]) -> Parser:
        """The parser of the command that was typed."""
        for index, word in enumerate(words):
            if word in (below := self._below()):
                return below[word]._of(words[index + 1 :])
        return self

    def _options(self) -> Iterator[str]:
        yield from (option for action in self._actions if action.help != argparse.SUPPRESS for option in action.option_strings)
