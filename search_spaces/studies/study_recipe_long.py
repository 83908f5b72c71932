"""Layer normalization at the full study's budget, on the dataset where pruned networks lose most. An hour on a laptop's CPU."""

from dataclasses import replace

from search_spaces.studies.study_full import SWEEP as FULL
from search_spaces.studies.study_recipe import SWEEP as RECIPE

SWEEP = replace(FULL, datasets=RECIPE.datasets, algorithms=("bc",), network="layer_norm", hyper=RECIPE.hyper)
