"""The first study, docs/results.md: its figures and tables from what the sweeps `study`, `study_grasp` and `study_longer` left in MLflow.

for sweep in study study_grasp study_longer; do winnow run $sweep; done     # resumed as often as needed
python -m benchmarks.learning.results [--storage FOLDER]      # renews docs/results/ and the tables of docs/results.md
"""

from __future__ import annotations

import argparse
import csv
import itertools
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from benchmarks.tables import fill, markdown
from service.results import statistics
from service.results.cells import tasks_of
from service.results.report import costs, tables
from service.results.report.build import report
from service.results.report.gather import gather
from service.results.report.over_tasks import CLAIM, CLAIMED_AT
from service.results.report.style import png, sheets
from service.storage import paths
from service.terminal.labels import algorithm_name, dataset_name, method_name, rank
from service.tracking.runs import Tracking

SWEEPS = ("study", "study_grasp")
LONGER = "study_longer"
PAGE = Path(__file__).parents[2] / "docs" / "results.md"
FOLDER = PAGE.with_suffix("")
FIGURES = ("grid", "sparsity", "profiles", "pareto", "layers", "inputs")
FRONTIERS = {"frontier": "flops", "frontier-time": "seconds"}
TABLES = ("cells.csv", "trials.csv", "table.txt")
Row = Mapping[str, str]


def renew(storage: Path) -> None:
    """Report anew, and keep the tables and the pictures that the page shows."""
    with tempfile.TemporaryDirectory() as place:
        made = Path(place)
        report(SWEEPS, storage, made, "paper")
        shutil.rmtree(FOLDER, ignore_errors=True)
        FOLDER.mkdir()
        for file in [*(made / name for name in TABLES), *(file for name in FIGURES for file in drawn(made / "figures", name))]:
            shutil.copyfile(file, FOLDER / file.name)
    tracking = Tracking(storage)
    everything, own = (tasks_of(gather(sweeps, tracking, storage).runs) for sweeps in ((*SWEEPS, LONGER), (LONGER,)))
    (FOLDER / "longer.csv").write_bytes(tables.to_csv(tables.trial_rows(own)))
    for name, cost in FRONTIERS.items():
        for part, panels in enumerate(sheets(costs.frontier(everything, cost)), 1):
            (FOLDER / f"{name}-{part}.png").write_bytes(png(panels))


def drawn(folder: Path, name: str) -> list[Path]:
    """A figure's sheets, the first first."""
    return [file for part in ("", *(f"-{number}" for number in range(1, 100))) if (file := folder / f"{name}{part}.png").exists()]


def read(name: str) -> list[Row]:
    with (FOLDER / name).open() as file:
        return list(csv.DictReader(file))


def claim() -> str:
    """The paper's claim, counted, as the report says it first."""
    lines = (FOLDER / "table.txt").read_text().split("\n\n")[0].splitlines()
    return "\n".join(["```", *lines, "```"])


def by_final(sparsity: float = CLAIMED_AT) -> str:
    """The same count by the final episodes, which are five times as many as the last evaluation's."""
    cells: dict[tuple[str, str, str], dict[str, float]] = {}
    for row in read("trials.csv"):
        if row["final"] and (row["method"] == "dense" or float(row["sparsity"]) == sparsity):
            cells.setdefault((row["dataset"], row["algorithm"], row["method"]), {})[row["seed"]] = float(row["final"])
    shares: dict[str, list[statistics.Estimate]] = {}
    for (*place, method), cell in sorted(cells.items()):
        dense = cells.get((*place, "dense"), {})
        if method != "dense" and cell.keys() == dense.keys() and (share := shared(cell, dense)):
            shares.setdefault(method, []).append(share)
    counts = [
        (name, len(own), sum(one.value >= CLAIM for one in own), sum(one.low >= CLAIM for one in own)) for name, own in shares.items()
    ]
    counts.sort(key=lambda count: rank(count[0]))
    return "; ".join(f"{method_name(of)} {kept} of {judged} ({sure} with their whole interval)" for of, judged, kept, sure in counts)


def shared(cell: Mapping[str, float], dense: Mapping[str, float]) -> statistics.Estimate | None:
    """The share of the dense score over the seeds that both have."""
    seeds = sorted(cell.keys() & dense.keys())
    return statistics.ratio(*(np.array([of[seed] for seed in seeds]) for of in (cell, dense))) if seeds else None


def retained() -> Iterator[list[str]]:
    """A row per dataset and algorithm: the dense score, and the share of it that each pruner keeps at each sparsity."""
    cells = read("cells.csv")
    columns = sorted({(row["pruner"], float(row["sparsity"])) for row in cells} - {("dense", 0.0)}, key=lambda c: (c[1], rank(c[0])))
    yield ["data", "algorithm", "dense: score", *(method_name(*column) for column in columns)]
    for place in dict.fromkeys((row["dataset"], row["algorithm"]) for row in cells):
        own = {(row["pruner"], float(row["sparsity"])): row for row in cells if (row["dataset"], row["algorithm"]) == place}
        yield [*shown(place), score(own["dense", 0.0]), *(share(own[column]) if column in own else "" for column in columns)]


def shown(place: tuple[str, str]) -> tuple[str, str]:
    """Dataset and algorithm as papers write them."""
    return dataset_name(place[0]), algorithm_name(place[1])


def score(row: Row) -> str:
    if not row["mean"]:
        return row["absent"] or "-"
    span = f" [{float(row['mean_low']):.1f}, {float(row['mean_high']):.1f}]" if row["mean_low"] else ""
    return f"{float(row['mean']):.1f}{span}" + seeds(row, row["n"])


def share(row: Row) -> str:
    """Of the seeds that have both scores; how many, where some have not."""
    if not row["retained"]:
        return row["absent"] or row["unpaired"] or "-"
    span = ""
    if row["retained_low"]:
        span = f" [{100 * float(row['retained_low']):.0f}, {100 * float(row['retained_high']):.0f}]"
    elif int(row["pairs"]) > 1:
        span = f" [{statistics.BOUNDLESS}]"
    return f"{100 * float(row['retained']):.0f} %{span}" + seeds(row, row["pairs"])


def seeds(row: Row, there: str) -> str:
    return "" if there == row["planned"] else f" {there}/{row['planned']}"


def controls() -> Iterator[list[str]]:
    """What the report says of each pruned cell beside random ERK masks, counted over datasets and algorithms."""
    lines = (FOLDER / "table.txt").read_text().splitlines()
    told: dict[str, Counter[str]] = {}
    for cell, verdict in itertools.pairwise(lines):
        if "against a random ERK mask" in verdict:
            told.setdefault(cell.split(", ")[1].partition(" (")[0], Counter())[verdict.split("  ")[-1]] += 1
    columns = ("better", "no difference shown", "worse", "no seed has both")
    yield ["mask", *columns[:-1], "not trained yet"]
    for mask, counts in told.items():
        yield [mask, *(str(counts[column]) for column in columns)]


def longer() -> Iterator[list[str]]:
    """A row per dataset and algorithm: what the updates that a budget affords have brought, pruned at 95 % and dense."""
    own = [row for row in (*read("trials.csv"), *read("longer.csv")) if row["method"] == "dense" or is_snip_95(row)]
    budgets = sorted({int(row["updates"]) for row in own})
    snip = method_name("snip", 0.95)
    yield ["data", "algorithm", f"dense, {min(budgets):,} updates", *(f"{snip}, {budget:,} updates" for budget in budgets)]
    for place in dict.fromkeys((row["dataset"], row["algorithm"]) for row in own):
        there = [row for row in own if (row["dataset"], row["algorithm"]) == place and row["outcome"] == "done"]
        dense = {row["seed"]: row for row in there if row["method"] == "dense"}
        pruned = [{row["seed"]: row for row in there if row["method"] == "snip" and int(row["updates"]) == budget} for budget in budgets]
        yield [*shown(place), seconds(dense), *(beside(cell, dense) for cell in pruned)]


def is_snip_95(row: Row) -> bool:
    return row["method"] == "snip" and float(row["sparsity"]) == 0.95


def seconds(cell: Mapping[str, Row]) -> str:
    return f"{np.mean([float(row['seconds']) for row in cell.values()]):,.0f} s" if cell else "-"


def beside(cell: Mapping[str, Row], dense: Mapping[str, Row]) -> str:
    """The share of the dense score that the common seeds have kept, and the seconds that it took."""
    share = shared(*({seed: float(row["last"]) for seed, row in of.items()} for of in (cell, dense)))
    if not share:
        return "-"
    return f"{100 * share.value:.0f} % [{share.note or f'{100 * share.low:.0f}, {100 * share.high:.0f}'}], {seconds(cell)}"


def spent() -> str:
    """How much of the study there is, and what it took."""
    trials = read("trials.csv")
    done = [row for row in trials if row["outcome"] == "done"]
    dense, pruned = ([float(row["seconds"]) for row in done if (row["pruner"] == "dense") is kind] for kind in (True, False))
    return (
        f"{len(done)} of {len(trials)} trials are done: {len(dense)} dense ones in {sum(dense) / 3600:.1f} hours of one core's updates, "
        f"{len(pruned)} pruned ones in {sum(pruned) / 3600:.1f}."
    )


def pictures(names: Iterable[str]) -> str:
    """Every figure that is there, with its name as the text beside it."""
    return "\n\n".join(f"![{file.stem}](results/{file.name})" for name in names for file in drawn(FOLDER, name))


def texts() -> dict[str, str]:
    """What stands between the marks of docs/results.md."""
    pages = {"claim": claim(), "final": by_final(), "kept": markdown(retained()), "costs": spent(), "pictures": pictures(FIGURES)}
    return pages | {"controls": markdown(controls()), "longer": markdown(longer()), "frontiers": pictures(FRONTIERS)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storage", help="where the sweeps ran (default as for the service)")
    renew(paths.root(parser.parse_args().storage))
    for name, text in texts().items():
        fill(PAGE, name, text)


if __name__ == "__main__":
    main()
