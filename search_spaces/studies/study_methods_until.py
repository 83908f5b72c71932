"""`sparse_reg` for study_methods.py's budget: masks are scored again for the first fifth of the updates, as its authors' are (200,000 of a
million), and not to the end."""

from dataclasses import replace

from search_spaces.studies.study_methods import SWEEP as METHODS

SWEEP = replace(METHODS, pruners=("sparse_reg",), pruning={"until": METHODS.updates // 5})
