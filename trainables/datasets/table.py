"""A dataset as one memory-mapped float32 table, prepared once per machine (table_cache.py) and shared by all trials that train on it.

Rows and episodes come from the cache; spaces, reference returns and the environment are read from the dataset's metadata.json each time.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from trainables import environments
from trainables.datasets import local, minari_store, table_cache
from trainables.datasets.known_hashes import note_hash
from trainables.datasets.minari_store import Metadata
from trainables.datasets.table_cache import Arrays, Prepared, Rows
from trainables.environments import Reference
from trainables.errors import MachineError, UserError, one_line
from trainables.storage import cache


@dataclass(frozen=True, eq=False)
class Table:
    """All transitions of a dataset: `rows` [N, O+A+1+O+1] = observation, action, reward, next observation, terminal.

    `terminal` is 1 only where the environment itself ended the episode; a truncation is bootstrapped through, and an episode
    that ends with neither flag is a truncation. `mean` and `std` [O] are the observations' (population std). `hash` covers
    the rows, the episodes, the environment, its horizon and action box, and the reference returns: all that a score depends on.
    """

    dataset: str
    rows: npt.NDArray[np.float32] = field(repr=False)
    observation_size: int
    action_size: int
    action_low: npt.NDArray[np.float32]
    action_high: npt.NDArray[np.float32]
    mean: npt.NDArray[np.float32] = field(repr=False)
    std: npt.NDArray[np.float32] = field(repr=False)
    environment: str
    horizon: int
    reference: Reference
    episode_returns: npt.NDArray[np.float32] = field(repr=False)
    episode_lengths: npt.NDArray[np.int64] = field(repr=False)
    hash: str
    note: str = ""
    observation_names: tuple[str, ...] = ()  # of a Dict's flattened numbers

    def __len__(self) -> int:
        return int(self.rows.shape[0])

    def in_brief(self) -> dict[str, Any]:
        """What commands tell programs about a dataset that is here."""
        mean = float(self.episode_returns.mean())
        numbers = {"transitions": len(self), "episodes": len(self.episode_lengths), "environment": self.environment, "note": self.note}
        normalized = float(self.reference.normalize(mean)) if self.reference.known else None
        return {"dataset": self.dataset, "here": True, **numbers, "mean_return": mean, "normalized_score": normalized, "hash": self.hash}

    def cut(self, transitions: int, seed: int) -> Table:
        """At most `transitions` transitions, in whole episodes that `seed` chooses, with their mean and deviation; 0 leaves all.

        Raises UserError where that is not fewer than there are, or less than the longest episode."""
        if not transitions:
            return self
        minari_store.check_cut(self.dataset, transitions, len(self), int(self.episode_lengths.max()))
        drawn = [hashlib.sha256(f"{seed}/episode/{index}".encode()).digest() for index in range(len(self.episode_lengths))]
        order = np.array(sorted(range(len(drawn)), key=drawn.__getitem__))  # the same with every version of numpy
        taken = order[: int(np.searchsorted(np.cumsum(self.episode_lengths[order]), transitions, side="right"))]
        starts = np.cumsum(self.episode_lengths) - self.episode_lengths
        rows = np.concatenate([self.rows[starts[e] : starts[e] + self.episode_lengths[e]] for e in taken])
        observations = rows[:, : self.observation_size].astype(np.float64)
        return replace(
            self,
            rows=rows,
            mean=observations.mean(axis=0).astype(np.float32),
            std=observations.std(axis=0).astype(np.float32),
            episode_returns=self.episode_returns[taken],
            episode_lengths=self.episode_lengths[taken],
        )


def names_of(table: Table) -> list[str]:
    """The dimensions of observation and action, by the environment's names for observations where there are any."""
    size = table.observation_size
    named = environments.observation_names(table.environment, size) or table.observation_names
    observations = named or [f"observation {index}" for index in range(size)]
    return [*observations, *(f"action {index}" for index in range(table.action_size))]


def _playable(metadata: Metadata) -> None:
    """Raise UserError where the environment of a dataset that is not here yet cannot be made, or does not fit it."""
    from trainables.datasets.table_evaluator import check_playable  # imports gymnasium

    check_playable(metadata)


def load_table(dataset: str, verify: bool = False) -> Table:
    """Open the dataset's table, preparing it on first use and downloading the dataset from Minari's hub where it is absent.

    A prepared table that was altered is prepared again; with `verify` its hash is compared even if nothing shows that it was.

    Raises UserError, in one line, for a dataset that is missing, unreadable, empty, not finite, or of shapes that do not fit.
    """
    if not local.exists(dataset):
        minari_store.download(dataset, _playable)
    metadata = minari_store.read_metadata(dataset)
    key = _index_key(metadata)
    prepared = table_cache.load(key, verify) or _prepare(metadata, key)
    content = _content_hash(metadata, prepared.digest)
    note_hash(dataset, content)
    return Table(
        dataset=dataset,
        rows=prepared.rows,
        observation_size=metadata.observation_size,
        action_size=metadata.action_size,
        action_low=metadata.action_low,
        action_high=metadata.action_high,
        mean=prepared.arrays["mean"],
        std=prepared.arrays["std"],
        environment=metadata.environment,
        horizon=metadata.horizon,
        reference=metadata.reference,
        episode_returns=prepared.arrays["episode_returns"],
        episode_lengths=prepared.arrays["episode_lengths"],
        hash=content,
        note="; ".join(filter(None, (metadata.note, _outside(metadata, prepared)))),
        observation_names=metadata.observation.names,
    )


def _content_hash(metadata: Metadata, digest: str) -> str:
    what = {
        "data": digest,
        "environment": metadata.environment,
        "horizon": metadata.horizon,
        "sizes": [metadata.observation_size, metadata.action_size],
        "actions": [metadata.action_low.tolist(), metadata.action_high.tolist()],
        "reference": [metadata.reference.random, metadata.reference.expert],
    }
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def _index_key(metadata: Metadata) -> str:
    """Changes whenever a file of the dataset is written again, and with the order in which a Dict's parts become a row."""
    seen: list[Any] = [table_cache.FORMAT, metadata.dataset, str(metadata.path.resolve()), metadata.transitions, metadata.episodes]
    seen += [metadata.observation.parts] if metadata.observation.parts else []
    try:
        for path in sorted(p for p in metadata.path.rglob("*") if p.is_file() and p.name != "metadata.json"):
            stat = path.stat()
            seen.append([path.name, stat.st_size, stat.st_mtime_ns])
    except OSError as error:
        raise minari_store.unreadable(metadata.dataset, metadata.path, error) from None
    return hashlib.sha256(json.dumps(seen).encode()).hexdigest()[:32]


def _prepare(metadata: Metadata, key: str) -> Prepared:
    """Write the dataset's table into the cache and open it."""
    shape = metadata.transitions, 2 * metadata.observation_size + metadata.action_size + 2
    where = f"below {cache.tables()} (WINNOW_CACHE)"
    try:
        table_cache.prepare(key, {"dataset": metadata.dataset, "path": str(metadata.path)}, shape, lambda rows: _summed_up(rows, metadata))
    except OSError as error:
        raise MachineError(f"the prepared table of {metadata.dataset!r} cannot be written {where}: {one_line(error)}") from None
    prepared = table_cache.load(key)
    if prepared is None:
        raise MachineError(f"the prepared table of {metadata.dataset!r} {where} was removed or altered while it was being opened")
    return prepared


def _summed_up(rows: Rows, metadata: Metadata) -> Arrays:
    """Write all episodes into `rows`; returns the episodes' lengths and returns, the observations' mean and deviation [O], and the least
    and largest actions [2, A]."""
    lengths, returns = _fill(rows, metadata)
    observations, actions = np.split(rows[:, : metadata.observation_size + metadata.action_size], [metadata.observation_size], axis=1)
    return {
        "mean": observations.mean(axis=0, dtype=np.float64).astype(np.float32),
        "std": observations.std(axis=0, dtype=np.float64).astype(np.float32),
        "episode_returns": np.array(returns, np.float32),
        "episode_lengths": np.array(lengths, np.int64),
        "action_extremes": np.stack([actions.min(axis=0), actions.max(axis=0)]),
    }


def _outside(metadata: Metadata, prepared: Prepared) -> str:
    """One line where actions lie outside the dataset's action box. The rows are read for their number only then."""
    low, high = metadata.action_low, metadata.action_high
    extremes = prepared.arrays["action_extremes"]
    if not minari_store.outside(extremes, low, high).any():
        return ""
    actions = prepared.rows[:, metadata.observation_size : metadata.observation_size + metadata.action_size]
    count = int(minari_store.outside(actions, low, high).sum())
    furthest = float(np.maximum(low - extremes[0], extremes[1] - high).max())
    box = f"{low.tolist()} to {high.tolist()}"
    return f"{count} of {len(actions)} actions lie outside the action box {box}, by up to {furthest:.3g}: a policy cannot take them"


def _fill(rows: npt.NDArray[np.float32], metadata: Metadata) -> tuple[list[int], list[float]]:
    """Write all episodes into `rows`; returns their lengths and undiscounted returns."""
    size, actions_end = metadata.observation_size, metadata.observation_size + metadata.action_size
    lengths: list[int] = []
    returns: list[float] = []
    start = 0
    try:
        for observations, actions, rewards, terminations in minari_store.read_episodes(metadata):
            steps = len(rewards)
            shapes = [observations.shape, actions.shape, rewards.shape, terminations.shape]
            if shapes != [(steps + 1, size), (steps, metadata.action_size), (steps,), (steps,)]:
                raise UserError(
                    f"dataset {metadata.dataset!r}, episode {len(lengths)}: observations, actions, rewards and terminations have shapes "
                    f"{shapes}; O = {size} and A = {metadata.action_size} require [(T+1, O), (T, A), (T,), (T,)]"
                )
            if start + steps > len(rows):
                raise UserError(f"dataset {metadata.dataset!r} has more than the {len(rows)} transitions in its metadata")
            part = rows[start : start + steps]
            with np.errstate(over="ignore"):  # what does not fit becomes infinity
                part[:, :size] = observations[:-1]
                part[:, size:actions_end] = actions
                part[:, actions_end] = rewards
                part[:, actions_end + 1 : -1] = observations[1:]
                part[:, -1] = terminations
            if not np.isfinite(part).all():
                raise UserError(
                    f"dataset {metadata.dataset!r}, episode {len(lengths)}: "
                    "holds values that are not finite (NaN, infinity, or beyond float32)"
                )
            if steps:
                lengths.append(steps)
                returns.append(float(np.sum(rewards, dtype=np.float64)))
            start += steps
    except UserError:
        raise
    except Exception as error:  # h5py, pyarrow and minari each have their own for a torn file
        raise minari_store.unreadable(metadata.dataset, metadata.path, error) from None
    if start != len(rows):
        raise UserError(f"dataset {metadata.dataset!r} has {start} transitions, its metadata {len(rows)}")
    return lengths, returns
