"""Other masks beside those of study_full.py: by gradient flow, moved during training, scored again and again. Days on a laptop's CPU."""

from dataclasses import replace

from search_spaces.studies.study_full import SWEEP as PRUNED

SWEEP = replace(PRUNED, pruners=("grasp", "rigl", "sparse_reg"))
