"""`export`: a policy for other programs."""

from __future__ import annotations

import argparse
from pathlib import Path

from service.cli import arguments as shared

HELP = "export a trained policy to a folder that works without Winnow"
EXAMPLE = "export bc/halfcheetah-expert/snip@95/s0 --to cheetah --format onnx"
FORMATS = ("compact", "onnx", "torch")


def arguments(parser: argparse.ArgumentParser) -> None:
    shared.done_trial(parser)
    parser.add_argument("--to", type=Path, metavar="FOLDER", required=True, help="the folder to write; an older export there is replaced")
    help = "compact: the kept weights, for numpy (default); onnx: for any ONNX runtime; torch: a state dict, removed weights as zeros"
    parser.add_argument("--format", choices=FORMATS, default="compact", help=help)
    shared.as_json(parser)


def call(arguments: argparse.Namespace, storage: Path) -> int:
    from service.delivery.export import export

    folder = export(arguments.trial, arguments.to, storage, format=arguments.format, sweep=arguments.sweep)
    files = sorted(path.name for path in folder.iterdir())
    shared.show(arguments, f"{folder}: {', '.join(files)}", {"folder": folder, "files": files})
    return 0
