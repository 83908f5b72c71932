"""The dense networks beside study_full.py, for a quarter of its updates. Hours on a laptop's CPU."""

from dataclasses import replace

from search_spaces.studies.study_full import SWEEP as PRUNED

SWEEP = replace(PRUNED, pruners=("dense",), sparsities=(0.0,), updates=250_000)
