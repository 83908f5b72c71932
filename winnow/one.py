"""One trial from Python: what `python -m trainables` does, as a value."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from winnow import given
from winnow.shown import Progress, lines_to

if TYPE_CHECKING:
    import pandas as pd

    from trainables.policy.policy import Policy
    from trainables.reports import Report
    from trainables.trial import Trial


CURVE = "curve.json"  # in a trial's folder: the evaluations of calls, for one that finds it finished or goes on with it


@dataclass(frozen=True)
class Trained:
    """A trial that was trained: its `curve` has a row per evaluation. `diverged` says why it has no result, and is empty if it has one;
    the curve then ends with the last evaluation before."""

    trial: Trial
    curve: pd.DataFrame
    diverged: str = ""
    folder: Path | None = field(default=None, repr=False)

    @property
    def score(self) -> float:
        """The mean normalized score of the last evaluation; nan where it has diverged, and where no reference returns are known."""
        return float(self.curve["score"].iloc[-1]) if len(self.curve) and not self.diverged else float("nan")

    def policy(self) -> Policy:
        """Observations -> actions, numpy alone. Raises UserError where the trial was trained without a storage."""
        from trainables.errors import UserError
        from trainables.policy.policy import load_policy

        if self.folder is None:
            raise UserError("no policy was kept: give winnow.trial a storage")
        return load_policy(self.folder)

    def _repr_html_(self) -> str:
        from html import escape

        ended = f" diverged: {self.diverged}" if self.diverged else ""
        return f"<b>{escape(self.trial.name)}</b>{escape(ended)}{self.curve.to_html(index=False)}"


def trial(
    dataset: str,
    algorithm: str = "td3_bc",
    pruner: str = "dense",
    sparsity: float = 0.0,
    *,
    storage: str | Path | None = None,
    device: str = "cpu",
    execution: str = "auto",
    progress: Progress = True,
    **fields: Any,
) -> Trained:
    """Train one trial here, without a cluster, a server or a sweep. `fields` are those of Trial, e.g. `seed=1, updates=50_000`. Without a
    `reward_shift`, it is the paper's for the dataset (IQL on sparse mazes: -1). A dataset that ships as a policy is recorded first.

    With a `storage` (a folder) it resumes from its checkpoints there, also from those of a sweep, and leaves masks, policy and curve.
    `progress` is as in `run`.
    Raises UserError for bad input.
    """
    from service.planning.provenance import record
    from trainables import reports as kinds
    from trainables.__main__ import check_writable, follow
    from trainables.datasets import local
    from trainables.evaluation.metrics import known, metrics_of
    from trainables.storage import trial_files
    from trainables.storage.files import write
    from trainables.trial import Stack, Trial
    from trainables.trial.published import reward_shift

    given.renew()
    fields = given.fields({"dataset": dataset, "algorithm": algorithm, "pruner": pruner, "sparsity": sparsity} | fields)
    fields.setdefault("reward_shift", reward_shift(algorithm, dataset))
    stack = Stack((Trial(**fields),))
    where = given.storage(storage) if storage is not None else None
    if where:
        check_writable(where)
    if not local.exists(dataset) and dataset.startswith(local.OURS):
        with lines_to(progress):
            record(dataset)
    from trainables.run import run_stack  # imports torch
    from trainables.training.process import torch_as_before

    folder = trial_files.trial(where, stack.lead.key) if where else None
    rows = _kept(where, stack.lead.key)
    reasons: list[str] = []

    def heard(reports: Iterator[Report]) -> Iterator[Report]:
        for report in reports:
            if isinstance(report, kinds.Evaluated) and not (report.final or reasons):
                found = metrics_of(known(report.episodes[0]))
                rows[:] = [row for row in rows if row["update"] < report.update]
                rows.append({"update": report.update, "return": found["return"], "score": found.get("normalized_score", float("nan"))})
                if folder is not None:
                    write(folder / CURVE, json.dumps(rows).encode())
            elif isinstance(report, kinds.Diverged):
                reasons.append(report.reason)
            yield report

    reports = heard(run_stack(stack, where, device=device, execution=execution))
    with torch_as_before(), lines_to(progress):
        if progress:
            follow(stack, reports)
        else:
            for _ in reports:
                pass
    import pandas as pd

    return Trained(stack.lead, pd.DataFrame(rows, columns=["update", "return", "score"]), "".join(reasons), folder)


def _kept(storage: Path | None, key: str) -> list[dict[str, float]]:
    """The evaluations before this call, by its like and by sweeps, whose spool has them before MLflow; ascending. None without a storage,
    and none from a CURVE that makes no sense. Raises UserError for a damaged spool."""
    from service.spool import lines
    from service.spool.scores import RETURN, SCORE
    from service.storage import paths

    if storage is None:
        return []
    try:
        rows = {int(row["update"]): dict(row) for row in json.loads((paths.trial(storage, key) / CURVE).read_bytes())}
    except (OSError, ValueError, TypeError, KeyError):
        rows = {}
    for placed in lines.read(paths.spool(storage, key)):
        metrics = placed.line.get("metrics", {})
        if placed.line["kind"] == "evaluated" and RETURN in metrics:
            rows[placed.update] = {"update": placed.update, "return": metrics[RETURN], "score": metrics.get(SCORE, float("nan"))}
    return [rows[update] for update in sorted(rows)]
