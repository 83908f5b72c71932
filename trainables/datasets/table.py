"""A dataset as one memory-mapped float32 table, prepared once per machine and shared by all trials that train on it.

Cache (WINNOW_CACHE, default ~/.cache/winnow/tables):
    <digest>.npy      rows [N, O+A+1+O+1], named by the hash of what the two files hold
    <digest>.npz      mean, std, episode_returns, episode_lengths
    index/<key>.json  digest of the dataset files with this path, size and modification time: so opening hashes nothing
Everything else (spaces, reference returns, environment) is read from the dataset's metadata.json each time.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainables.datasets import local, minari_store
from trainables.datasets.minari_store import Metadata
from trainables.environments import Reference
from trainables.errors import UserError, one_line

FORMAT = 1  # of the cache; raise it when rows would come out differently


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

    def __len__(self) -> int:
        return int(self.rows.shape[0])


def load_table(dataset: str) -> Table:
    """Open the dataset's table, preparing it on first use and downloading the dataset from Minari's hub where it is absent.

    Raises UserError, in one line, for a dataset that is missing, unreadable, empty, not finite, or of shapes that do not fit.
    """
    if not local.exists(dataset):
        minari_store.download(dataset)
    metadata = minari_store.read_metadata(dataset)
    key = _index_key(metadata)
    opened = _open(key)
    if opened is None:
        try:
            _prepare(metadata, key)
        except OSError as error:
            where = f"below {cache()} (WINNOW_CACHE)"
            raise UserError(f"the prepared table of {dataset!r} cannot be written {where}: {one_line(error)}") from None
        opened = _open(key)
        if opened is None:
            raise UserError(f"the prepared table of {dataset!r} below {cache()} (WINNOW_CACHE) was removed while it was being opened")
    digest, rows, extra = opened
    return Table(
        dataset=dataset,
        rows=rows,
        observation_size=metadata.observation_size,
        action_size=metadata.action_size,
        action_low=metadata.action_low,
        action_high=metadata.action_high,
        mean=extra["mean"],
        std=extra["std"],
        environment=metadata.environment,
        horizon=metadata.horizon,
        reference=metadata.reference,
        episode_returns=extra["episode_returns"],
        episode_lengths=extra["episode_lengths"],
        hash=_content_hash(metadata, digest),
        note=metadata.note,
    )


def cache() -> Path:
    """The folder of prepared tables."""
    given = os.environ.get("WINNOW_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "winnow" / "tables"


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
    """Changes whenever a file of the dataset is written again."""
    seen: list[Any] = [FORMAT, metadata.dataset, str(metadata.path.resolve()), metadata.transitions, metadata.episodes]
    try:
        for path in sorted(p for p in metadata.path.rglob("*") if p.is_file() and p.name != "metadata.json"):
            stat = path.stat()
            seen.append([path.name, stat.st_size, stat.st_mtime_ns])
    except OSError as error:
        raise UserError(f"dataset {metadata.dataset!r}: {metadata.path} cannot be read ({one_line(error)})") from None
    return hashlib.sha256(json.dumps(seen).encode()).hexdigest()[:32]


def _open(key: str) -> tuple[str, npt.NDArray[np.float32], dict[str, Any]] | None:
    """What the index points to; None if it has no such entry or a file is missing or damaged."""
    try:
        digest = json.loads((cache() / "index" / f"{key}.json").read_text())["digest"]
        with np.load(cache() / f"{digest}.npz") as file:
            extra = {name: file[name] for name in file.files}
        # Private copy-on-write: torch wants writable memory, the pages stay shared.
        return digest, np.load(cache() / f"{digest}.npy", mmap_mode="c"), extra
    except (OSError, ValueError, KeyError, EOFError):
        return None


def _prepare(metadata: Metadata, key: str) -> None:
    """Write the table and then its index entry; two processes may do this at once, each renames complete files into place."""
    (cache() / "index").mkdir(parents=True, exist_ok=True)
    scratch = cache() / f".{uuid.uuid4().hex}.npy"
    try:
        shape = (metadata.transitions, 2 * metadata.observation_size + metadata.action_size + 2)
        rows = np.lib.format.open_memmap(scratch, mode="w+", dtype=np.float32, shape=shape)
        lengths, returns = _fill(rows, metadata)
        observations = rows[:, : metadata.observation_size]
        extra: dict[str, npt.NDArray[Any]] = {
            "mean": observations.mean(axis=0, dtype=np.float64).astype(np.float32),
            "std": observations.std(axis=0, dtype=np.float64).astype(np.float32),
            "episode_returns": np.array(returns, np.float32),
            "episode_lengths": np.array(lengths, np.int64),
        }
        digest = hashlib.sha256(rows.data)
        digest.update(extra["episode_lengths"].tobytes())
        rows.flush()
        del observations, rows
        with open(scratch, "rb") as file:
            os.fsync(file.fileno())
        name = digest.hexdigest()
        scratch.replace(cache() / f"{name}.npy")
        with open(scratch, "wb") as file:
            np.savez(file, **extra)  # type: ignore[arg-type]
            _sync(file)
        scratch.replace(cache() / f"{name}.npz")
        with open(scratch, "wb") as file:
            file.write(json.dumps({"digest": name, "dataset": metadata.dataset, "path": str(metadata.path)}).encode())
            _sync(file)
        scratch.replace(cache() / "index" / f"{key}.json")
    finally:
        scratch.unlink(missing_ok=True)


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
            part[:, :size] = observations[:-1]
            part[:, size:actions_end] = actions
            part[:, actions_end] = rewards
            part[:, actions_end + 1 : -1] = observations[1:]
            part[:, -1] = terminations
            if not np.isfinite(part).all():
                raise UserError(f"dataset {metadata.dataset!r}, episode {len(lengths)}: holds values that are not finite (NaN or infinity)")
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


def _sync(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
