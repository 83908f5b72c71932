"""The time that pruning saves, spent on training: five times the updates of search_spaces/studies/study.py at 95 %, for less than
the time that dense takes there. Without IQL, which `--set algorithms=iql` trains."""

from dataclasses import replace

from search_spaces.studies.study import SWEEP as STUDY

SWEEP = replace(STUDY, algorithms=("bc", "td3_bc"), pruners=("snip",), sparsities=(0.95,), updates=250_000)
