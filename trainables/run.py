"""The core loop: dataset -> saliency -> masks -> updates -> evaluation, for K trials at once, as a generator of reports."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainables import environments, plugins
from trainables.agent import Agent
from trainables.datasets.minibatches import Minibatches
from trainables.datasets.table import Table, load_table
from trainables.errors import UserError
from trainables.evaluation.evaluation import Evaluation
from trainables.evaluation.futures import Beside, Future
from trainables.evaluation.report_queue import ReportQueue
from trainables.execution import missed
from trainables.pruning import mask_statistics
from trainables.pruning.gradual import change, changes_of
from trainables.pruning.mask_statistics import Quantiles
from trainables.pruning.prune import prune
from trainables.pruning.starting_weights import starting_rows
from trainables.reports import Checkpointed, Diverged, Evaluated, Finished, Pruned, Report, Trained
from trainables.tensors.mask import Mask
from trainables.training import checkpoint, files_of_trial
from trainables.training.checkpoint import Saved
from trainables.training.updates import Updates
from trainables.trial import Stack, Trial

CHECKPOINT_EVERY = 5_000  # updates; seconds of work at most


def run_stack(
    stack: Stack,
    storage: Path | None = None,
    *,
    device: str = "cpu",
    execution: str = "auto",
    checkpoint_every: int = CHECKPOINT_EVERY,
    before_write: Callable[[], None] = lambda: None,
    beside: Beside | None = None,
    tf32: bool = False,
) -> Iterator[Report]:
    """Prune and train the trials of `stack` as one batched model, yielding reports (trainables/reports.py).

    With a `storage` folder it goes on from the newest checkpoint that all members have, and leaves checkpoints, masks and policies
    there; a checkpoint is written only after the reports up to it were taken, and `before_write` may forbid it by raising. `beside`
    evaluates in another process while training goes on. `tf32` lets a GPU round the factors of matrix products to 10 bits. Raises
    UserError for bad input or a mask that disconnects a network, before anything is written.
    """
    started = time.monotonic()
    torch.set_num_threads(1)  # one thread per trial: two beside another process collapse
    torch.set_flush_denormal(True)  # Adam's second moments underflow, and arithmetic on denormal numbers is up to 100 times slower
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    lead = stack.lead
    table = load_table(lead.dataset)
    algorithm = plugins.load("algorithms", lead.algorithm)
    agent = Agent(algorithm, stack, table.observation_size, table.action_size, usable(device))
    data = Minibatches(table, algorithm.NORMALIZE, device, getattr(algorithm, "NEXT_ACTIONS", False))
    evaluate = Evaluation(agent, table, stack)

    def masked(report: Pruned, masks: dict[str, Mask]) -> Iterator[Report]:
        yield report
        keep(masks, report.details)

    def keep(masks: dict[str, Mask], details: Sequence[Mapping[str, Any]]) -> None:
        if storage:
            before_write()
            files_of_trial.write_masks(storage, stack, masks, details)

    def evaluated(update: int, future: Future, final: bool = False) -> Iterator[Report]:
        returns = future.result()
        yield Evaluated(update, returns.tolist(), table.reference.normalize(returns).tolist(), final)

    def commit(state: Saved) -> Iterator[Report]:
        if storage:
            before_write()
            checkpoint.save(storage, stack, state)
            yield Checkpointed(state.update)

    quantiles: Quantiles = {}
    saved = checkpoint.newest(storage, stack, agent.specs) if storage else None
    if saved:
        saved = saved.to(device)
        masks, update, details = saved.masks, saved.update, saved.details
        if details:
            keep(masks, details)  # should a file of them be lost or damaged
        agent.build(execution, {name: saved.rows[f"online/{name}"] for name in agent.specs}, masks)
        agent.load_rows(saved.rows, saved.counts)
    else:
        masks, update = prune(agent, stack, data.draw, quantiles), 0
        agent.build(execution, starting_rows(agent, stack, masks), masks)
        report = pruned(0, agent, table, masks, quantiles, execution)
        details = report.details
        yield from masked(report, masks)
        yield from commit(checkpoint.state_of(agent, masks, 0, details))

    make, changes, told = Updates(agent, data), changes_of(stack), ReportQueue()
    healthy = agent.finite()  # a member that diverged before the checkpoint was reported then
    for stop in (stop for stop in stops(lead, checkpoint_every) if stop > update):
        if not any(healthy):
            break
        begun, before = time.monotonic(), masks
        logged: dict[str, Tensor] = {}
        for first, last in pairwise(sorted({update, *(at for at in changes if update <= at < stop), stop})):
            if first in changes:
                masks = change(agent, stack, masks, changes[first], execution, quantiles)
            logged |= make.run(first, last)
        alive = agent.finite()  # waits for a GPU, which has only been given its work so far
        rate = len(stack) * (stop - update) / (time.monotonic() - begun)
        update = stop

        for member, finite in enumerate(alive):
            if healthy[member] and not finite:
                healthy[member] = False
                told.later([Diverged(update, member, f"parameters are not finite after update {update}")])
        if masks is not before:
            report = pruned(update, agent, table, masks, quantiles, execution)
            details = report.details
            told.later(masked(report, masks))
        told.later([Trained(update, per_member(logged, len(stack)), rate)])
        if update in lead.evaluation_updates():
            returns = evaluate.begin(beside, masks)
            told.later(evaluated(update, returns), returns)
        if update == lead.updates and lead.final_episodes:
            returns = evaluate.begin(beside, masks, final=True)
            told.later(evaluated(update, returns, final=True), returns)
        if storage and (update % checkpoint_every == 0 or update == lead.updates):
            told.later(commit(checkpoint.state_of(agent, masks, update, details)))
        yield from told.ready()

    yield from told.ready(wait=True)
    if not any(healthy):
        return
    executed = f"{agent.execution}, tf32" if tf32 else agent.execution
    if storage:
        before_write()
        about = {"environment": table.environment, "dataset_hash": table.hash, "execution": executed}
        files_of_trial.write_policies(storage, stack, agent, evaluate.scaling, about)
        checkpoint.tidy(storage, stack, update)
    yield Finished(update, time.monotonic() - started, executed)


def pruned(update: int, agent: Agent, table: Table, masks: dict[str, Mask], quantiles: Quantiles, execution: str) -> Pruned:
    """The report on masks; `quantiles` are those of the saliencies they come from."""
    size = table.observation_size
    names = [*(environments.observation_names(table.environment, size) or (f"observation {index}" for index in range(size)))]
    names += [f"action {index}" for index in range(table.action_size)]
    found: list[dict[str, Any]] = [{} for _ in range(agent.size)]
    for name, mask in masks.items():
        spec = agent.specs[name]
        for member, about in enumerate(mask_statistics.describe(spec, mask, names[: spec.sizes[0]] if spec.sizes[0] <= len(names) else ())):
            for layer, own in zip(about["layers"], (quantiles or {}).get((member, name), ()), strict=False):
                layer["saliency_quantiles"] = own
            found[member][name] = about
    slow = missed(masks.values(), torch.device(agent.device).type) if execution == "auto" else ""
    warnings = [[*mask_statistics.warnings(own), *filter(None, [slow])] for own in found]
    return Pruned(update, [mask_statistics.metrics(own) for own in found], found, warnings)


def usable(device: str) -> str:
    """`device` where torch can put a tensor on it; raises UserError otherwise."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        there = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
        raise UserError(f"no device {device!r} ({str(error).splitlines()[0].rstrip('.')}); there are: {', '.join(there)}") from None
    return device


def stops(trial: Trial, checkpoint_every: int) -> list[int]:
    """The updates after which something is reported or saved, ascending."""
    reports = range(0, trial.updates, max(1, min(1000, trial.updates // 50)))
    saves = range(0, trial.updates, checkpoint_every)
    return sorted({*reports, *saves, *trial.evaluation_updates(), trial.updates} - {0})


def per_member(logged: dict[str, Tensor], members: int) -> list[dict[str, float]]:
    """Losses [K] by name -> one dictionary per member; the only copy from the device between two reports."""
    values = {f"train/{name}": loss.detach().tolist() for name, loss in logged.items()}
    return [{name: losses[k] for name, losses in values.items()} for k in range(members)]
