"""What a sweep file declares, and what becomes of it: the trials of a grid, or the spaces of an adaptive search."""

from search_spaces.sweep.files import load_sweep, sweep_names
from search_spaces.sweep.grid import expand
from search_spaces.sweep.ranges import LogRange, Range, Search
from search_spaces.sweep.settings import override
from search_spaces.sweep.sweep import Sweep

__all__ = ["LogRange", "Range", "Search", "Sweep", "expand", "load_sweep", "override", "sweep_names"]
