"""Which datasets are on this machine: cheap enough for planning, since it imports neither torch, minari, gymnasium nor h5py."""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path

from trainables import project
from trainables.errors import UserError

SHOWN = 8  # ids named in an error
OURS = "winnow/"  # ids under this name are recorded here (python -m trainables.datasets.collect), never downloaded
# Names that D4RL gave: no Minari dataset has one of them, unless somebody has imported it so.
_D4RL = re.compile(
    r"(halfcheetah|hopper|walker2d|ant|antmaze|maze2d|minigrid|kitchen|pen|hammer|door|relocate|flow|carla)-([a-z][a-z-]*)-(v\d+)"
)
_RECORDED, _ON_HUB = ("halfcheetah", "hopper", "walker2d"), ("medium", "expert")
_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)*-v\d+")


def root() -> Path:
    """Minari's folder of local datasets: MINARI_DATASETS_PATH, else ~/.minari/datasets (Minari's own rule)."""
    given = os.environ.get("MINARI_DATASETS_PATH")
    return project.expanded(given or "~/.minari/datasets")


def folder(dataset: str) -> Path:
    """The dataset's folder, which need not exist; raises UserError for an id that is not `name/name-vN` (it becomes a path)."""
    if not _ID.fullmatch(dataset):
        raise UserError(f"dataset {dataset!r} is not a Minari id such as winnow/halfcheetah/expert-v0 (names joined by '/', ending in -vN)")
    return root() / dataset


def exists(dataset: str) -> bool:
    """Whether the dataset is on this machine, and may be read; False for a malformed id."""
    return bool(_ID.fullmatch(dataset)) and _is_dataset(root() / dataset)


def _is_dataset(folder: Path) -> bool:
    try:
        return (folder / "data" / "metadata.json").is_file()
    except OSError:  # somebody else's private folder, or a name that is too long for a file
        return False


def local_datasets() -> list[str]:
    """The ids of the datasets on this machine, sorted; folders whose name starts with '.' are not yet datasets.

    Links to folders are followed, unless they lead back to a folder that contains them."""
    ids, top = [], root()
    for path, folders, _ in os.walk(top, followlinks=True):
        if _is_dataset(Path(path)):
            ids.append(Path(path).relative_to(top).as_posix())
            folders.clear()
        folders[:] = [name for name in folders if not name.startswith(".") and not _leads_back(Path(path) / name)]
    return sorted(ids)


def _leads_back(folder: Path) -> bool:
    """Whether the folder is a link to one of those that it lies in."""
    return folder.is_symlink() and folder.resolve() in [parent.resolve() for parent in folder.parents]


def refuse_d4rl_name(dataset: str) -> None:
    """Raise UserError, with what to do, for an absent dataset that is called as D4RL calls its own; asks no network."""
    if exists(dataset) or not (found := _D4RL.fullmatch(dataset)):
        return
    family, tier, version = found.groups()
    ways = [f"winnow/{family}/{tier}-v0, recorded here"] if family in _RECORDED and "full" not in tier else []
    ways += [f"mujoco/{family}/{tier}-v0 of Minari's hub"] if family in _RECORDED and tier in _ON_HUB else []
    environment = {"halfcheetah": "HalfCheetah-v4", "hopper": "Hopper-v4", "walker2d": "Walker2d-v4", "ant": "Ant-v4"}.get(family, "ID")
    ways.append(f"D4RL's file itself: winnow datasets import FILE --environment {environment} --name d4rl/{family}/{tier}-{version}")
    raise UserError(f"dataset {dataset!r} is D4RL's name for it, which Minari does not know; take {', or '.join(ways)}")


def missing(dataset: str, reason: str = "") -> UserError:
    """The error for a dataset that is not on this machine. It names the closest ids that are, and how to get this one."""
    folder(dataset)
    refuse_d4rl_name(dataset)
    local = local_datasets()
    near = difflib.get_close_matches(dataset, local, n=len(local) or 1, cutoff=0.0)
    rest = f" and {len(near) - SHOWN} more" if len(near) > SHOWN else ""
    there = f"there are: {', '.join(near[:SHOWN]) or 'none'}{rest}"
    return UserError(f"no dataset {dataset!r} in {root()}{f' ({reason})' if reason else ''}; {there}; {how_to_get(dataset)}")


def how_to_get(dataset: str) -> str:
    """What puts it on this machine; with `--force` added, it replaces one that is damaged."""
    if dataset.startswith(OURS):
        return f"record it: winnow datasets collect {dataset}"
    return f"download it where there is a network: minari download {dataset}"
