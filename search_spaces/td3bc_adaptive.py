"""How sparse may TD3+BC get before its score falls, when sparsity, criterion and alpha may move together? Hours on two cores."""

from search_spaces.sweep import LogRange, Range, Search, Sweep

SWEEP = Sweep(
    datasets=("winnow/halfcheetah/medium-v0",),
    algorithms=("td3_bc",),
    pruners=("snip", "random_erk", "magnitude"),
    sparsities=Range(0.5, 0.99),
    seeds=(0, 1),
    updates=100_000,
    evaluations=5,
    hyper={"alpha": LogRange(0.5, 10)},
    search=Search(suggestions=24, objective="pareto"),
)
