"""The core loop: dataset -> saliency -> masks -> updates -> evaluation, for K trials at once, as a generator of reports."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainables import plugins
from trainables.agent import Agent
from trainables.datasets import local
from trainables.datasets.minibatches import minibatches_of
from trainables.datasets.table import load_table, names_of
from trainables.errors import MachineError, StoppedError, UserError
from trainables.evaluation.evaluation import Evaluation
from trainables.evaluation.futures import Beside, Future
from trainables.evaluation.report_queue import ReportQueue
from trainables.pruning.mask_changes import change, changes_of, moved
from trainables.pruning.mask_report import report_on
from trainables.pruning.mask_statistics import Quantiles
from trainables.pruning.prune import prune
from trainables.pruning.starting_weights import starting_rows
from trainables.reports import Diverged, Evaluated, Finished, Pruned, Report, Trained
from trainables.tensors.mask import Mask
from trainables.training.checkpoint import Saved, state_of
from trainables.training.diagnostics import Diagnostics
from trainables.training.leave import Leave
from trainables.training.process import set_up_torch
from trainables.training.stack_files import StackFiles
from trainables.training.updates import Updates
from trainables.trial import Stack, Trial
from trainables.trial.pruner_traits import traits_of

CHECKPOINT_EVERY = 5_000  # updates; at most seconds of work
HASH = 12  # digits of a hash that are shown


def run_stack(
    stack: Stack,
    storage: Path | None = None,
    *,
    device: str = "cpu",
    execution: str = "auto",
    checkpoint_every: int = CHECKPOINT_EVERY,
    before_write: Callable[[], None] | None = None,
    beside: Beside | None = None,
    tf32: bool = False,
    dataset_hash: str = "",
    leave: Leave | None = None,
) -> Iterator[Report]:
    """Prune and train the trials of `stack` as one batched model, yielding reports (trainables/reports.py).

    With a `storage` folder, training resumes from the newest checkpoint that all members have, and leaves checkpoints, masks and policies
    there. A checkpoint is written only after the reports up to it were taken. `before_write` may forbid any write by raising; with it, a
    storage that is gone is not made again, which raises FileNotFoundError. `beside` evaluates in another process while training goes on.
    `tf32` lets a GPU round the factors of matrix products to 10 bits. Raises UserError for bad input, for data whose hash is not
    `dataset_hash` (where given) or that of the checkpoint, and for a mask that disconnects a network, before anything is written. Once
    `leave` is asked for, training commits what it has, at any update, and raises StoppedError.
    """
    started = time.monotonic()
    set_up_torch(tf32)
    files = StackFiles(stack, storage, before_write)
    try:
        run = StackRun(stack, device, execution, files, beside, leave or Leave())
    except UserError as error:
        if dataset_hash and not local.exists(stack.lead.dataset):  # the driver has it, so it is this host that lacks it
            raise MachineError(str(error)) from None
        raise
    run.check_data("the driver of this sweep has", dataset_hash)
    saved = files.newest_checkpoint(run.agent.specs)
    yield from run.resume(saved) if saved else run.start()

    for update in stops(stack.lead, checkpoint_every, after=run.update):
        if not any(run.healthy):
            break
        run.train_until(update)
        if run.update < update or (run.leave.asked and update not in stack.lead.evaluation_updates()):
            yield from run.leave_early()
        run.evaluate()
        if storage and (update % checkpoint_every == 0 or update == stack.lead.updates):
            run.save()
        yield from run.reports.ready()
    yield from run.reports.ready(wait=True)

    if any(run.healthy):
        executed = run.agent.execution
        if tf32 and executed != "onchip":  # whose products are none of torch's
            executed += ", tf32"
        run.write_policies(executed)
        yield Finished(run.update, time.monotonic() - started, executed)


class StackRun:
    """A stack in training: each phase of `run_stack` is a method. Those of training queue their `reports` in order, together with what
    must happen between them: a file that a report announces or follows is written when the report is taken."""

    def __init__(
        self, stack: Stack, device: str, execution: str, files: StackFiles, beside: Beside | None, leave: Leave | None = None
    ) -> None:
        self.stack, self.execution, self.files, self.beside, self.leave = stack, execution, files, beside, leave or Leave()
        self.table = load_table(stack.lead.dataset).cut(stack.lead.transitions, stack.lead.seed)
        for trial in stack.trials:
            self.check_data("the trial is of", trial.data, trial)
        algorithm = plugins.load("algorithms", stack.lead.algorithm)
        self.agent = Agent(algorithm, stack, self.table.observation_size, self.table.action_size, usable(device))
        self.data = minibatches_of(algorithm, stack, self.table, device)
        self.evaluation = Evaluation(self.agent, self.table, stack)
        self.diagnostics = Diagnostics(self.agent, self.data)
        self.changes = changes_of(stack)
        self.reports = ReportQueue()
        self.update = 0
        self.healthy = [True] * len(stack)  # members whose divergence has not been reported
        self.masks: dict[str, Mask] = {}
        self.first: dict[str, Mask] = {}  # the masks before training, of pruners that replace weights
        self.reported: dict[str, Mask] = {}  # the masks of the newest report
        self.details: Sequence[Mapping[str, Any]] = ()  # what the newest report says of the masks, for checkpoints
        self.quantiles: Quantiles = {}  # of the saliencies that the masks were chosen by
        self.kept = 0  # the update of the newest checkpoint
        self.losses: list[dict[str, float]] = [{} for _ in stack.trials]  # since the last report, of updates before the checkpoint
        self.changed = False  # whether masks have changed since the last report

    def check_data(self, who: str, expected: str, trial: Trial | None = None) -> None:
        """Raise UserError where the dataset on this machine is not the one expected, by its hash or the beginning of one; empty: any."""
        if not self.table.hash.startswith(expected):
            about, here = f"{trial.name} ({trial.key}): " if trial else "", f"{self.table.hash[:HASH]} on {platform.node()}"
            raise UserError(
                f"{about}dataset {self.table.dataset!r} has the hash {here}, but {who} {expected[:HASH]}; "
                "put that data back, or train apart from what was trained on it"
            )

    def start(self) -> Iterator[Report]:
        """Prune, and begin at update 0 with the initial weights."""
        self.masks = prune(self.agent, self.stack, self.data.draw, self.quantiles)
        starting = starting_rows(self.agent, self.stack, self.masks)
        traits = traits_of(self.stack.lead.pruner)
        self.first = self.masks if traits.grows or traits.rescores else {}
        self.agent.latent = starting if traits.remembers else {}
        self.build(starting)
        yield from self.masked(self.diagnostics.before_training(starting, self.masks))
        yield from self.files.commit(self.state())

    def resume(self, saved: Saved) -> Iterator[Report]:
        """Continue from a checkpoint, up to which everything has been reported; only what has diverged is said again."""
        for trial, data in zip(self.stack.trials, saved.data, strict=True):
            self.check_data(f"the checkpoint after update {saved.update:,} was trained on", data, trial)
        saved = saved.to(self.agent.device)
        self.masks, self.update, self.details, self.kept = saved.masks, saved.update, saved.details, saved.update
        self.first, self.reported = saved.earlier.get("first", {}), saved.earlier.get("reported", saved.masks)
        self.recall(saved.unreported)
        if self.details and not self.changed:
            self.files.write_masks(self.masks, self.details)  # in case one of these files was lost or damaged
        self.build({name: saved.rows[f"online/{name}"] for name in self.agent.specs})
        self.agent.load_rows(saved.rows, saved.counts)
        return iter(self.diverged(self.agent.finite()))

    def build(self, rows: Mapping[str, Tensor]) -> None:
        """Make the networks on the masks, and what trains them."""
        self.agent.build(self.execution, rows, self.masks)
        self.updates = Updates(self.agent, self.data, leave=self.leave)

    def train_until(self, stop: int) -> None:
        """Make the updates before `stop`, with the changes of masks that are due, and report them. Ends early, with no report, where it
        is asked to leave."""
        first_update, started = self.update, time.monotonic()
        losses: dict[str, Tensor] = {}
        due = (at for at in (*self.changes, *self.stack.lead.n_steps()) if first_update <= at < stop)
        for first, last in pairwise(sorted({first_update, *due, stop})):
            if (steps := self.stack.lead.n_step_at(first)) != self.data.steps:
                self.data.look_ahead(steps)
                self.updates = Updates(self.agent, self.data, leave=self.leave)  # recordings are of the targets there were
            if first in self.changes:
                self.changed = True
                self.masks = change(
                    self.agent, self.stack, self.masks, self.changes[first], self.execution, first, self.data.draw, self.quantiles
                )
            # A change is made together with its update, so that a checkpoint tells which changes are still to come.
            losses |= self.updates.run(first, last, least=int(first in self.changes))
            if self.leave.asked:
                break
        self.losses = [before | now for before, now in zip(self.losses, per_member(losses, len(self.stack)), strict=True)]
        self.update = self.updates.reached
        if self.update < stop:
            return
        finite = self.agent.finite()  # waits for a GPU, which has only queued its work so far
        rate = len(self.stack) * (stop - first_update) / (time.monotonic() - started)
        self.reports.later(self.diverged(finite))
        if self.changed:
            self.reports.later(self.masked())
        about = self.losses
        if stop in self.stack.lead.evaluation_updates():
            about = [losses | more for losses, more in zip(about, self.diagnostics.in_training(self.masks), strict=True)]
        self.reports.later([Trained(stop, about, rate)])
        self.losses, self.changed = [{} for _ in self.stack.trials], False

    def leave_early(self) -> Iterator[Report]:
        """Take the reports up to here and commit the state as it is, unless a member has diverged, which no report has said yet; raises
        StoppedError. The trial then goes on as if it had never left."""
        yield from self.reports.ready(wait=True)
        self.leave.update, self.leave.kept = self.update, self.kept
        sound = all(ok or not healthy for ok, healthy in zip(self.agent.finite(), self.healthy, strict=True))
        if sound and self.kept < self.update:
            yield from self.files.commit(self.state())
            self.leave.kept = self.update
        raise StoppedError(f"asked to leave after update {self.update:,}")

    def unreported(self) -> list[dict[str, Any]]:
        """By member, what the next report needs of the updates that were made since the last one."""
        about: list[dict[str, Any]] = [{"losses": losses} if losses else {} for losses in self.losses]
        if self.changed:
            for member, one in enumerate(about):
                one["quantiles"] = {name: layers for (of, name), layers in self.quantiles.items() if of == member}
        return about

    def recall(self, unreported: Sequence[Mapping[str, Any]]) -> None:
        """Take up what `unreported` has put into a checkpoint."""
        self.losses = [dict(one.get("losses", {})) for one in unreported]
        self.changed = any("quantiles" in one for one in unreported)
        self.quantiles |= {(k, name): layers for k, one in enumerate(unreported) for name, layers in one.get("quantiles", {}).items()}

    def diverged(self, finite: list[bool]) -> list[Report]:
        """A report for each member whose parameters are not finite for the first time."""
        new = [member for member, healthy in enumerate(self.healthy) if healthy and not finite[member]]
        self.healthy = [healthy and ok for healthy, ok in zip(self.healthy, finite, strict=True)]
        return [Diverged(self.update, member, f"parameters are not finite after update {self.update}") for member in new]

    def masked(self, at_start: Sequence[Mapping[str, float]] = ()) -> Iterator[Report]:
        """Report the masks, which are new, with each member's statistics `at_start`, then write their files."""
        report = report_on(self.masks, self.agent, self.update, names_of(self.table), self.quantiles, self.execution)
        if self.first:
            for statistics, more in zip(report.statistics, moved(self.masks, self.reported or self.masks, self.first), strict=True):
                statistics |= more
        for statistics, others in zip(report.statistics, at_start, strict=False):
            statistics |= others
        self.details, self.reported = report.details, self.masks
        return self.taken(report, self.masks)

    def taken(self, report: Pruned, masks: dict[str, Mask]) -> Iterator[Report]:
        """Yield the report; once it was taken, write the masks."""
        yield report
        self.files.write_masks(masks, report.details)

    def evaluate(self) -> None:
        """Play the evaluations that are due, or begin to: their reports wait for the returns."""
        lead = self.stack.lead
        if self.update in lead.evaluation_updates():
            self.begin_evaluation(final=False)
        if self.update == lead.updates and lead.final_episodes:
            self.begin_evaluation(final=True)

    def begin_evaluation(self, final: bool) -> None:
        played = self.evaluation.begin(self.beside, self.masks, final)
        self.reports.later(self.evaluated(self.update, played, final), played)

    def evaluated(self, update: int, future: Future, final: bool) -> Iterator[Report]:
        """Report the episodes when they have been played."""
        played = future.result()
        played = {"returns": played["returns"], "scores": self.table.reference.normalize(played["returns"]), **played}
        yield Evaluated(update, [{name: values[k].tolist() for name, values in played.items()} for k in range(len(self.stack))], final)

    def save(self) -> None:
        """Commit the state as it is now, once the reports up to here were taken."""
        self.reports.later(self.files.commit(self.state()))
        self.kept = self.update

    def state(self) -> Saved:
        data = [self.table.hash] * len(self.stack)
        earlier = {"first": self.first, "reported": self.reported if self.changed else {}} if self.first else {}
        return state_of(self.agent, self.masks, self.update, self.details, data, self.unreported(), earlier)

    def write_policies(self, executed: str) -> None:
        """Write the policies, with what is needed to act as they did in evaluation."""
        about = {"environment": self.table.environment, "dataset_hash": self.table.hash, "execution": executed}
        own = not plugins.ships("algorithms", self.stack.lead.algorithm)  # what acts may be more than its actor's network
        self.files.write_policies(self.agent, self.evaluation.scaling, self.update, about, self.evaluation.probes() if own else ())


def usable(device: str) -> str:
    """`device`, if torch can put a tensor on it; raises UserError otherwise."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        devices = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
        raise UserError(f"no device {device!r} ({str(error).splitlines()[0].rstrip('.')}); there are: {', '.join(devices)}") from None
    return device


def stops(trial: Trial, checkpoint_every: int, after: int) -> list[int]:
    """The updates later than `after` at which something is reported or saved, ascending."""
    reports = range(0, trial.updates, max(1, min(1000, trial.updates // 50)))
    saves = range(0, trial.updates, checkpoint_every)
    return sorted(stop for stop in {*reports, *saves, *trial.evaluation_updates(), trial.updates} if stop > after)


def per_member(logged: dict[str, Tensor], members: int) -> list[dict[str, float]]:
    """Losses [K] by name -> one dictionary per member; the only copy from the device between two reports."""
    values = {f"train/{name}": loss.detach().tolist() for name, loss in logged.items()}
    return [{name: losses[k] for name, losses in values.items()} for k in range(members)]
