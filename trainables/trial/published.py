"""Published hyperparameters that depend on the dataset: one table, used only on request, and visibly.

`--published` of a trial or `published=1` of a sweep copies a dataset's entries into the trial's `hyper`, where they are part of its key,
appear among the run's parameters and can be overridden. Without it, every algorithm uses its defaults on every dataset. The entries are
for D4RL's -v2 tasks; a dataset of another origin uses those of its environment and tier, which were never tuned for it.

    ReBRAC   (actor_penalty, critic_penalty): Tarasov et al. 2023 (arXiv 2305.09836), appendix; tinkoff-ai/ReBRAC
    EDAC     (critics, eta): An et al. 2021 (arXiv 2110.01548), appendix
    SAC-N    critics: tinkoff-ai/CORL, configs/sac_n, for its three tiers
    XQL      (temperature, max_clip, batch_size): Div99/XQL, offline/reproduce/mujoco, for its three tiers. Not included: noise and random
             actions in the value's data, which it has for halfcheetah/medium and hopper/medium-expert
    SPOT     support_weight: thuml/SPOT, configs/offline, for its three tiers
    IQL      (expectile, beta) on AntMaze: ikostrikov/implicit_q_learning, configs/antmaze_config.py; on all others its defaults
    bc, td3_bc, cql, awac and bcq have one setting for all MuJoCo tasks (their papers; CORL): their defaults
    cal_ql   has none in its paper for MuJoCo: its code's defaults
    fql      has an alpha for each task in its paper (arXiv 2502.02538), none of them MuJoCo's: its default, untuned

One number is not left to `published`, because without it the task is another one: IQL learns AntMaze from rewards minus 1, so -1 in each
time step before the goal (Kostrikov et al. 2021, arXiv 2110.06169, 5.2). `reward_shift` gives it, for the sparse mazes of D4RL by the names
of their datasets, as the authors' code does it by the name of the environment, and for XQL and SPOT, whose codes do the same; a sweep and a
trial take it unless they set their own.

The number of updates is not part of it: a trial's default is 1,000,000, as in the papers or CORL for BC, TD3+BC, IQL, CQL, AWAC and
ReBRAC. To reproduce BCQ give `--updates 500000` (sfujim/BCQ), and for EDAC and SAC-N `--updates 3000000` (the paper).
"""

from __future__ import annotations

import re
from typing import Any

from trainables import plugins
from trainables.errors import UserError

_TIERS = ("random", "medium", "medium-replay", "medium-expert", "expert")
_Table = dict[str, tuple[tuple[float, ...], ...]]  # family -> an entry for each tier
_PENALTIES: _Table = {
    "halfcheetah": ((0.001, 0.1), (0.001, 0.01), (0.01, 0.001), (0.01, 0.1), (0.01, 0.01)),
    "hopper": ((0.001, 0.01), (0.01, 0.01), (0.05, 0.5), (0.1, 0.01), (0.1, 0.1)),
    "walker2d": ((0.01, 0.0), (0.05, 0.1), (0.05, 0.01), (0.01, 0.01), (0.01, 0.5)),
}
_CRITICS: _Table = {
    "halfcheetah": ((10, 0.0), (10, 1.0), (10, 1.0), (10, 5.0), (10, 1.0)),
    "hopper": ((50, 0.0), (50, 1.0), (50, 1.0), (50, 1.0), (50, 1.0)),
    "walker2d": ((10, 1.0), (10, 1.0), (10, 1.0), (10, 5.0), (10, 5.0)),
}
# () where there is none.
_MANY_CRITICS: _Table = {
    "halfcheetah": ((), (10,), (10,), (10,), ()),
    "hopper": ((), (500,), (200,), (200,), ()),
    "walker2d": ((), (20,), (20,), (20,), ()),
}
_EXTREME: _Table = {
    "halfcheetah": ((), (1.0, 7.0, 1024), (1.0, 5.0, 256), (1.0, 5.0, 1024), ()),
    "hopper": ((), (5.0, 7.0, 1024), (2.0, 7.0, 256), (2.0, 7.0, 1024), ()),
    "walker2d": ((), (10.0, 7.0, 1024), (5.0, 5.0, 1024), (2.0, 5.0, 256), ()),
}
_SUPPORT: _Table = {
    "halfcheetah": ((), (0.05,), (0.05,), (1.0,), ()),
    "hopper": ((), (0.1,), (0.1,), (0.2,), ()),
    "walker2d": ((), (0.2,), (0.2,), (0.5,), ()),
}
REWARD_SHIFTS = {"iql": -1.0, "xql": -1.0, "spot": -1.0}  # the last two by their codes, Div99/XQL and thuml/SPOT, on AntMaze
# Not the dense mazes, whose rewards are distances, nor OGBench's, which are -1 and 0 already and have other names (`medium-navigate`).
SPARSE_MAZE = re.compile(r"(.*/)?(antmaze|pointmaze)/(open|umaze|medium|large)(-play|-diverse)?-v\d+")
PUBLISHED: dict[str, tuple[tuple[str, ...], _Table]] = {
    "rebrac": (("actor_penalty", "critic_penalty"), _PENALTIES),
    "edac": (("critics", "eta"), _CRITICS),
    "sac_n": (("critics",), _MANY_CRITICS),
    "xql": (("temperature", "max_clip", "batch_size"), _EXTREME),
    "spot": (("support_weight",), _SUPPORT),
}

_ANTMAZE = {"iql": {"expectile": 0.9, "beta": 10.0}}


def reward_shift(algorithm: str, dataset: str) -> float:
    """What the algorithm's authors add to the rewards of a dataset."""
    return REWARD_SHIFTS.get(algorithm, 0.0) if SPARSE_MAZE.fullmatch(dataset.lower()) else 0.0


def published(algorithm: str, dataset: str) -> dict[str, Any]:
    """The published hyperparameters of an algorithm for a dataset `.../<family>/<tier>-vN`; empty if they are the defaults.

    Raises UserError, listing the tasks that have an entry, if the algorithm's settings depend on the dataset and this one has none."""
    plugins.check("algorithms", algorithm)
    if algorithm in _ANTMAZE and (maze := SPARSE_MAZE.fullmatch(dataset.lower())) and maze[2] == "antmaze":
        return dict(_ANTMAZE[algorithm])
    if algorithm not in PUBLISHED:
        return {}
    names, table = PUBLISHED[algorithm]
    parts = re.sub(r"-v\d+$", "", dataset.lower()).split("/")
    family, tier = ("", *parts)[-2], parts[-1]
    if family not in table or tier not in _TIERS or not table[family][_TIERS.index(tier)]:
        tasks = ", ".join(f"{f}/{t}" for f, entries in table.items() for t, entry in zip(_TIERS, entries, strict=True) if entry)
        raise UserError(f"{algorithm} has no published setting for {dataset!r}; there are: {tasks}; leave out `published` or give --hyper")
    return dict(zip(names, table[family][_TIERS.index(tier)], strict=True))
