"""Write the tables of benchmarks/README.md from the JSON files of the programs: `python -m benchmarks.tables`, after `make bench`.

A table stands between `<!-- name -->` and `<!-- end -->`, and its rows come from the function of that name.
"""

from __future__ import annotations

import csv
import json
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from search_spaces.studies.study import SWEEP as STUDY
from service.results.statistics import Scores, mean_interval, ratio
from service.terminal.labels import algorithm_name, dataset_name, method_name

HERE = Path(__file__).parent
CELL = ("algorithm", "pruner", "sparsity")


def updates() -> Iterator[list[str]]:
    yield ["processor", "algorithm", "pruner", "sparsity", "execution", "updates/s", "of d3rlpy", "of plain torch"]
    for processor, measured in read("updates").items():
        for row in measured["rows"]:
            ratios = (spread(row["ratios"][peer], 1) if peer in row["ratios"] else "" for peer in ("d3rlpy", "plain"))
            yield [processor, *shown(row), row["execution"], f"{row['updates_per_second']:.0f}", *ratios]


def falls() -> str:
    """How the time of an update falls with the kept weights."""
    parts = []
    for processor, measured in read("updates").items():
        rates = {
            row["sparsity"]: row["updates_per_second"]
            for row in measured["rows"]
            if (row["algorithm"], row["pruner"]) == ("td3_bc", "snip") and row["execution"] == "sparse"
        }
        faster = rates[0.95] / rates[0.8]
        parts.append(f"- {processor}: {faster:.2f} times, {faster / 4:.2f} of proportional")
    return "\n".join(["How much faster TD3+BC with SNIP gets from 20 % kept weights to 5 %:", "", *parts])


def speed() -> str:
    """The README's sentence: medians, from the slowest to the fastest processor that was measured."""
    found = read("updates")

    def times(algorithm: str, pruners: tuple[str, ...], peer: str) -> str:
        wanted = [
            median(row["ratios"][peer])
            for measured in found.values()
            for row in measured["rows"]
            if row["algorithm"] == algorithm and row["pruner"] in pruners and (row["sparsity"], row["execution"]) == (0.95, "sparse")
            and peer in row["ratios"]
        ]  # fmt: skip
        low, high = (f"{value:.0f}" for value in (min(wanted), max(wanted)))
        return low if low == high else f"{low} to {high}"

    masks, snip = ("snip", "random_erk"), ("snip",)
    text = (
        "A pruned trial costs what its kept weights cost. On one core at 95 % sparsity, TD3+BC trains "
        f"{times('td3_bc', masks, 'd3rlpy')} times as fast as in [d3rlpy](https://github.com/takuseno/d3rlpy) and behaviour cloning "
        f"{times('bc', snip, 'd3rlpy')} times; beside a plain program in torch, it is {times('td3_bc', masks, 'plain')} and "
        f"{times('bc', snip, 'plain')} times ([by processor and pruner](benchmarks/README.md), `make bench`)."
    )
    return textwrap.fill(text, 140, break_long_words=False, break_on_hyphens=False)


def profile() -> Iterator[list[str]]:
    yield ["part of an update", "share of its time"]
    for part, share in read("update_profile")["shares"].items():
        yield [part, f"{100 * share:.1f} %"]


def break_even() -> Iterator[list[str]]:
    yield ["algorithm", "kept", "dense, us per update", "sparse, us per update", "sparse against dense"]
    for algorithm, rows in read("break_even")["works"].items():
        for density, row in rows.items():
            times = (f"{median(row[execution]):.0f}" for execution in ("dense", "sparse"))
            yield [algorithm_name(algorithm), f"{100 * float(density):g} %", *times, spread(row["ratio"], 2)]


def structures() -> Iterator[list[str]]:
    """The ends of the densities; structures.json has those between."""
    yield ["algorithm", "kept", "structure", "execution", "live units", "updates/s", "against unstructured", "an action, us", "against it"]
    for algorithm, levels in read("structures")["works"].items():
        for sparsity in ("0.5", "0.9375"):
            for name, row in levels[sparsity].items():
                structure, execution = name.split()
                about = [algorithm_name(algorithm), f"{100 * (1 - float(sparsity)):g} %", structure, execution, str(row["live_units"])]
                rates = [f"{median(row['updates_per_second']):.0f}", spread(row["updates_ratio"], 2)]
                yield [*about, *rates, f"{median(row['microseconds']):.1f}", spread(row["action_ratio"], 2)]


def moving() -> Iterator[list[str]]:
    yield ["algorithm", "mask", "updates/s", "against static"]
    for algorithm, found in read("moving").items():
        for name, rates in found["updates_per_second"].items():
            yield [algorithm_name(algorithm), name, f"{median(rates):.0f}", spread(found["against_static"][name], 2)]


def evaluation() -> Iterator[list[str]]:
    yield ["what", "CPU s", "against its physics"]
    for what, found in read("evaluation")["seconds"].items():
        yield [what, f"{median(found['cpu']):.2f}", spread(found["ratio"], 2)]


def inference() -> Iterator[list[str]]:
    """Not every sparsity: those that show where which format wins."""
    formats, files = ("torch", "dense", "compact", "csr", "onnxruntime"), ("dense", "compact", "csr", "onnx")
    yield ["pruner", "sparsity", "units", "batch", *(f"{name}, us" for name in formats), *(f"{name}, kB" for name in files)]
    for row in read("inference"):
        if row["sparsity"] in (0.0, 0.8, 0.95, 0.99):
            times = (spread(row["microseconds"][name], 0) for name in formats)
            sizes = (f"{row['kilobytes'][name]:.0f}" for name in files)
            yield [*shown(row)[1:], row["units"], str(row["batch"]), *times, *sizes]


def orchestration() -> Iterator[list[str]]:
    found = read("orchestration")
    yield ["what", "bare", "through the service", "ratio"]
    lengths = {f"{updates} updates of BC": row for updates, row in found["training"].items()}
    sleep = {name: [value] if name.endswith("_s") else value for name, value in found["noop"].items()}
    for each, row in {f"{found['noop']['seconds_each']:g} s of sleep": sleep, **lengths}.items():
        ratios = [swept / bare for swept, bare in zip(row["service_s"], row["bare_s"], strict=True)]
        yield [
            f"{row['trials']} trials of {each}",
            f"{median(row['bare_s']):.0f} s",
            f"{median(row['service_s']):.0f} s",
            spread(ratios, 2),
        ]


def points() -> Iterator[list[str]]:
    found = read("orchestration")["points"]
    yield ["shipped", "points/s", "updates/s of a trainer beside it", "in turn without", "driver's memory"]
    rates = (spread(found[name], 0) for name in ("points_per_second", "updates_per_second_shipping", "updates_per_second_alone"))
    memory = f"{found['driver_rss_mb_before']} MB, then {found['driver_rss_mb']} MB"
    yield [f"{found['points']:,} points of {found['trials']} trials", *rates, memory]


def scale() -> Iterator[list[str]]:
    found = read("scale")["sweep"]
    yield [
        "trials",
        "wall time per trial, 2nd tenth",
        "last",
        "driver's CPU per trial, 2nd tenth",
        "last",
        "memory after it",
        "at the end",
        "load",
    ]
    for trials, row in found.items():
        times = (f"{row[name][place]:.0f} ms" for name in ("ms", "cpu_ms") for place in (1, -1))
        memory = (f"{row['rss_mb'][place]} MB" for place in (2, -1))
        yield [f"{int(trials):,}", *times, *memory, f"{row['load']:.0f}"]


def scale_commands() -> Iterator[list[str]]:
    found = read("scale")
    sizes = sorted({size for part in ("restart", "commands", "mlflow", "forget") for size in found.get(part, {})}, key=int)
    yield ["command", *(f"{int(size):,} trials" for size in sizes)]
    named = {"all_done": "`run`, all done", "half_done": "`run`, half done, until the first stack is handed out"}
    for name, text in named.items():
        yield [text, *(_spent(found["restart"].get(size, {}).get(name)) for size in sizes)]
    for words in ("sync", "verify"):
        yield [f"`{words}`, PostgreSQL", *(_spent(found.get("mlflow", {}).get(size, {}).get(words)) for size in sizes)]
    for part in ("commands", "forget"):
        for words in dict.fromkeys(words for row in found.get(part, {}).values() for words in row if words != "load"):
            yield [f"`{words}`", *(_spent(found[part].get(size, {}).get(words)) for size in sizes)]


def _spent(row: Mapping[str, Any] | None) -> str:
    if not row:
        return ""
    statements = f", {row['statements']:,} statements" if "statements" in row else ""
    return f"{row['s']:.1f} s ({row['cpu_s']:.1f}){statements}"


def gpu() -> Iterator[list[str]]:
    heads = ["calls", "graph", "of the roofline", "calls, TF32", "graph, TF32", "graph in `dense`", "with TF32"]
    yield [*CELL, "K", *heads]
    rows = read("gpu")["rows"]
    rates = {tuple(row[key] for key in (*CELL, "members", "execution", "graph", "tf32")): row for row in rows}
    for place in dict.fromkeys(tuple(row[key] for key in (*CELL, "members")) for row in rows):
        found = []
        for tf32 in (False, True):
            found += [rates[*place, "fused", graph, tf32] for graph in (False, True)]
        found += [rates.get((*place, "dense", True, tf32)) for tf32 in (False, True)]
        numbers = [f"{row['updates_per_second']:,.0f}" if row else "" for row in found]
        numbers.insert(2, f"{100 * found[1]['roofline']:.0f} %")
        yield [*shown(dict(zip(CELL, place[:3], strict=True))), str(place[3]), *numbers]


def onchip_estimate() -> Iterator[list[str]]:
    gpus = ["H100 (SXM)", "A100"]
    yield [
        *CELL,
        "on the chip",
        "reads",
        "from L2",
        "instructions",
        "barriers",
        *(f"{name}, {unit}" for name in gpus for unit in ("us", "updates/s")),
    ]
    for row in read("onchip_estimate")["rows"]:
        counts = [f"{row['shared_bytes'] / 1024:.0f} kB", f"{row['loads']:,.0f}", f"{row['cache_bytes'] / 1024:,.0f} kB"]
        counts += [f"{row[name]:.0f}" for name in ("instructions", "barriers")]
        bounds = [row["bounds"].get(name) for name in gpus]
        numbers = [
            n for b in bounds for n in ([f"{b['microseconds']:.0f}", f"{b['updates_per_second']:,.0f}"] if b else ["does not fit", ""])
        ]
        yield [*shown(row), *counts, *numbers]


def gpu_scores() -> Iterator[list[str]]:
    heads = [
        "last, float32",
        "kept of dense",
        "last, TF32",
        "final, TF32 - float32, by seed",
        "last on CPUs, by seed",
        "seconds, float32",
        "TF32",
    ]
    yield ["data", "pruner", "sparsity", "seeds", *heads]
    dense: dict[str, Scores] = {}
    for row in read("gpu_scores")["rows"]:
        last, rounded = (np.array(row[kind]["last"]) for kind in ("float32", "tf32"))
        differ = np.array(row["tf32"]["final"]) - np.array(row["float32"]["final"])
        if row["pruner"] == "dense":
            dense[row["dataset"]] = last
        share = ratio(last, dense[row["dataset"]]) if row["pruner"] != "dense" else None
        kept = f"{100 * share.value:.0f} % [{share.note or f'{100 * share.low:.0f}, {100 * share.high:.0f}'}]" if share else ""
        elsewhere = ", ".join(f"{score:.1f}" for score in on_cpus(row))
        numbers = [
            said(last),
            kept,
            said(rounded),
            said(differ),
            elsewhere,
            *(f"{row[kind]['seconds']:.0f}" for kind in ("float32", "tf32")),
        ]
        yield [dataset_name(row["dataset"]), *shown(row)[1:], str(len(last)), *numbers]


def shown(row: Mapping[str, Any]) -> list[str]:
    """Algorithm, pruner and sparsity, as tables show them."""
    return [algorithm_name(row["algorithm"]) if "algorithm" in row else "", method_name(row["pruner"]), f"{100 * row['sparsity']:g} %"]


def on_cpus(cell: dict[str, Any]) -> list[float]:
    """Last scores of the same cell in the study, by seed."""
    with (HERE.parent / "docs" / "results" / "trials.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if all(row[key] == str(cell[key]) for key in ("dataset", *CELL))]
    return [float(row["last"]) for row in rows if row["last"] and int(row["updates"]) == STUDY.updates]


def said(scores: Scores) -> str:
    """The mean [its 95 % t interval over seeds]."""
    found = mean_interval(scores)
    return f"{found.value:.1f} [{found.note or f'{found.low:.1f}, {found.high:.1f}'}]"


def read(name: str) -> Any:
    (file,) = HERE.glob(f"*/{name}.json")
    return json.loads(file.read_text())


def spread(values: list[float], digits: int) -> str:
    """Median (lowest - highest)."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} - {max(values):.{digits}f})"


def markdown(rows: Iterable[list[str]]) -> str:
    head, *body = rows
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *body))


def fill(page: Path, name: str, text: str) -> None:
    """Put `text` between the marks of that name in a page; raises ValueError where the page does not have them once."""
    new, found = re.subn(
        rf"<!-- {name} -->\n.*?<!-- end -->", lambda _: f"<!-- {name} -->\n{text}\n<!-- end -->", page.read_text(), flags=re.S
    )
    if found != 1:
        raise ValueError(f"{page.name} has {found} places `<!-- {name} -->` ... `<!-- end -->`, one is wanted")
    page.write_text(new)


def texts() -> dict[str, str]:
    """What stands between the marks of benchmarks/README.md."""
    tables = (
        updates,
        profile,
        break_even,
        structures,
        moving,
        inference,
        evaluation,
        orchestration,
        points,
        scale,
        scale_commands,
        gpu,
        onchip_estimate,
        gpu_scores,
    )
    return {table.__name__: markdown(table()) for table in tables} | {"falls": falls()}


def main() -> None:
    for name, text in texts().items():
        fill(HERE / "README.md", name, text)
    fill(HERE.parent / "README.md", "speed", speed())


if __name__ == "__main__":
    main()
