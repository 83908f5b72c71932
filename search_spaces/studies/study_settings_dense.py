"""The dense networks beside study_settings.py (docs/decisions/023-which-settings.md). Half a day on a laptop's CPU."""

from dataclasses import replace

from search_spaces.studies.study_settings import SWEEP as PRUNED

SWEEP = replace(PRUNED, pruners=("dense",), sparsities=(0.0,), calibration_batches=1, updates=100_000)
