"""The folder that goes to a cluster with a job: what of it, how large it is, and what to exclude where that is too much. Imports no Ray."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pathspec import PathSpec

from trainables.errors import UserError

LARGE = 100e6  # bytes that Ray's job server takes
SHOWN = 6  # names that a line lists
MOST = 0.8  # share of a folder's size in one of its entries, from which on that one is named


def describe(code: Mapping[str, Any]) -> str:
    """One line about what is sent for the runtime environment `code`.

    Raises UserError for a folder that is too large, with what to exclude.
    """
    if not (given := code.get("working_dir")):
        return "sends no code: the cluster's own Winnow runs the sweep"
    folder, out = Path(given), list[str]()
    sizes = dict(_files(folder, folder, [(folder, _spec(code["excludes"]))], out))
    total = sum(sizes.values())
    if total > LARGE:
        raise UserError(
            f"{folder} holds {total / 1e6:,.0f} MB, and Ray's job server takes {LARGE / 1e6:.0f}; a line for each in "
            f"{folder / '.rayignore'} excludes {_listed([f'/{name} ({size / 1e6:,.0f} MB)' for name, size in _too_much(sizes)])}"
        )
    left = f"; left out: {_listed(out)}" if out else ""
    return f"sends {folder}: {len(sizes)} files, {total / 1e6:.1f} MB{left}"


def _files(folder: Path, top: Path, rules: Sequence[tuple[Path, PathSpec[Any]]], out: list[str]) -> Iterator[tuple[str, int]]:
    """The files below `folder` that Ray would send, with their sizes in bytes; what people would miss is added to `out`.

    As Ray, it obeys .rayignore and .gitignore in every folder, and follows links.
    """
    names = [".rayignore"] if os.environ.get("RAY_RUNTIME_ENV_IGNORE_GITIGNORE") == "1" else [".rayignore", ".gitignore"]
    rules = [*rules, *((folder, _spec((folder / name).read_text().splitlines())) for name in names if (folder / name).is_file())]
    for path in sorted(folder.iterdir()):
        place, is_folder = path.relative_to(top).as_posix(), path.is_dir()
        if any(spec.match_file(path.relative_to(base).as_posix() + "/" * is_folder) for base, spec in rules):
            if not path.name.startswith(("__pycache__", ".")) or path.name.startswith(".venv"):
                out.append(place)
        elif is_folder and path.resolve() not in (here := folder.resolve(), *here.parents):
            yield from _files(path, top, rules, out)
        elif path.is_file():
            yield place, path.stat().st_size


def _spec(lines: Sequence[str]) -> PathSpec[Any]:
    return PathSpec.from_lines("gitignore", lines)


def _too_much(sizes: Mapping[str, int]) -> list[tuple[str, int]]:
    """As few files and folders as bring the rest below what Ray takes, largest first; a folder that one entry fills goes by that entry."""
    found: list[tuple[str, int]] = []
    left, total = Counter(dict(sizes)), sum(sizes.values())
    while total > LARGE:
        name, size = "", total
        while below := _entries(left, name):
            largest, amount = below.most_common(1)[0]
            if name and amount < MOST * size:
                break
            name, size = largest, amount
        found.append((name, size))
        total -= size
        left = Counter({file: length for file, length in left.items() if not (file == name or file.startswith(f"{name}/"))})
    return found


def _entries(sizes: Mapping[str, int], folder: str) -> Counter[str]:
    """The size of each entry of a folder; none of a file."""
    found: Counter[str] = Counter()
    for file, size in sizes.items():
        if not folder or file.startswith(f"{folder}/"):
            depth = len(folder.split("/")) if folder else 0
            found["/".join(file.split("/")[: depth + 1])] += size
    return found


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
