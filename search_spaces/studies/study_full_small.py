"""A control beside study_full.py's masks: narrower dense networks with as many weights as they keep. Hours on a laptop's CPU."""

from dataclasses import replace

from search_spaces.studies.study_full import SWEEP as PRUNED

SWEEP = replace(PRUNED, pruners=("small_dense",))
