"""Made-up studies in a real MLflow, filled as sweeps fill it: spools, then the shipper. As a script it fills a storage to look at:

python -m tests.service.results.report.study STORAGE
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import torch

from service.ledger.ledger import Event, Ledger
from service.spool.writer import StackSpool
from service.tracking.runs import Tracking
from service.tracking.shipping.shipper import Shipper
from trainables.environments import halfcheetah, hopper, walker2d
from trainables.pruning import mask_statistics
from trainables.reports import Checkpointed, Diverged, Evaluated, Finished, Pruned, Trained
from trainables.tensors.mask import Mask
from trainables.tensors.mlp import MLP
from trainables.training import files_of_trial
from trainables.trial import Stack, Trial

ORIGIN = {"dataset_hash": "ab" * 32, "dataset_score": "90.00", "reference": "made up", "revision": "abc123"}
SHAPES = {"halfcheetah": (halfcheetah, 17, 6), "hopper": (hopper, 11, 3), "walker2d": (walker2d, 17, 6)}
Scores = dict[int, list[float]]  # update -> normalized scores of the episodes


def spool(storage: Path, trial: Trial, scores: Scores, rate: float = 100.0, hidden: int = 16) -> str:
    """Write a trial's files as if it had trained; returns the state of the manifest that goes with them.

    A score that is no number means that it diverged there; without one after the last update it is still under way.
    """
    listener = StackSpool(Stack((trial,)), storage, {trial.dataset: ORIGIN}, trial.updates)
    mask, described = masks(trial, hidden)
    listener(Pruned(0, [mask_statistics.metrics(described)], [described], [[]]))
    files_of_trial.write_masks(storage, Stack((trial,)), {"actor": mask}, [described])
    listener(Checkpointed(0))
    state = "leased"
    for update, episodes in scores.items():
        listener(Trained(update, [{"train/actor_loss": 1.0}], rate))
        if math.isnan(episodes[0]):
            listener(Diverged(update, 0, f"parameters are not finite after update {update}"))
            state = "diverged"
            break
        listener(Evaluated(update, [{"returns": [30.0 * score for score in episodes], "scores": episodes}]))
        if update == trial.updates and trial.final_episodes:  # 2 above the last evaluation
            final = [sum(episodes) / len(episodes) + 2.0] * trial.final_episodes
            listener(Evaluated(update, [{"returns": [30.0 * score for score in final], "scores": final}], final=True))
        listener(Checkpointed(update))
        if update == trial.updates:
            listener(Finished(update, update / rate, "sparse"))
            state = "done"
    listener.close()
    return state


def spooled_together(storage: Path, trials: list[Trial], scores: Scores, rate: float) -> list[tuple[Trial, str]]:
    """The same of trials that trained as one stack and finished, `rate` updates a second all together."""
    listener = StackSpool(Stack(tuple(trials)), storage, {trial.dataset: ORIGIN for trial in trials}, trials[0].updates)
    for update, episodes in scores.items():
        listener(Trained(update, [{"train/actor_loss": 1.0}] * len(trials), rate))
        listener(Evaluated(update, [{"returns": [30.0 * score for score in episodes], "scores": episodes}] * len(trials)))
        listener(Checkpointed(update))
    listener(Finished(trials[0].updates, trials[0].updates / rate, "sparse"))
    listener.close()
    return [(trial, "done") for trial in trials]


def masks(trial: Trial, hidden: int) -> tuple[Mask, dict[str, dict[str, object]]]:
    """Random masks and what they are: a middle layer that is nearly empty, an input that is cut at 95 % and above."""
    family, inputs, outputs = SHAPES[trial.dataset.split("/")[1]]
    spec = MLP((inputs, hidden, hidden, outputs))
    generator = torch.Generator().manual_seed(trial.seed)
    shares = [1.0] * 3 if trial.sparsity == 0 else [min(1.0, 3 * trial.density), 0.7 * trial.density, min(1.0, 8 * trial.density)]
    mask = [
        (torch.rand(1, 1, n_out, n_in, generator=generator) < share).float()
        for (n_in, n_out), share in zip(spec.layers, shares, strict=True)
    ]
    if trial.sparsity >= 0.95:
        mask[0][..., : 2 + trial.seed % 2] = 0
    return mask, {"actor": mask_statistics.describe(spec, mask, family.OBSERVATION_NAMES)[0]}


def ship(storage: Path, sweep: str, states: list[tuple[Trial, str]], tracking: Tracking) -> Ledger:
    """Everything into MLflow, under the sweep's run; a trial that was only planned has no run there. Returns what has happened."""
    ledger = Ledger()
    for trial, state in states:
        ledger.apply(Event(key=trial.key, state="planned", detail={"trial": trial.to_json()}))
        if state != "planned":
            ledger.apply(Event(key=trial.key, state="leased"))
        if state not in ("planned", "leased"):
            detail = {"reason": "divergence"} if state == "diverged" else {}
            ledger.apply(Event(key=trial.key, state=state, detail=detail))
    Shipper(storage, sweep, ledger, tracking).ship()
    return ledger


def main(storage: Path) -> None:
    """Three environments, two tiers, two algorithms, three pruners, three sparsities, three seeds; some failed."""
    tracking, states = Tracking(storage), []
    storage.mkdir(parents=True, exist_ok=True)
    cells = [("dense", 0.0), *((p, s) for s in (0.9, 0.95, 0.98) for p in ("snip", "grasp", "random_erk"))]
    for environment in SHAPES:
        for tier in ("medium", "expert"):
            for algorithm in ("bc", "td3_bc"):
                for pruner, sparsity in cells:
                    for seed in range(3):
                        about = {"dataset": f"winnow/{environment}/{tier}-v0", "algorithm": algorithm, "updates": 50_000}
                        trial = Trial(**about, pruner=pruner, sparsity=sparsity, seed=seed)
                        noise = torch.randn(30, generator=torch.Generator().manual_seed(int(trial.key[:8], 16))).tolist()
                        top = {"medium": 55, "expert": 95}[tier] * {"dense": 1, "snip": 1.02, "grasp": 0.9, "random_erk": 0.8}[pruner]
                        top -= 900 * max(0, sparsity - 0.9) ** 1.2
                        speed = {0.0: 4, 0.9: 2.5, 0.95: 1.6, 0.98: 1}[sparsity]
                        scores = {
                            u: [top * (1 - math.exp(-speed * u / 30_000)) + 3 * noise[i] + 4 * noise[(i + e) % 30] for e in range(10)]
                            for i, u in enumerate(trial.evaluation_updates())
                        }
                        if environment == "walker2d" and sparsity == 0.98 and pruner == "grasp" and seed:
                            scores[30_000] = [math.nan]
                        if environment == "hopper" and tier == "medium" and pruner == "random_erk" and seed == 2:
                            continue
                        states.append((trial, spool(storage, trial, scores, 150 / (1.05 - sparsity), hidden=64)))
    ship(storage, "mujoco_sparsity", states, tracking)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
