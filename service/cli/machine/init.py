"""`init`: a project folder."""

from __future__ import annotations

import argparse
import contextlib
import shlex
from pathlib import Path

from service.cli import arguments as shared

HELP = "make a project folder: settings, and a small sweep, pruner, algorithm and environment to edit"
EXAMPLE = "init my-project"
TEMPLATE = Path(__file__).parents[2] / "template"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", nargs="?", default=".", help="an empty folder, or one that does not exist yet (default: the current one)")
    shared.as_json(parser)


def call(arguments: argparse.Namespace, storage: Path) -> int:
    from trainables import project
    from trainables.errors import UserError
    from trainables.storage.files import write

    if not arguments.folder:
        raise UserError("the folder '' has no name; give one, or . for the current folder")
    folder = project.expanded(arguments.folder).absolute()
    files = sorted(path.relative_to(TEMPLATE) for path in TEMPLATE.rglob("*") if path.suffix in {".py", ".toml"})
    made: list[Path] = []  # files and folders, in the order in which they came
    try:
        if there := [path for path in files if (folder / path).exists()]:
            raise UserError(f"{folder / there[0]} exists already; nothing was written")
        for path in sorted(files, key=lambda path: path.suffix == ".toml"):  # last the file that makes it a project
            made += [above for above in reversed((folder / path).parents) if not above.exists()]
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            made.append(folder / path)
            write(folder / path, (TEMPLATE / path).read_bytes())
    except OSError as error:
        for path in reversed(made):
            with contextlib.suppress(OSError):
                path.rmdir() if path.is_dir() else path.unlink()
        raise UserError(f"{folder} cannot be made: {error.filename or folder}: {error.strerror}") from None
    now = f"{'' if folder == Path.cwd() else f'cd {shlex.quote(str(folder))}; '}winnow run first"
    shared.show(arguments, f"made {', '.join(map(str, files))} in {folder}\nnow: {now}", {"folder": folder, "files": files, "now": now})
    return 0
