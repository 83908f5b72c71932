"""A control beside study_full.py's masks: SNIP's, each permuted within its layers, so only how many weights a layer keeps is SNIP's choice.

Hours on a laptop's CPU.
"""

from dataclasses import replace

from search_spaces.studies.study_full import SWEEP as PRUNED

SWEEP = replace(PRUNED, pruners=("snip",), control="shuffle")
