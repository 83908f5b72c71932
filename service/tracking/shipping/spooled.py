"""What the lines of a trial's spool say of its run in MLflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from service.ledger.ledger import Event
from service.spool.lines import Line, Placed
from service.tracking.reading import RunRow
from service.tracking.runs import DETAILS, METRICS_PER_CALL, STATUS, dataset_of
from trainables.trial import Trial

TAGS = ("dataset_hash", "dataset_score", "reference", "revision", "plugins", "host", "kernels")  # of an attempt's line


def tags_in(lines: Sequence[Placed]) -> dict[str, str]:
    """The tags that lines give a run."""
    tags: dict[str, str] = {}
    for line in (placed.line for placed in lines):
        match line["kind"]:
            case "attempt":
                tags |= {f"winnow.{name}": line[name] for name in TAGS if name in line}
            case "pruned" if line.get("warnings"):
                tags["winnow.warning"] = "; ".join(line["warnings"])
            case "finished":
                tags["winnow.execution"] = line["execution"]
    return tags


def datasets_in(trial: Trial, lines: Sequence[Placed]) -> list[dict[str, str]]:
    """The versions of its dataset on which a trial has been trained, by its attempts; mostly one."""
    found: dict[str, dict[str, str]] = {}
    for line in (placed.line for placed in lines if placed.line["kind"] == "attempt"):
        profile: dict[str, str] = {name: str(line[name]) for name in ("dataset_score", "reference") if name in line}
        about = dataset_of(trial.dataset, line.get("dataset_hash", "unknown"), profile)
        found.setdefault(about["digest"], about)
    return list(found.values())


def row_of(run_id: str, event: Event, lines: Sequence[Line], held: Mapping[str, str]) -> RunRow:
    """A trial's run as its newest event, some lines of its spool and the last values of its metrics make it; without params."""
    attempt = next((line for line in reversed(lines) if line.get("kind") == "attempt"), {})
    tags = {f"winnow.{name}": str(attempt[name]) for name in TAGS if name in attempt} | {"winnow.state": event.state}
    tags |= {f"winnow.{name}": str(event.detail.get(name, "")) for name in DETAILS}
    return RunRow(run_id, STATUS[event.state], {name: float(value) for name, value in held.items()}, tags)


def chunks_of(lines: Sequence[Placed]) -> list[list[Placed]]:
    """Lines in groups of about one call's points at most."""
    chunks: list[list[Placed]] = []
    count = 0
    for placed in lines:
        size = len(placed.line.get("metrics", ()))
        if not chunks or count + size > METRICS_PER_CALL:
            chunks.append([])
            count = 0
        chunks[-1].append(placed)
        count += size
    return chunks
