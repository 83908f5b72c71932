"""What a sweep file declares, and what becomes of it: trials, or the spaces of a search."""

from search_spaces.sweep.ranges import LogRange, Range, Search
from search_spaces.sweep.sweep import Sweep, expand, load_sweep, override, sweep_names

__all__ = ["LogRange", "Range", "Search", "Sweep", "expand", "load_sweep", "override", "sweep_names"]
