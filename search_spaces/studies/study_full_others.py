"""Other ways to choose 95 % of the weights beside study_full.py: by gradient flow, while training, again and again. Days on a laptop's CPU."""

from dataclasses import replace

from search_spaces.studies.study_full import SWEEP as PRUNED

SWEEP = replace(PRUNED, pruners=("grasp", "rigl", "sparse_reg"))
