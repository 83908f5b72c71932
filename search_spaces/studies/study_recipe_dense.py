"""The dense networks beside study_recipe.py: does layer normalization help them, too? An hour on a laptop's CPU."""

from dataclasses import replace

from search_spaces.studies.study_recipe import SWEEP as PRUNED

SWEEP = replace(
    PRUNED, algorithms=("bc",), pruners=("dense",), sparsities=(0.0,), network="layer_norm", rescale="none", hyper={"learning_rates": 3e-4}
)
