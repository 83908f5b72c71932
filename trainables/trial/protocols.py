"""The settings of other code bases, for comparison with what was published with them.

`--protocol authors` of a trial or `protocol="authors"` of a sweep puts a protocol's settings in place of the defaults, where they are part
of the trial's key and appear among its parameters. What the trial or the sweep sets itself takes precedence. Each setting can also be given
alone.

    authors   SaminYeasar/sparse_reg, the code of Arnob et al. 2025 (main.py, algos.py), read in 2026. A learning rate of 1e-3 for all
              networks; Xavier-normal weights, a Gaussian policy with a linear mean and a cosine schedule for BC, IQL and AWAC; cut-off
              episodes have ended; the critic of TD3+BC is scored together with the actor's leftover gradient. Not included, because they
              are axes of their own: the number of transitions (100,000 there by default) and the pruner (sparse_reg there, or snip).
"""

from __future__ import annotations

from typing import Any

from trainables import plugins
from trainables.errors import UserError, unknown

_GAUSSIAN = {"initialization": "xavier", "timeouts": "terminal"}
PROTOCOLS: dict[str, dict[str, dict[str, Any]]] = {
    "authors": {
        "bc": _GAUSSIAN | {"hyper": {"learning_rate": 1e-3, "gaussian": True}},
        "iql": _GAUSSIAN | {"hyper": {"actor_learning_rate": 1e-3, "critic_learning_rate": 1e-3, "squash": False, "log_std_min": -5.0}},
        "awac": _GAUSSIAN | {"hyper": {"learning_rate": 1e-3, "hidden": (256, 256), "cosine": True, "log_std_min": -5.0}},
        "td3_bc": {"timeouts": "terminal", "authors": True, "hyper": {"learning_rate": 1e-3}},
    },
}


SET = sorted({name for algorithms in PROTOCOLS.values() for fields in algorithms.values() for name in fields if name != "hyper"})


def check_protocol(name: str) -> str:
    """Return `name` if there is such a protocol; raise UserError, listing those there are, otherwise."""
    if name not in PROTOCOLS:
        raise unknown("protocol", name, PROTOCOLS)
    return name


def protocol(name: str, algorithm: str) -> dict[str, Any]:
    """The fields of a trial that a protocol sets for an algorithm, `hyper` among them; none without a name.

    Raises UserError, listing the algorithms that the protocol has, for any other."""
    plugins.check("algorithms", algorithm)
    if not name:
        return {"hyper": {}}
    algorithms = PROTOCOLS[check_protocol(name)]
    if algorithm not in algorithms:
        raise UserError(f"protocol {name!r} has no {algorithm}; it has: {', '.join(algorithms)}")
    return dict(algorithms[algorithm])
