"""A dataset in words: returns, lengths, ends, actions, observations, rewards, what will be played, and what a trainer would trip over."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from trainables.datasets.table import Table

Array = npt.NDArray[Any]

BINS, BAR = 10, 40  # of the histogram of rewards: its rows, and the width of its longest bar
AT_BOUND = 1e-3  # an action in [-1, 1] so close to a bound counts as at it
MANY_AT_BOUND = 0.2  # share of actions from which it is worth a line
NARROW = 0.05  # standard deviation of an action in [-1, 1] below which a dimension hardly varies
LARGE = 100.0  # rewards beyond it make values that float32 and a learning rate of 3e-4 handle badly
SHOWN = 8  # dimensions that a line names


class Columns:
    """The parts of a table by name: observations [N, O], actions [N, A] and in [-1, 1], rewards [N], terminals [N], episodes' last rows."""

    def __init__(self, table: Table) -> None:
        size, end = table.observation_size, table.observation_size + table.action_size
        rows = np.asarray(table.rows)
        self.observations, self.actions, self.rewards = rows[:, :size], rows[:, size:end], rows[:, end]
        self.terminals = rows[:, -1] > 0
        self.scaled = 2 * (self.actions - table.action_low) / (table.action_high - table.action_low) - 1
        self.last = np.cumsum(table.episode_lengths) - 1


def lines(table: Table, names: list[str]) -> Iterator[str]:
    """The description line by line; `names` are those of the observation's and the action's dimensions."""
    columns, returns, lengths = Columns(table), table.episode_returns, table.episode_lengths
    yield f"{table.dataset}: {len(table):,} transitions in {len(lengths):,} episodes, hash {table.hash[:12]}"
    yield f"  played        {table.environment}, at most {table.horizon:,} time steps"
    if table.reference.known:
        yield f"  scores        0 is a return of {table.reference.random:g}, 100 of {table.reference.expert:g}: {table.reference.source}"
    else:
        yield "  scores        no reference returns: scores are plain returns"
    score = f" (normalized {float(table.reference.normalize(returns.mean())):.1f})" if table.reference.known else ""
    yield f"  returns       {_quantiles(returns)}, mean {returns.mean():.4g}{score}"
    yield f"  lengths       {_quantiles(lengths)}, mean {lengths.mean():.4g}"
    ended = int(columns.terminals[columns.last].sum())
    full = int((~columns.terminals[columns.last] & (lengths >= table.horizon)).sum())
    yield f"  ends          {ended:,} terminal, {full:,} at the time limit, {len(lengths) - ended - full:,} cut off before it"
    yield f"  actions       {table.action_size} in the box below; share of values at a bound {_at_bounds(columns):.1%}"
    yield from _dimensions(columns.actions, names[table.observation_size :], table.action_low, table.action_high)
    yield f"  observations  {table.observation_size}"
    yield from _dimensions(columns.observations, names[: table.observation_size])
    yield "  rewards"
    counts, edges = np.histogram(columns.rewards.astype(np.float64), BINS)
    for count, low, high in zip(counts, edges, edges[1:], strict=False):
        bar = "#" * int(np.ceil(BAR * count / counts.max()))
        yield f"    {low:>10.4g} to {high:<10.4g} {count:>11,}  {bar}".rstrip()
    found = list(trips(table, names))
    yield "  a trainer would trip over" + ("" if found else ": nothing that is seen here")
    yield from (f"    {each}" for each in found)


def numbers(table: Table, names: list[str]) -> dict[str, Any]:
    """The description for programs."""
    columns, returns, lengths = Columns(table), table.episode_returns, table.episode_lengths
    terminal = int(columns.terminals[columns.last].sum())
    full = int((~columns.terminals[columns.last] & (lengths >= table.horizon)).sum())
    return {
        "time_limit": table.horizon,
        "returns": _summary(returns),
        "lengths": _summary(lengths),
        "ends": {"terminal": terminal, "time_limit": full, "cut_off": len(lengths) - terminal - full},
        "actions": _by_name(columns.actions, names[table.observation_size :]),
        "actions_at_a_bound": _at_bounds(columns),
        "observations": _by_name(columns.observations, names[: table.observation_size]),
        "rewards": _summary(columns.rewards),
        "trips": list(trips(table, names)),
    }


def _summary(values: Array) -> dict[str, float]:
    quantiles = np.quantile(values.astype(np.float64), [0, 0.25, 0.5, 0.75, 1])
    names = ("least", "first_quartile", "median", "third_quartile", "most")
    return dict(zip(names, quantiles.tolist(), strict=True)) | {"mean": float(values.mean(dtype=np.float64))}


def _by_name(values: Array, names: list[str]) -> dict[str, dict[str, float]]:
    """Each dimension's range, mean and deviation."""
    columns = values.astype(np.float64).T
    return {
        name: {"least": float(each.min()), "most": float(each.max()), "mean": float(each.mean()), "deviation": float(each.std())}
        for name, each in zip(names, columns, strict=True)
    }


def trips(table: Table, names: list[str]) -> Iterator[str]:
    """What a trainer would trip over, a line each."""
    columns = Columns(table)
    if table.note:
        yield table.note
    yield from _ends(table, columns)
    yield from _actions(table, columns, names)
    constant = [name for name, spread in zip(names, np.ptp(columns.observations, axis=0), strict=False) if spread == 0]
    if constant:
        yield f"{len(constant)} of {table.observation_size} observations are constant: {_some(constant)}"
    if np.ptp(columns.rewards) == 0:
        yield f"every reward is {float(columns.rewards[0]):g}: the data do not say what is better"
    elif (largest := float(np.abs(columns.rewards).max())) > LARGE:
        yield f"rewards of up to {largest:.4g} in size: reward_scale makes them smaller"
    distinct = len(np.unique(np.ascontiguousarray(table.rows).view(np.dtype((np.void, table.rows.itemsize * table.rows.shape[1])))))
    if distinct < len(table):
        yield f"{len(table) - distinct:,} of {len(table):,} transitions are copies of others"


def _ends(table: Table, columns: Columns) -> Iterator[str]:
    lengths = table.episode_lengths
    short = int((~columns.terminals[columns.last] & (lengths < table.horizon)).sum())
    if short:
        yield (
            f"{short:,} of {len(lengths):,} episodes stop before the time limit of {table.horizon:,} without a terminal: their ends may be "
            f"missing, and values continue there (timeouts=terminal ends them)"
        )
    if len(lengths) == int((lengths == 1).sum()) and not columns.terminals.any():
        yield "every episode has one step and no terminal: algorithms that need next actions cannot train"
    inside = int(columns.terminals.sum() - columns.terminals[columns.last].sum())
    if inside:
        yield f"{inside:,} transitions are terminal in the middle of an episode"
    if len(lengths) < 10:
        yield f"only {len(lengths)} episodes"


def _actions(table: Table, columns: Columns, names: list[str]) -> Iterator[str]:
    share = _at_bounds(columns)
    if share > MANY_AT_BOUND:
        yield f"{share:.0%} of action values are at a bound: likelihoods of a squashed Gaussian are extreme there"
    own = names[table.observation_size :]
    narrow = [name for name, spread in zip(own, columns.scaled.std(axis=0), strict=True) if spread < NARROW]
    if narrow:
        yield f"{len(narrow)} of {table.action_size} actions hardly vary (deviation below {NARROW:g} of half the box): {_some(narrow)}"


def _at_bounds(columns: Columns) -> float:
    return float((np.abs(columns.scaled) >= 1 - AT_BOUND).mean())


def _dimensions(values: Array, names: list[str], low: Array | None = None, high: Array | None = None) -> Iterator[str]:
    """A line per dimension: its range, mean and deviation, and the box where there is one."""
    width = max(map(len, names))
    for index, name in enumerate(names):
        column = values[:, index].astype(np.float64)
        box = "" if low is None or high is None else f"  box {low[index]:g} to {high[index]:g}"
        same = "  constant" if np.ptp(column) == 0 else ""
        spread = f"{column.min():>10.4g} to {column.max():<10.4g} mean {column.mean():>10.4g} +- {column.std():<9.4g}"
        yield f"    {name:<{width}} {spread}{box}{same}".rstrip()


def _quantiles(values: Array) -> str:
    low, first, middle, third, high = np.quantile(values.astype(np.float64), [0, 0.25, 0.5, 0.75, 1])
    return f"{low:.4g} to {high:.4g}, quartiles {first:.4g}, {middle:.4g}, {third:.4g}"


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
