"""What the cells of many tasks say together: the paper's claim counted, means over tasks, and what short budgets cannot show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from service.results import statistics
from service.results.cells import DENSE, Cell, Place, Task, places_of, suites_of
from service.results.outcomes import MEASURES
from service.results.statistics import Estimate
from service.spool.scores import SCORE
from service.terminal import labels
from service.terminal.labels import method_name, rank

CLAIM = 0.97  # of the dense score, at 95 % sparsity
CLAIMED_AT = 0.95
PAPER_BUDGET = 1_000_000  # updates
MARGIN = 5.0  # points of normalized score, within which two ways to choose weights count as equal
CHANCE = ("random_erk", "random_uniform")  # masks that know nothing of the data


@dataclass(frozen=True)
class Aggregate:
    """A method at a sparsity over the tasks of its comparison: those where each method at that sparsity, and dense, has every seed.

    `suite` names the budget where there are several: tasks of different budgets are not averaged. `at` is the comparison's sparsity, also
    for dense. Without a whole task of its own a method takes no part: no numbers, all left out.
    """

    suite: str
    at: float
    method: str
    sparsity: float
    tasks: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]  # task, and what became of its seeds: empty where only others lack some
    mean: Estimate | None = None
    iqm: Estimate | None = None
    improvement: Estimate | None = None

    @property
    def name(self) -> str:
        name = f"dense, for {100 * self.at:g} %" if self.method == labels.DENSE else method_name(self.method, self.sparsity)
        return ", ".join(filter(None, [name, self.suite]))


def aggregates(tasks: Sequence[Task]) -> list[Aggregate]:
    """Over the tasks of a suite, with seeds drawn within tasks; only normalized scores. The rows of one sparsity are about the same
    tasks."""
    return _aggregates(tuple(tasks))


@lru_cache(maxsize=1)  # a report shows them as text, as a figure and on its page
def _aggregates(tasks: tuple[Task, ...]) -> list[Aggregate]:
    found = []
    for suite, own in suites_of([task for task in tasks if task.measure == MEASURES[SCORE]]):
        levels = sorted({sparsity for task in own for method, sparsity in task.cells if method != labels.DENSE}) or [0.0]
        found += [row for level in levels for row in _comparison(suite, own, level)]
    return found


def _comparison(suite: str, tasks: Sequence[Task], level: float) -> list[Aggregate]:
    """Dense, and all methods at one sparsity, over the tasks where every one of them that has a whole task is whole."""
    places = [place for place in places_of(tasks) if place == DENSE or place[1] == level]
    taking_part = [place for place in places if any(_seeded(task, place) for task in tasks)]
    common = [task for task in tasks if taking_part and all(_seeded(task, place) for place in taking_part)]
    return [_aggregate(suite, level, place, common if place in taking_part else [], tasks) for place in places]


def _aggregate(suite: str, level: float, place: Place, used: Sequence[Task], tasks: Sequence[Task]) -> Aggregate:
    left_out = tuple((task.name, _why(task, place)) for task in tasks if task not in used)
    if not used:
        return Aggregate(suite, level, *place, (), left_out)
    scores = [task.cells[place].scores() for task in used]
    dense = [task.dense.scores() for task in used if task.dense and task.dense.done]
    better = statistics.improvement(scores, dense) if len(dense) == len(used) and place != DENSE else None
    means = statistics.mean_over(scores), statistics.iqm_over(scores)
    return Aggregate(suite, level, *place, tuple(task.name for task in used), left_out, *means, better)


def _seeded(task: Task, place: Place) -> bool:
    """Whether a cell is there with every seed."""
    return place in task.cells and not task.cells[place].absent


def _why(task: Task, place: Place) -> str:
    if place not in task.cells:
        return "not in the sweep"
    return task.cells[place].absence


def claim(tasks: Sequence[Task]) -> list[str]:
    """The paper's claim counted, budget by budget: a line for all cells at a sparsity, then one for each method where there are several.

    Only cells where every planned seed has a dense score beside it are judged. One whose seeds diverged has not kept its score; one that
    is not finished, lacks dense seeds or has no dense score above 0 is not counted. Controls claim nothing. The same once more at equal
    time, where times are known.
    """
    lines, in_time = [], []
    for suite, own in suites_of(tasks):
        cells = [cell for task in own for cell in task.cells.values() if cell.method != labels.DENSE and cell.sparsity == CLAIMED_AT]
        cells = [cell for cell in cells if not cell.control]
        methods = sorted({cell.method for cell in cells}, key=rank)
        parts = [(suite, cells)] if cells else []
        parts += [(f"  {method_name(m)}", [cell for cell in cells if cell.method == m]) for m in methods if len(methods) > 1]
        lines += [_count(name, counted, CLAIMED_AT) for name, counted in parts]
        if any(cell.whole and cell.retained_in_time for cell in cells):
            in_time += [_count(name, counted, CLAIMED_AT, in_time=True) for name, counted in parts]
    return [*lines, *in_time] or [f"at {100 * CLAIMED_AT:g} %: no cell"]


@dataclass(frozen=True)
class Count:
    """How many cells retain CLAIM of the dense score: `kept` of `judged` do by their mean. By their whole interval `sure` do, `lost` do not
    and `undecided` may or may not. Of the judged, `diverged` have no score; `rest` are not judged."""

    kept: int
    judged: int
    sure: int
    lost: int
    undecided: int
    diverged: int
    rest: int


def count(cells: Sequence[Cell], in_time: bool = False) -> Count:
    """After as many updates as dense, or `in_time`: after as much time on a core."""
    diverged = sum(not cell.unpaired and any("divergence" in what for what in cell.absent) for cell in cells)
    shares = [(cell, cell.retained_in_time if in_time else cell.retained) for cell in cells if cell.whole]
    found = [(share, len(cell.done) > 1) for cell, share in shares if share]
    kept = sum(share.value >= CLAIM for share, _ in found)
    sure = sum(share.low >= CLAIM for share, several in found if several)
    lost = sum(share.high < CLAIM for share, several in found if several)
    judged = len(found) + diverged
    return Count(kept, judged, sure, lost, len(found) - sure - lost, diverged, len(cells) - judged)


def _count(name: str, cells: Sequence[Cell], sparsity: float, in_time: bool = False) -> str:
    found = count(cells, in_time)
    where, when = f"{name}, " if name else "", ", at equal time on a core" if in_time else ""
    text = f"{where}at {100 * sparsity:g} %{when}: {found.kept} of {found.judged} cells retain >= {100 * CLAIM:g} % of dense"
    notes = []
    if found.judged > found.diverged:
        notes = [f"by their whole interval {found.sure} do, {found.lost} do not, {found.undecided} are undecided"]
    notes += [f"{found.diverged} diverged"] if found.diverged else []
    why = "dense not trained as long, " if in_time else ""
    notes += [f"{found.rest} more not judged: {why}seeds missing, dense seeds missing, or dense not above 0"] if found.rest else []
    return f"{text} ({'; '.join(notes)})" if notes else text


def choice(tasks: Sequence[Task]) -> list[str]:
    """Whether it matters which weights are kept: a line for each pruner beside masks made by chance, over the tasks where both have every
    seed. Only normalized scores."""
    lines = []
    for suite, own in suites_of([task for task in tasks if task.measure == MEASURES[SCORE]]):
        methods = {
            cell.method: cell for task in own for cell in task.cells.values() if cell.sparsity == CLAIMED_AT and cell.method != labels.DENSE
        }
        chance = next((method for method in CHANCE if method in methods), None)
        others = sorted((m for m, cell in methods.items() if m not in CHANCE and not cell.control), key=rank) if chance else []
        lines += [beside(suite, own, (method, CLAIMED_AT), (str(chance), CLAIMED_AT)) for method in others]
    return [line for line in lines if line]


def beside(suite: str, tasks: Sequence[Task], place: Place, reference: Place) -> str:
    """A line on the difference of two networks over the tasks where both have every seed; empty where there is none."""
    common = [task for task in tasks if _seeded(task, place) and _seeded(task, reference)]
    if not common:
        return ""
    scores, other = ([task.cells[each].scores() for task in common] for each in (place, reference))
    found, margins = statistics.difference(scores, other), statistics.difference(scores, other, 0.9)
    where = f"{suite}, " if suite else ""
    text = f"{where}{method_name(*place)} against {method_name(*reference)}, over {len(common)} task{'s' if len(common) > 1 else ''}"
    text += f": {found.value:+.1f} points of normalized score"
    if found.note:
        return f"{text} ({found.note})"
    within = margins.low >= -MARGIN and margins.high <= MARGIN
    apart = found.low > 0 or found.high < 0
    undecided = f"neither a difference nor equality within {MARGIN:g} points is shown"
    said = f"equal within {MARGIN:g} points" if within else "different" if apart else undecided
    limits = f"95 % interval {found.low:+.1f} to {found.high:+.1f}, 90 % interval {margins.low:+.1f} to {margins.high:+.1f}"
    return f"{text} ({limits}): {said}"


def budget_note(tasks: Sequence[Task]) -> list[str]:
    """A line on what short budgets show: how fast a pruned network learns, not where it ends. None where no budget is short."""
    short = sorted({task.trial.updates for task in tasks if task.trial.updates < PAPER_BUDGET})
    if not short:
        return []
    return [
        f"budget: {' and '.join(f'{updates:,}' for updates in short)} updates; the paper's claim (95 % removed, return kept) is about "
        f"{PAPER_BUDGET:,} (search_spaces/mujoco_sparsity.py). Pruned networks learn more slowly: read these scores as how far each got, "
        "not as what pruning costs in the end."
    ]
