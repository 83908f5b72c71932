"""A dataset as one picture: histograms of returns, lengths and rewards, actions in their box, and the spread of observations."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from trainables.datasets.about.describe import Columns
from trainables.datasets.table import Table
from trainables.errors import UserError, one_line

COLOUR = "#4269d0"
KINDS = (".png", ".svg", ".pdf")


def draw(table: Table, path: Path) -> None:
    """Write the picture, as its ending says; raises UserError for another ending, and where it cannot be written."""
    if path.suffix not in KINDS:
        raise UserError(f"--picture {str(path)!r} does not end in one of: {', '.join(KINDS)}")
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    columns = Columns(table)
    figure = Figure(figsize=(11, 6.4), layout="constrained")
    panels = figure.subplots(2, 3).flat
    figure.suptitle(f"{table.dataset}: {len(table):,} transitions, {len(table.episode_lengths):,} episodes", fontsize=11)
    for values, title in ((table.episode_returns, "return of an episode"), (table.episode_lengths, "time steps of an episode")):
        panel = next(panels)
        panel.hist(values.astype(np.float64), bins=30, color=COLOUR)
        panel.set(title=title, ylabel="episodes")
    panel = next(panels)
    panel.hist(columns.rewards.astype(np.float64), bins=50, color=COLOUR)
    panel.set(title="reward (log scale)", ylabel="transitions", yscale="log")
    panel = next(panels)
    panel.violinplot(_thinned(columns.scaled), positions=range(table.action_size), showextrema=True)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.axhline(-1, color="0.6", linewidth=0.8)
    panel.axhline(1, color="0.6", linewidth=0.8)
    panel.set(title="actions, the box scaled to [-1, 1]", xlabel="dimension")
    panel = next(panels)
    lows, middles, highs = np.quantile(_thinned(columns.observations), [0.01, 0.5, 0.99], axis=0)
    at = np.arange(table.observation_size)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.vlines(at, lows, highs, color=COLOUR)
    panel.plot(at, middles, ".", color="0.2", markersize=4)
    panel.set(title="observations, 1 % to 99 % and median", xlabel="dimension")
    panel = next(panels)
    order = np.argsort(table.episode_returns, kind="stable")
    share = np.linspace(0, 1, len(order))
    panel.plot(table.episode_returns[order], share, color=COLOUR)
    panel.set(title="share of episodes up to a return", xlabel="return", ylim=(0, 1))
    try:
        figure.savefig(path, dpi=110)
    except OSError as error:
        raise UserError(f"the picture cannot be written to {str(path)!r}: {one_line(error)}") from None


def _thinned(values: np.ndarray, most: int = 20_000) -> np.ndarray:
    return values[:: max(1, len(values) // most)].astype(np.float64)
