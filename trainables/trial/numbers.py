"""Numbers as people type them: `20k`, `2e4`, `1.5M`, and `0-4` for 0,1,2,3,4."""

from __future__ import annotations

import ast
import math
import re
import warnings
from fractions import Fraction
from typing import Any

from trainables.errors import UserError

UNITS = {"": 1, "k": 1_000, "M": 1_000_000}
WORDS = {"transitions": {"all": 0}}
DIGITS = r"\d{1,400}"  # Python reads and shows at most 4,300
MOST = 10_000  # values that a range may stand for


def integer(name: str, text: str) -> int:
    """`20000`, `20k`, `2e4`, `20_000`. Raises UserError, which names `name`, for anything else."""
    if text.strip() in (words := WORDS.get(name.removeprefix("--"), {})):
        return words[text.strip()]
    try:
        return int(text)
    except ValueError:
        pass
    found = re.fullmatch(rf"\s*([+-]?{DIGITS}(?:\.(?:{DIGITS})?)?(?:[eE]\+?\d{{1,2}})?)([kM]?)\s*", text)
    value = Fraction(found[1]) * UNITS[found[2]] if found else Fraction(1, 2)  # of floats, 2.01 x 1000 is no integer
    if value.denominator != 1:
        raise UserError(f"{name} {text!r} is not an integer, such as 20000, 20k or 2e4")
    return int(value)


def integers(name: str, text: str) -> tuple[int, ...]:
    """`0,1,2`, `0-4`, `0-2,7`: each once, in the order given."""
    values: dict[int, None] = {}
    for part in filter(None, (each.strip() for each in text.split(","))):
        if span := re.fullmatch(rf"({DIGITS})-({DIGITS})", part):
            first, last = int(span[1]), int(span[2])
            if not first <= last < first + MOST:
                raise UserError(f"{name} {part!r} is not a range such as 0-4, of at most {MOST:,} values")
            values |= dict.fromkeys(range(first, last + 1))
        else:
            values[integer(name, part)] = None
    return tuple(values)


def real(value: float) -> float:
    """The number as a float; an integer beyond all floats is infinite."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def literal(text: str) -> Any:
    """The number, string, truth value or tuple of these that a text stands for. Raises ValueError for any other text."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of Python's about the text, such as '\\d'
            return ast.literal_eval(_with_units(text))
    except (SyntaxError, TypeError, MemoryError, RecursionError):  # `[`, `{[]}`, and thousands of brackets or signs
        raise ValueError(f"{text!r} is no literal") from None


def _with_units(text: str) -> str:
    """A text of numbers for Python to read: `20k` and `2e4` as `20000`; one with quotes stays."""
    if "'" in text or '"' in text:
        return text
    return re.sub(r"(?<![\w.])(\d+(?:\.\d+)?)(?:([kM])|[eE]\+?(\d{1,2}))(?!\w)", _scaled, text)


def _scaled(found: re.Match[str]) -> str:
    value = Fraction(f"{found[1]}e{found[3] or 0}") * UNITS[found[2] or ""]
    return str(int(value) if value.denominator == 1 else float(value))
