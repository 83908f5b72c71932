"""Checks documents: links and anchors lead somewhere, commands parse, files that are named exist.

python -m tests.documents          (`make docs`) prints one line per problem
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from search_spaces.sweep import load_sweep, override, sweep_names
from trainables.errors import UserError

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
LINK = re.compile(r"\]\(([^)\s]+)\)")
SPAN = re.compile(r"`([^`\n]+)`")
PATH = re.compile(r"(?:[\w.-]+/)+(?:[\w.-]+\.(?:py|md|json|yaml|c|h|npz|css|toml))?")  # a/b.py, a/b/
BARE = re.compile(r"[\w-]+\.(?:py|md|c|yaml)")
DECISION = re.compile(r"decisions/[\w.-]+\.md")
OURS = ("trainables/", "search_spaces/", "service/", "tests/", "docs/", "docker/", "benchmarks/", "examples/")
# A page may contain a whole file: `its/path.py`: and then the block.
FILE = re.compile(r"`([\w./-]+\.py)`:\n\n```python\n(.*?)^```", re.M | re.S)
OF_A_NEW_PROJECT = {path.stem for path in (ROOT / "service/template/sweeps").glob("*.py")}
READERS = ("mine.py", "./mine.py")  # files that a reader writes
PARSERS = {
    "service": "service.cli.parser:parser",
    "trainables": "trainables.__main__:parser",
    "trainables.datasets": "trainables.datasets.__main__:_parser",
    "trainables.datasets.collect": "trainables.datasets.collect.__main__:_parser",
}


def documents(root: Path = ROOT) -> list[Path]:
    """Every page for readers."""
    return [*sorted(root.glob("*.md")), *sorted((root / "docs").rglob("*.md")), *sorted(root.glob("[!.]*/**/README.md"))]


def problems(page: Path, root: Path = ROOT) -> list[str]:
    """What is wrong on a page, one line per problem."""
    text = page.read_text()
    contained = [path for path, _ in FILE.findall(text)]
    prose = BLOCK.sub("", text)
    lines = [f"link {target}" for target in LINK.findall(prose) if not _leads(page, target)]
    lines += [f"no file {path}" for path in _named(prose) if path not in contained and not _exists(path, page, root)]
    for command in commands(text):
        if problem := fault(command, {Path(path).stem for path in contained}, root):
            lines.append(f"{command}: {problem}")
    return [f"{page.relative_to(root)}: {line}" for line in lines]


def commands(text: str) -> list[str]:
    """Commands of shell blocks, those after `$ ` in recordings, and those in the prose."""
    typed: list[str] = []
    for kind, block in BLOCK.findall(text):
        lines = block.replace("\\\n", " ").splitlines()
        typed += lines if kind == "sh" else [line[2:] for line in lines if line.startswith("$ ")]
    typed += [span for span in SPAN.findall(BLOCK.sub("", text)) if re.match(r"(python|make|winnow) ", span)]
    return [command for line in typed if (command := line.split("  #")[0].split(" # ")[0].strip(" &"))]


def fault(command: str, own: set[str], root: Path = ROOT) -> str:
    """Why a command would be refused, or "". `own` are the files that its page contains. Programs of other projects are not checked."""
    words = shlex.split(command)
    if "--" in words and words[:3] == ["ray", "job", "submit"]:
        words = words[words.index("--") + 1 :]
    if words[0] == "make":
        known = re.findall(r"^([\w-]+):", (root / "Makefile").read_text(), re.M)
        return "" if words[1] in known else f"no such target; there are: {', '.join(known)}"
    if words[0] == "winnow":
        words = ["python", "-m", "service", *words[1:]]
    if words[0] != "python":
        return ""
    if words[1] != "-m":
        return "" if (root / words[1]).exists() or words[1] in READERS or Path(words[1]).stem in own else f"no file {words[1]}"
    if words[2] not in PARSERS:
        return "" if importlib.util.find_spec(words[2]) else f"no module {words[2]}"
    module, _, name = PARSERS[words[2]].partition(":")
    return _parsed(getattr(importlib.import_module(module), name)(), words[3:], own)


def _parsed(parser: argparse.ArgumentParser, words: list[str], own: set[str]) -> str:
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
            given = vars(parser.parse_args(words))
    except SystemExit as end:
        return errors.getvalue().strip().splitlines()[-1] if end.code else ""
    for sweep in [*given.get("sweeps", ()), *([given["sweep"]] if given.get("sweep") else [])]:
        if sweep in own or sweep in (*OF_A_NEW_PROJECT, *READERS):
            continue
        if sweep not in sweep_names():
            return f"no sweep {sweep}"
        try:
            override(load_sweep(sweep), given.get("overrides", ()))
        except UserError as error:
            return str(error)
    return ""


def _leads(page: Path, target: str) -> bool:
    if target.startswith(("http://", "https://")):
        return True
    path, _, anchor = target.partition("#")
    file = page.parent / path if path else page
    return file.exists() and (not anchor or anchor in anchors(file.read_text()))


def anchors(text: str) -> set[str]:
    """The anchors that GitHub makes of headings."""
    heads = re.findall(r"^#+ (.+)$", BLOCK.sub("", text), re.M)
    return {re.sub(r"[^\w\- ]", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", head)).strip().lower().replace(" ", "-") for head in heads}


def _named(text: str) -> Iterator[str]:
    """Project paths and file names in code spans, except those with a placeholder; decisions wherever they are named."""
    yield from (span for span in SPAN.findall(text) if BARE.fullmatch(span) or (PATH.fullmatch(span) and span.startswith(OURS)))
    yield from DECISION.findall(text)


def _exists(path: str, page: Path, root: Path) -> bool:
    if "/" not in path:
        return (root / path).exists() or any(next((root / folder).glob(f"**/{path}"), None) for folder in OURS)
    return any((folder / path).exists() for folder in (root, root / "docs", page.parent))


def main() -> int:
    lines = [line for page in documents() for line in problems(page)]
    print(*lines, sep="\n", end="\n" if lines else "")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
