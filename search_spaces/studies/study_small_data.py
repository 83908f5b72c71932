"""Does sparsity help where data is scarce, as Sparse-Reg (Arnob et al. 2025) reports? The authors' settings; a day on a laptop's CPU."""

from search_spaces.sweep import Sweep

SWEEP = Sweep(
    datasets=("winnow/walker2d/expert-v1", "winnow/halfcheetah/expert-v1"),
    algorithms=("iql", "td3_bc"),
    pruners=("dense", "snip", "sparse_reg", "small_dense"),
    sparsities=(0.95,),
    seeds=(0, 1, 2),
    updates=250_000,
    evaluations=20,
    episodes=10,
    final_episodes=50,
    transitions=(10_000, 50_000),
    protocol="authors",
)
