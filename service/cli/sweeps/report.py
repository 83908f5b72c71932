"""`report`: everything about sweeps, for reading and for papers."""

from __future__ import annotations

import argparse
from pathlib import Path

from service.cli import arguments as shared
from service.terminal.waiting import waiting

HELP = "statistics, figures and a page over one sweep or several, from MLflow alone"
EXAMPLE = "report quickstart mujoco_sparsity"


def arguments(parser: argparse.ArgumentParser) -> None:
    shared.sweeps(parser, "sweeps that MLflow holds, reported together")
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="where to write (default reports/ in the storage)")
    parser.add_argument(
        "--style",
        choices=("paper", "slides"),
        help="also write the figures as pdf and png: for one and two columns of a paper, or for slides",
    )
    shared.as_json(parser)


def call(arguments: argparse.Namespace, storage: Path) -> int:
    from service.results.report.build import report

    with waiting("reading MLflow and drawing"):
        return report(arguments.sweeps, storage, arguments.to, arguments.style, json=arguments.json)
