"""OGBench's npz files: flat arrays over all trajectories, written as a local Minari dataset.

    observations [N, O]  actions [N, A]  terminals [N]      rewards [N]  masks [N]  next_observations [N, O]  or valids [N]

`terminals` ends a trajectory, and `masks` is 0 where the value ends: at a success, after which a trajectory may go on. The two are kept
apart: an episode is a trajectory, and a transition is terminal where its mask is 0.

The files that OGBench publishes hold neither rewards nor masks, and the observation after a trajectory's last transition in a row of its
own. They are read, and rewarded for the task of a single-task environment (ogbench:pointmaze-medium-singletask-v0), by OGBench's own code.
A compact file (`valids`) has such rows, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trainables import environments
from trainables.datasets import d4rl
from trainables.datasets.d4rl import Fields
from trainables.errors import UserError, one_line

if TYPE_CHECKING:
    from minari.data_collector import EpisodeBuffer

NEEDED = ("observations", "actions", "rewards", "masks", "terminals")


def import_file(file: Path, environment: str, dataset: str, force: bool = False) -> Path:
    """Write an OGBench file as the local Minari dataset `dataset` of `environment`; returns its folder.

    Raises UserError, before anything is written, for a file that is not OGBench's or does not fit the environment."""
    from trainables.datasets import minari_write

    d4rl.check_name(dataset, force)
    env = environments.make(environment)
    fields = read(file, env, environment)
    d4rl.check_fit(file, fields, env, environment)
    rows = len(fields["rewards"])
    about = {
        "algorithm_name": "unknown (OGBench)",
        "description": f"Imported from the OGBench file {file.name}: {rows} transitions.",
        "imported": {"file": file.name, "sha256": d4rl.sha256(file), "rows": rows, "transitions": rows},
    }
    return minari_write.write(dataset, env, about, _buffers(fields), force)


def read(file: Path, env: Any, environment: str) -> Fields:
    """Transitions by field: float32, and the flags `terminals` and `masks` bool."""
    if not file.is_file():
        raise UserError(f"no file {str(file)!r}")
    try:
        with open(file, "rb") as held, np.load(held) as opened:
            raw = {name: opened[name] for name in (*NEEDED, "next_observations", "valids") if name in opened.files}
            there = ", ".join(opened.files[:10]) or "nothing"
    except Exception as error:  # numpy and zipfile each have their own for a torn file
        raise UserError(f"{file} cannot be read as an npz file ({one_line(error)})") from None
    if {"observations", "actions", "terminals"} <= raw.keys() and not {"rewards", "masks"} & raw.keys():
        raw = _rewarded(file, env, environment)
    missing = [name for name in NEEDED if name not in raw]
    if missing or not {"next_observations", "valids"} & raw.keys():
        missing += [] if {"next_observations", "valids"} & raw.keys() else ["next_observations or valids"]
        raise UserError(f"{file} is not an OGBench file of transitions: it has no {', '.join(missing)}; it has: {there}")
    fields = {name: d4rl.checked(file, name, value) for name, value in d4rl.equally_long(file, raw).items()}
    if "next_observations" not in fields:
        fields["next_observations"] = np.roll(fields["observations"], -1, axis=0)
        kept = fields.pop("valids")
        if kept[-1]:
            raise UserError(f"{file}: valids is 1 in the last row, which no next observation follows")
        if not kept.any():
            raise UserError(f"{file} holds no transition: valids is 0 in all of its {len(kept)} rows")
        fields = {name: value[kept] for name, value in fields.items()}
    inside = ~fields["terminals"][:-1]
    apart = inside & ~np.isclose(fields["next_observations"][:-1], fields["observations"][1:], rtol=1e-5, atol=1e-6).all(axis=1)
    if apart.any():
        raise UserError(
            f"{file}: in {int(apart.sum())} rows, the first of them {int(np.argmax(apart))}, the next observation is not that of the row "
            f"below, and terminals ends no trajectory there"
        )
    return fields


def _rewarded(file: Path, env: Any, environment: str) -> Fields:
    """A published file with the rewards and masks of the environment's task, as OGBench computes them."""
    if getattr(env.unwrapped, "_reward_task_id", None) is None:
        raise UserError(
            f"{file} has no rewards and masks: it is for reaching any goal, and {environment} has no single task; name an environment that "
            f"has one, such as ogbench:pointmaze-medium-singletask-v0"
        )
    from ogbench.relabel_utils import relabel_dataset
    from ogbench.utils import load_dataset

    try:
        found: Fields = load_dataset(str(file), add_info=True)
        relabel_dataset(environments.read(environment)[0].rpartition(":")[2], env, found)
    except Exception as error:  # a file without positions, or of another environment
        raise UserError(f"{file} cannot be given the rewards of {environment} ({type(error).__name__}: {one_line(error)})") from None
    return {name: found[name] for name in (*NEEDED, "next_observations")}


def _buffers(fields: Fields) -> Iterator[EpisodeBuffer]:
    from minari.data_collector import EpisodeBuffer

    ends = np.flatnonzero(fields["terminals"])
    stops = np.unique([*(ends + 1), len(fields["rewards"])])
    for start, stop in zip([0, *stops], stops, strict=False):
        rows = slice(start, stop)
        ended = ~fields["masks"][rows]
        yield EpisodeBuffer(
            observations=np.concatenate([fields["observations"][rows], fields["next_observations"][stop - 1 : stop]]),
            actions=fields["actions"][rows],
            rewards=fields["rewards"][rows],
            terminations=ended,
            truncations=(np.arange(start, stop) == stop - 1) & ~ended,
        )
