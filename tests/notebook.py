"""Executes a notebook's cells in this process and keeps what they show, without a kernel:

python -m tests.notebook examples/notebook.ipynb
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

LARGEST = 50_000  # letters of HTML that are kept with the file


def execute(path: Path, changes: dict[str, str] | None = None) -> dict[str, Any]:
    """The notebook with the outputs of its cells, each executed after the others; `changes` replace texts in their sources."""
    notebook: dict[str, Any] = json.loads(path.read_text())
    names: dict[str, Any] = {"__name__": "__main__"}
    count = 0
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        source = "".join(cell["source"])
        for old, new in (changes or {}).items():
            source = source.replace(old, new)
        count += 1
        cell |= {"execution_count": count, "outputs": _run(source, names, count)}
    return notebook


def _run(source: str, names: dict[str, Any], count: int) -> list[dict[str, Any]]:
    body, last = ast.parse(source).body, None
    if isinstance(body[-1], ast.Expr):
        last = ast.Expression(body.pop().value)  # type: ignore[attr-defined]
    printed, outputs = io.StringIO(), list[dict[str, Any]]()
    with contextlib.redirect_stdout(printed):
        exec(compile(ast.Module(body, []), "<cell>", "exec"), names)
        value = None if last is None else eval(compile(last, "<cell>", "eval"), names)
    if text := printed.getvalue():
        outputs.append({"output_type": "stream", "name": "stdout", "text": text.splitlines(keepends=True)})
    if value is not None:
        shown = {"text/plain": repr(value).splitlines(keepends=True)}
        html = value._repr_html_() if hasattr(value, "_repr_html_") else ""
        shown |= {"text/html": html.splitlines(keepends=True)} if 0 < len(html) < LARGEST else {}
        outputs.append({"output_type": "execute_result", "execution_count": count, "metadata": {}, "data": shown})
    return outputs


if __name__ == "__main__":
    file = Path(sys.argv[1]).resolve()
    done = execute(file)
    file.write_text(json.dumps(done, indent=1).replace(str(Path.home()), "~") + "\n")
