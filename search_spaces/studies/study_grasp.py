"""GraSP beside the masks of search_spaces/studies/study.py, at the sparsity of the paper's claim."""

from dataclasses import replace

from search_spaces.studies.study import SWEEP as STUDY

SWEEP = replace(STUDY, pruners=("grasp",), sparsities=(0.95,))
