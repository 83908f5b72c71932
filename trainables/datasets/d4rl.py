"""D4RL's HDF5 files: flat arrays over all episodes, read, checked field by field, and cut into episodes for a local Minari dataset.

    observations [N, O]  actions [N, A]  rewards [N]  terminals [N]      and optionally  timeouts [N]  next_observations [N, O]

An episode ends at a terminal, at a timeout, where a next observation is not the observation of the row below, and, in a file without
timeouts, at the environment's time limit. A file without next observations does not hold the one after an episode's last row: such a
row is dropped, unless it is terminal, for then nothing depends on it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from trainables import environments
from trainables.datasets import local
from trainables.datasets.minari_store import outside
from trainables.errors import UserError, one_line

if TYPE_CHECKING:
    from minari.data_collector import EpisodeBuffer

NEEDED, OPTIONAL = ("observations", "actions", "rewards", "terminals"), ("timeouts", "next_observations")
TABLES = ("observations", "actions", "next_observations")  # [N, n]; the others are [N]

FLAGS = ("terminals", "timeouts", "masks", "valids")

Fields = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Episode:
    """Rows [start, stop) of the file; `after` is the observation after the last of them."""

    start: int
    stop: int
    terminated: bool
    after: npt.NDArray[np.float32]


def import_file(file: Path, environment: str, dataset: str, force: bool = False) -> Path:
    """Write a D4RL file as the local Minari dataset `dataset` of `environment`; returns its folder.

    Raises UserError, before anything is written, for a file that is not D4RL's or does not fit the environment."""
    from trainables.datasets import minari_write

    check_name(dataset, force)
    env = environments.make(environment)
    fields = read(file)
    check_fit(file, fields, env, environment)
    limit = env.spec.max_episode_steps if env.spec else None
    parts = list(episodes(fields, limit))
    if not parts:
        raise UserError(f"{file}: no transition is left: {len(fields['rewards'])} rows, no next observations")
    kept = sum(part.stop - part.start for part in parts)
    about = {
        "algorithm_name": "unknown (D4RL)",
        "description": f"Imported from the D4RL file {file.name}: {kept} of its {len(fields['rewards'])} transitions.",
        "imported": {"file": file.name, "sha256": sha256(file), "rows": len(fields["rewards"]), "transitions": kept},
    }
    return minari_write.write(dataset, env, about, _buffers(fields, parts), force)


def check_name(dataset: str, force: bool) -> None:
    """Raise UserError where a dataset of that name cannot be imported."""
    if dataset.startswith(local.OURS):
        raise UserError(f"dataset {dataset!r}: names under {local.OURS} are recorded here; take another, e.g. d4rl/hopper/medium-v2")
    local.folder(dataset)
    if inside := [str(parent) for parent in PurePosixPath(dataset).parents if local.exists(str(parent))]:
        raise UserError(f"dataset {dataset!r} would lie inside dataset {inside[0]!r}; take another name")
    if below := [other for other in local.local_datasets() if other.startswith(f"{dataset}/")]:
        raise UserError(f"dataset {dataset!r} would contain dataset {below[0]!r}; take another name")
    if local.exists(dataset) and not force:
        raise UserError(f"dataset {dataset!r} exists already; --force replaces it")


def read(file: Path) -> Fields:
    """The file's fields by name, of equal length, all values finite: float32, flags bool."""
    import h5py

    if not file.is_file():
        raise UserError(f"no file {str(file)!r}")
    try:
        with h5py.File(file, "r") as opened:
            missing = [name for name in NEEDED if name not in opened]
            if missing:
                raise UserError(
                    f"{file} is not a D4RL file: it has no {', '.join(missing)}; it has: {', '.join(list(opened)[:10]) or 'nothing'}"
                )
            groups = [name for name in (*NEEDED, *OPTIONAL) if name in opened and not isinstance(opened[name], h5py.Dataset)]
            if groups:
                raise UserError(f"{file} is not a D4RL file: an HDF5 group, not an array, is its {', '.join(groups)}")
            raw = {name: np.asarray(opened[name][()]) for name in (*NEEDED, *OPTIONAL) if name in opened}
    except OSError as error:
        raise UserError(f"{file} cannot be read as HDF5 ({one_line(error)})") from None
    return {name: checked(file, name, value) for name, value in equally_long(file, raw).items()}


def equally_long(file: Path, raw: Fields) -> Fields:
    """The fields, [N] or [N, n] as each has to be; UserError where they differ in length, or there are none."""
    for name, value in raw.items():
        if name not in TABLES and value.ndim == 2 and value.shape[1] == 1:
            raw[name] = value[:, 0]  # some of D4RL's files have [N, 1]
        if raw[name].ndim != (2 if name in TABLES else 1):
            raise UserError(f"{file}: {name} has the shape {value.shape}; {'[N, n]' if name in TABLES else '[N]'} is wanted")
    rows = len(raw["observations"])
    wrong = [f"{name} {len(value)}" for name, value in raw.items() if len(value) != rows]
    if wrong:
        raise UserError(f"{file}: observations has {rows} rows, but {', '.join(wrong)}")
    if rows == 0:
        raise UserError(f"{file} holds no transition")
    if (after := raw.get("next_observations")) is not None and after.shape != raw["observations"].shape:
        raise UserError(f"{file}: next_observations has the shape {after.shape}, observations {raw['observations'].shape}")
    return raw


def checked(file: Path, name: str, value: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A field as float32, or bool for a flag; UserError where it holds anything else."""
    flag = name in FLAGS
    if value.dtype.kind not in "biuf":
        raise UserError(f"{file}: {name} is of type {value.dtype}; numbers are wanted")
    with np.errstate(over="ignore"):  # to infinity, which is told
        bad = ~np.isin(value, (0, 1)) if flag else ~np.isfinite(value.astype(np.float32, copy=False))
    if bad.any():
        what = "neither 0 nor 1" if flag else "not finite (NaN or infinity)"
        first = int(np.argwhere(bad)[0][0])
        raise UserError(f"{file}: {name} holds {int(bad.sum())} of {value.size} values that are {what}, the first in row {first}")
    return value.astype(np.bool_ if flag else np.float32)


def check_fit(file: Path, fields: Fields, env: Any, environment: str) -> None:
    """Raise UserError where observations or actions are not those of the environment."""
    for name, space in (("observations", env.observation_space), ("actions", env.action_space)):
        if space.shape != fields[name].shape[1:]:
            raise UserError(f"{file}: {name} are of {fields[name].shape[1]} numbers, those of {environment} of {space.shape}")
    low, high = env.action_space.low, env.action_space.high
    wrong = outside(fields["actions"], low, high)
    if wrong.any():
        raise UserError(
            f"{file}: {int(wrong.sum())} of {len(wrong)} actions lie outside {environment}'s box {low.tolist()} to {high.tolist()}"
        )


def episodes(fields: Fields, limit: int | None) -> Iterator[Episode]:
    """The file's episodes in order; `limit` is the environment's time limit."""
    observations, terminals, after = fields["observations"], fields["terminals"], fields.get("next_observations")
    ends = terminals | fields["timeouts"] if "timeouts" in fields else terminals.copy()
    if after is not None:
        ends[:-1] |= ~np.isclose(after[:-1], observations[1:], rtol=1e-5, atol=1e-6).all(axis=1)
    ends[-1] = True
    start = 0
    for end in np.flatnonzero(ends).tolist():
        longest = limit if limit and "timeouts" not in fields else end + 1 - start
        for first in range(start, end + 1, longest):
            last = min(first + longest - 1, end)
            terminated = bool(terminals[last])
            if after is not None or terminated:
                yield Episode(first, last + 1, terminated, observations[last] if after is None else after[last])
            elif last > first:
                yield Episode(first, last, False, observations[last])
        start = end + 1


def _buffers(fields: Fields, parts: list[Episode]) -> Iterator[EpisodeBuffer]:
    from minari.data_collector import EpisodeBuffer

    for part in parts:
        rows = slice(part.start, part.stop)
        last = np.arange(part.start, part.stop) == part.stop - 1
        yield EpisodeBuffer(
            observations=np.concatenate([fields["observations"][rows], part.after[None]]),
            actions=fields["actions"][rows],
            rewards=fields["rewards"][rows],
            terminations=last & part.terminated,
            truncations=last & (not part.terminated),
        )


def sha256(file: Path) -> str:
    """The hash of a file's content."""
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
