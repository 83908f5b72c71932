"""`report`: everything about sweeps, for reading and for papers."""

from __future__ import annotations

import argparse
from pathlib import Path

from service.cli import arguments as shared
from service.terminal.waiting import waiting
from trainables.errors import UserError

HELP = "write statistics, figures and a page about one or more sweeps, from MLflow alone"
EXAMPLE = "report quickstart mujoco_sparsity"


def arguments(parser: argparse.ArgumentParser) -> None:
    shared.sweeps(parser, "sweeps in MLflow, to report on together")
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="folder to write to (default reports/ in the storage)")
    parser.add_argument(
        "--style",
        choices=("paper", "slides"),
        help="also write the figures as pdf and png: for one and two columns of a paper, or for slides",
    )
    shared.as_json(parser)
    parser.add_argument(
        "--watch", action="store_true", help="serve the page on 127.0.0.1 and refresh it while the sweep runs, until Ctrl-C"
    )
    parser.add_argument("--port", type=port, metavar="N", help="port for --watch (default: a free one)")


def port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 1 to 65535")
    return int(text)


def call(arguments: argparse.Namespace, storage: Path) -> int:
    if arguments.watch:
        if arguments.json:
            raise UserError("--json prints one report, --watch serves a page: give one of them")
        from service.results.watch import watch

        return watch(arguments.sweeps, storage, arguments.to, arguments.style, arguments.port or 0)
    if arguments.port is not None:
        raise UserError(f"--port {arguments.port} is where --watch serves the page; give both, or neither")
    from service.results.report.build import report

    with waiting("reading MLflow and drawing"):
        return report(arguments.sweeps, storage, arguments.to, arguments.style, json=arguments.json)
