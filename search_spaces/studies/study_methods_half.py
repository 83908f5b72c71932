"""2:4 beside the methods of study_methods.py: of every four weights into a unit, the two with the highest SNIP scores are kept."""

from dataclasses import replace

from search_spaces.studies.study_methods import SWEEP as METHODS

SWEEP = replace(METHODS, pruners=("snip",), sparsities=(0.5,), structure="2:4")
