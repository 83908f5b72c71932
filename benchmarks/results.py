"""The first study, docs/results.md: its figures and tables from what the sweeps `study` and `study_grasp` left in MLflow.

python -m service run study && python -m service run study_grasp     # resumed as often as needed
python benchmarks/results.py [--storage FOLDER]                      # renews docs/results/ and the tables of docs/results.md
"""

from __future__ import annotations

import argparse
import csv
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from tables import fill, markdown

from service.report.build import report
from trainables import paths

SWEEPS = ("study", "study_grasp")
PAGE = Path(__file__).parent.parent / "docs" / "results.md"
FOLDER = PAGE.with_suffix("")
FIGURES = ("grid", "sparsity", "frontier-time", "profiles", "pareto", "layers", "inputs")
TABLES = ("cells.csv", "trials.csv", "table.txt")
Row = Mapping[str, str]


def renew(storage: Path) -> None:
    """Report anew, and keep the tables and the pictures that the page shows."""
    with tempfile.TemporaryDirectory() as place:
        made = Path(place)
        report(SWEEPS, storage, made)
        shutil.rmtree(FOLDER, ignore_errors=True)
        FOLDER.mkdir()
        drawn = [
            file for name in FIGURES for file in sorted(made.glob(f"figures/{name}.png")) + sorted(made.glob(f"figures/{name}-[0-9]*.png"))
        ]
        for file in [*(made / name for name in TABLES), *drawn]:
            shutil.copyfile(file, FOLDER / file.name)


def read(name: str) -> list[Row]:
    with (FOLDER / name).open() as file:
        return list(csv.DictReader(file))


def claim() -> str:
    """The paper's claim, counted, as the report says it first."""
    lines = (FOLDER / "table.txt").read_text().split("\n\n")[0].splitlines()
    return "\n".join(["```", *lines, "```"])


def retained() -> Iterator[list[str]]:
    """A row per dataset and algorithm: the dense score, and the share of it that each pruner keeps at each sparsity."""
    cells = read("cells.csv")
    columns = sorted({(row["pruner"], float(row["sparsity"])) for row in cells} - {("dense", 0.0)}, key=lambda c: (c[1], c[0]))
    yield ["data", "algorithm", "dense: score", *(f"{pruner} {100 * sparsity:g} %" for pruner, sparsity in columns)]
    for place in dict.fromkeys((row["dataset"], row["algorithm"]) for row in cells):
        own = {(row["pruner"], float(row["sparsity"])): row for row in cells if (row["dataset"], row["algorithm"]) == place}
        data = place[0].removeprefix("winnow/").removesuffix("-v0")
        yield [data, place[1], score(own["dense", 0.0]), *(share(own[column]) if column in own else "" for column in columns)]


def score(row: Row) -> str:
    if not row["mean"]:
        return row["absent"] or "-"
    return f"{float(row['mean']):.1f} [{float(row['mean_low']):.1f}, {float(row['mean_high']):.1f}]" + seeds(row, row["n"])


def share(row: Row) -> str:
    """Of the seeds that have both scores; how many, where some have not."""
    if not row["retained"]:
        return row["absent"] or row["unpaired"] or "-"
    value, low, high = (100 * float(row[name]) for name in ("retained", "retained_low", "retained_high"))
    return f"{value:.0f} % [{low:.0f}, {high:.0f}]" + seeds(row, row["pairs"])


def seeds(row: Row, there: str) -> str:
    return "" if there == row["planned"] else f" {there}/{row['planned']}"


def costs() -> str:
    """How much of the study there is, and what it took."""
    trials = read("trials.csv")
    done = [row for row in trials if row["outcome"] == "done"]
    dense, pruned = ([float(row["seconds"]) for row in done if (row["pruner"] == "dense") is kind] for kind in (True, False))
    return (
        f"{len(done)} of {len(trials)} trials are done: {len(dense)} dense ones in {sum(dense) / 3600:.1f} hours of one core's updates, "
        f"{len(pruned)} pruned ones in {sum(pruned) / 3600:.1f}."
    )


def pictures() -> str:
    """Every figure that is there, with its name as the text beside it."""
    return "\n\n".join(f"![{file.stem}](results/{file.name})" for name in FIGURES for file in sorted(FOLDER.glob(f"{name}*.png")))


def texts() -> dict[str, str]:
    """What stands between the marks of docs/results.md."""
    return {"claim": claim(), "kept": markdown(retained()), "costs": costs(), "pictures": pictures()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storage", help="where the sweeps ran (default as for the service)")
    renew(paths.root(parser.parse_args().storage))
    for name, text in texts().items():
        fill(PAGE, name, text)


if __name__ == "__main__":
    main()
