"""Names as papers write them, and the order in which methods are listed: for tables, figures and pages that people read.

Commands, and files that programs read, keep the identifiers.
"""

from __future__ import annotations

from trainables import plugins

DENSE = "dense"
# Dense, saliency methods by family, masks that change during training, random masks, the small network; other plug-ins follow by name.
ORDER = (
    DENSE, "snip", "iterative_snip", "force", "grasp", "synflow", "prospr", "ntk_sap", "phew", "magnitude", "gmp", "imp", "sparse_reg",
    "rigl", "rlx2", "set", "random_erk", "random_uniform", "small_dense",
)  # fmt: skip
VARIANTS = {
    "shuffle": "shuffled", "reinit": "reinitialized", "joint": "joint ranking", "layer": "ranking by layer",
    "effective": "effective sparsity", "units": "whole units", "fan_in": "constant fan-in", "authors": "leaky critic gradient",
}  # fmt: skip


def pruner_of(method: str) -> str:
    """The pruner's identifier in a method such as `snip,critic@90+shuffle`."""
    return method.split("+")[0].split(",")[0]


def variant_of(method: str) -> str:
    """What a method changes about its pruner: `,critic@90+shuffle`; empty for the plain one."""
    return method.removeprefix(pruner_of(method))


def rank(method: str) -> tuple[int, str, str]:
    """A sorting key: the fixed order of methods, the same whichever of them are there."""
    pruner = pruner_of(method)
    return (ORDER.index(pruner) if pruner in ORDER else len(ORDER), pruner, variant_of(method))


def method_name(method: str, sparsity: float | None = None) -> str:
    """`SNIP`, `SNIP 95 %, critic 90 %, shuffled`; a dense network is `dense` at any sparsity."""
    if method == DENSE:
        return DENSE
    pruned, *options = method.split("+")
    pruner, *networks = pruned.split(",")
    level = "" if sparsity is None else f" {100 * sparsity:g} %"
    own = [f"{network} {percent} %" for network, percent in (each.split("@") for each in networks)]
    return ", ".join([f"{plugins.title('pruners', pruner)}{level}", *own, *map(_option, options)])


def algorithm_name(algorithm: str) -> str:
    """`TD3+BC`."""
    return plugins.title("algorithms", algorithm)


def dataset_name(dataset: str) -> str:
    """`halfcheetah-medium` for `winnow/halfcheetah/medium-v0`."""
    return "-".join(dataset.rsplit("-v", 1)[0].split("/")[-2:])


def _option(option: str) -> str:
    return VARIANTS.get(option) or option.replace("=", " ").replace("_", " ")
