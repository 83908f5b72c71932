"""`winnow overlap`: how alike a sweep's masks are, between the seeds of a pruner and between pruners with the same seed."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement, product
from pathlib import Path
from typing import Any

from service.ledger.ledger import Ledger
from service.planning.data_here import SHOWN, DataHere
from service.results.cells import facts_of
from service.storage import paths, trial_objects
from service.terminal.columns import aligned
from service.terminal.labels import algorithm_name, dataset_name, method_name, rank
from trainables.pruning.mask_statistics import jaccard, read_masks
from trainables.tensors.mask import Mask
from trainables.trial import CALIBRATION, CHOICES, Trial
from trainables.trial.pruner_traits import traits_of

Masks = dict[str, Mask]  # of a trial, by network
DIFFERING = ("pruner", "pruning", "seed", "fresh", "data", "sparsity_of", *CHOICES, *CALIBRATION)  # in which compared trials may differ


@dataclass(frozen=True)
class Overlap:
    """Mean Jaccard overlap of a network's masks by two methods. `chance`: what independent masks with the same number of weights
    in each layer would have. `data`: the version of the dataset, where the trials were trained on several."""

    trial: Trial
    network: str
    methods: tuple[str, str]  # twice the same: between seeds; otherwise between methods, seed by seed
    mean: float
    chance: float
    pairs: int
    data: str = ""

    @property
    def task(self) -> str:
        return f"{self.trial.algorithm} on {self.trial.dataset} at {100 * self.trial.sparsity:g} %"


def overlaps(ledger: Ledger, storage: Path) -> list[Overlap]:
    """Over all trials of the ledger that have masks, per version of their dataset; raises UserError for a damaged file."""
    trial_objects.pull(storage)
    seen = DataHere(storage, ledger)
    trials = [entry.trial for entry in ledger.entries.values() if paths.masks(storage, entry.trial.key).exists()]
    masks = {trial.key: read_masks(paths.masks(storage, trial.key)) for trial in trials if _chosen(trial)}
    tasks: dict[str, dict[tuple[str, int], Trial]] = {}  # one trial per method and seed: a copy has the same masks once more
    versions: dict[str, set[str]] = {}
    for trial in (trial for trial in trials if trial.key in masks):
        shapes = {name: [layer.shape for layer in mask] for name, mask in masks[trial.key].items()}
        same = {n: v for n, v in trial.to_json().items() if n not in DIFFERING}
        version = _version(trial, seen)
        versions.setdefault(trial.dataset, set()).add(version)
        task = tasks.setdefault(json.dumps([same, version, str(shapes)], sort_keys=True), {})
        task.setdefault((trial.method, trial.seed), trial)
    several = {dataset for dataset, own in versions.items() if len(own) > 1}
    return [
        found
        for group in ([*task.values()] for task in tasks.values())
        for found in _of_task(group, masks, _version(group[0], seen) if group[0].dataset in several else "")
    ]


def _version(trial: Trial, seen: DataHere) -> str:
    """The beginning of the hash of the data that a trial was trained on; empty where that is not known."""
    return (seen.trained_on(trial) or trial.data)[:SHOWN]


def _chosen(trial: Trial) -> bool:
    """Whether a trial's masks chose anything: those of a dense network, of whatever size, are all ones."""
    return trial.pruner != "dense" and not traits_of(trial.pruner).shrinks


def _of_task(trials: Sequence[Trial], masks: dict[str, Masks], data: str) -> Iterator[Overlap]:
    first = trials[0]
    methods = list(dict.fromkeys(trial.method for trial in trials))
    for network in masks[first.key]:
        for a, b in combinations_with_replacement(methods, 2):
            pairs = [
                (masks[one.key][network], masks[other.key][network])
                for one, other in product((t for t in trials if t.method == a), (t for t in trials if t.method == b))
                if (one.seed < other.seed if a == b else one.seed == other.seed)
            ]
            if pairs:
                mean, chance = (statistics.fmean(how(*pair) for pair in pairs) for how in (jaccard, by_chance))
                yield Overlap(first, network, (a, b), mean, chance, len(pairs), data)


def by_chance(first: Mask, second: Mask) -> float:
    """The overlap to expect of independent masks that keep as many weights in each layer of each copy."""
    both = either = 0.0
    for a, b in zip(first, second, strict=True):
        kept, other, size = a.sum((-2, -1)), b.sum((-2, -1)), a.shape[-2] * a.shape[-1]
        common = float((kept * other / size).sum())
        both, either = both + common, either + float((kept + other).sum()) - common
    return both / either if either else 1.0


def describe(found: Sequence[Overlap]) -> str:
    """A table for each task and network: on the diagonal between seeds, beside it between methods."""
    if not found:
        return "no two masks to compare"
    parts = []
    for key, network in dict.fromkeys((o.trial.key, o.network) for o in found):
        own = {o.methods: o for o in found if (o.trial.key, o.network) == (key, network)}
        title = _title(next(iter(own.values())), found)
        methods = sorted({method for pair in own for method in pair}, key=rank)
        rows = [["", *map(method_name, methods)]]
        for row, method in enumerate(methods):
            cells = (own.get((method, other)) or own.get((other, method)) for other in methods[row:])
            rows.append([method_name(method), *[""] * row, *(f"{o.mean:.3f} ({o.chance:.3f})" if o else "-" for o in cells)])
        parts.append(f"{title}: {network}\n{aligned(rows)}")
    legend = "Jaccard overlap of masks (in brackets: of independent masks with as many weights in each layer);"
    return "\n\n".join([*parts, f"{legend}\nof a pruner with itself between seeds, of two pruners with the same seed"])


def _title(overlap: Overlap, found: Sequence[Overlap]) -> str:
    """The task, with its version of the data and whatever distinguishes it from others of its name."""
    trial = overlap.trial
    alike = [facts_of(other.trial) for other in found if other.task == overlap.task]
    facts = [trial.dataset, *([f"data {overlap.data}"] if overlap.data else [])]
    facts += [fact for fact in facts_of(trial) if not all(fact in other for other in alike)]
    return f"{algorithm_name(trial.algorithm)} on {dataset_name(trial.dataset)} at {100 * trial.sparsity:g} % ({', '.join(facts)})"


def to_json(found: Sequence[Overlap]) -> list[dict[str, Any]]:
    return [{"task": overlap.task} | {name: value for name, value in vars(overlap).items() if name != "trial"} for overlap in found]
