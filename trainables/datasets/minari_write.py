"""Writing a Minari dataset below the local root, whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import importlib.metadata
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trainables.datasets import local
from trainables.errors import UserError, one_line

if TYPE_CHECKING:
    from minari.data_collector import EpisodeBuffer


ABANDONED = 24 * 3600  # seconds without a write, after which nobody is writing any more
ROOM = 1 << 20  # bytes that stay free, for what HDF5 and the metadata write at the end


def write(dataset: str, env: Any, about: dict[str, Any], episodes: Iterable[EpisodeBuffer], force: bool = False) -> Path:
    """Write float32 episodes recorded in `env` and return the dataset's folder; `about` goes into its metadata.

    No partial dataset is ever visible: it is written under a hidden name and then renamed. An existing one is replaced only with
    `force`.
    Raises UserError for a folder that cannot be written."""
    target = local.folder(dataset)
    _remove_abandoned()
    scratch = local.root() / f".writing-{uuid.uuid4().hex}"
    try:
        data = scratch / "new" / "data"
        data.mkdir(parents=True)
        _fill(data, env, {"dataset_id": dataset, "minari_version": importlib.metadata.version("minari"), **about}, episodes)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists() and (force or not local.exists(dataset)):
            target.rename(scratch / "replaced")
        if not local.exists(dataset):  # another process may have written it meanwhile
            data.parent.rename(target)
    except OSError as error:
        raise UserError(f"dataset {dataset!r} cannot be written below {local.root()}: {one_line(error)}") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


def _remove_abandoned() -> None:
    """What killed processes were writing. Others may be at work beside this one, perhaps on another host: theirs is younger."""
    for scratch in local.root().glob(".writing-*"):
        with contextlib.suppress(OSError):
            if max(path.stat().st_mtime for path in (scratch, *scratch.rglob("*"))) < time.time() - ABANDONED:
                shutil.rmtree(scratch, ignore_errors=True)


def _while_there_is_room(folder: Path, episodes: Iterable[EpisodeBuffer]) -> Iterator[EpisodeBuffer]:
    """The episodes. Raises OSError before the disk is full: HDF5, which writes when it closes, would crash the process."""
    for episode in episodes:
        arrays = (episode.observations, episode.actions, episode.rewards, episode.terminations, episode.truncations)
        if shutil.disk_usage(folder).free < ROOM + 2 * sum(np.asarray(array).nbytes for array in arrays):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        yield episode


def _fill(folder: Path, env: Any, about: dict[str, Any], episodes: Iterable[EpisodeBuffer]) -> None:
    import gymnasium
    from minari.dataset.minari_storage import MinariStorage

    space = env.observation_space
    storage = MinariStorage.new(
        folder,
        # Minari stores what it is given: a float64 space would promise what float32 data does not hold.
        observation_space=gymnasium.spaces.Box(space.low.astype(np.float32), space.high.astype(np.float32), dtype=np.float32),
        action_space=env.action_space,
        env_spec=env.spec,
    )
    storage.update_metadata(about)
    storage.update_episodes(_while_there_is_room(folder, episodes))
    for path in folder.iterdir():
        with open(path, "rb") as file:
            os.fsync(file.fileno())
