"""Minari's files: metadata without importing minari, episodes in any storage format, and the download from the hub."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainables import environments
from trainables.datasets import local
from trainables.datasets.spaces import Flat, flat, from_arrow, refuse_discrete
from trainables.environments import Reference
from trainables.errors import UserError, one_line

Episode = tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]

SEARCH_SECONDS = 15.0  # for the hub's list of datasets; without a network the hub's client retries for 25 s and more
SPEC_FIELDS = {"id": str, "entry_point": str, "kwargs": dict, "max_episode_steps": int | float, "additional_wrappers": list}
OFFERED = "offered.json"  # what the client has found about a dataset
IGNORED = ["_", ".", "metadata.json"]  # in the folder of an episode
SLACK = 1e-3  # how far an action may lie outside the box: float32 rounds
# Minari's client, run as a program because its search has no time limit except being killed. The last line on stderr is the error.
_CLIENT = """\
import sys
(name, offered, look), ours, sys.stdout = sys.argv[1:], sys.stdout, sys.stderr
try:
    import json
    import minari
    from minari.storage import hosting
    storage = hosting.get_cloud_storage()  # imports the hub's client, too
    print("begun", file=ours, flush=True)
    there = hosting.list_remote_datasets(prefix=name.rsplit("-v", 1)[0])
    if name not in there:
        print("missing", file=ours, flush=True)
        near = sorted(there)
        if not near:
            import difflib
            group = list(storage.list_datasets(prefix=name.split("/")[0]))
            near = difflib.get_close_matches(name, group or list(storage.list_datasets()), n=4)
        sys.exit("the hub has no such dataset" + (f", it has {', '.join(near)}" if near else ""))
    licence = ""
    try:
        licence = look and storage._api.dataset_info(f"{storage.name}/{name.split('/')[0]}").card_data.license
    except (AttributeError, OSError):
        pass  # none is stated, or it is another storage than the hub, or the hub has just gone
    with open(offered, "w") as file:
        json.dump({"metadata": there[name], "licence": licence or ""}, file)
    print("found", file=ours, flush=True)
    if sys.stdin.readline().strip() == "go":
        minari.download_dataset(name)
except Exception as error:
    while error.__cause__ is not None:
        error = error.__cause__
    sys.exit("download failed: " + (str(error).strip() or type(error).__name__).splitlines()[0])
"""


@dataclass(frozen=True, eq=False)
class Metadata:
    """The checked contents of metadata.json: sizes O and A, the box of actions [A], the environment and the reference returns."""

    dataset: str
    path: Path
    format: str
    transitions: int
    episodes: int
    observation_size: int
    action_size: int
    action_low: npt.NDArray[np.float32]
    action_high: npt.NDArray[np.float32]
    environment: str
    horizon: int
    reference: Reference
    observation: Flat
    note: str

    @property
    def observation_names(self) -> tuple[str, ...]:
        """Of a Dict's flattened numbers; none for a plain Box."""
        return self.observation.names


@dataclass(frozen=True, eq=False)
class Offer:
    """A dataset on the hub: what its metadata says, the size of the download in MB, and the licence; nan and empty where not stated."""

    metadata: Metadata
    megabytes: float
    licence: str


def read_metadata(dataset: str) -> Metadata:
    """Read and check the metadata of a dataset on this machine; raises UserError where it cannot be trained on."""
    path = local.folder(dataset) / "data"
    try:
        raw = json.loads((path / "metadata.json").read_text())
    except (OSError, ValueError) as error:
        raise unreadable(dataset, path / "metadata.json", error) from None
    return _checked(dataset, path, raw)


def check_cut(dataset: str, transitions: int, there: int, longest: int) -> None:
    """Raise UserError unless a trial's `transitions` are fewer than the dataset has and hold its longest episode; 0 takes all.

    A trial with `transitions` is another trial, so one that cuts nothing off would be trained twice; and with fewer than an episode has,
    it would depend on the seed whether there is one that fits."""
    if transitions and transitions >= there:
        raise UserError(f"transitions {transitions} of {dataset!r} cut nothing off: it has {there}; transitions=all takes all")
    if transitions and transitions < longest:
        raise UserError(f"transitions {transitions} of {dataset!r} are fewer than the {longest} of an episode; whole ones are taken")


def _checked(dataset: str, path: Path, raw: Any) -> Metadata:
    """The contents of a metadata.json, which is here or is offered by the hub."""
    try:
        if not isinstance(raw, dict):
            raise ValueError("not a JSON object")
        transitions, episodes = int(raw["total_steps"]), int(raw["total_episodes"])
        spaces = [_json_object(name, raw.get(name)) or None for name in ("observation_space", "action_space")]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise unreadable(dataset, path / "metadata.json", error) from None
    if transitions < 1 or episodes < 1:
        raise UserError(f"dataset {dataset!r} is empty: {transitions} transitions in {episodes} episodes")
    refuse_discrete(dataset, spaces[1])  # before anyone is told to install what the environment needs
    environment, horizon, note = _declared(dataset, raw)
    observation, action = (flat(dataset, environment, kind, space) for kind, space in zip(("observation", "action"), spaces, strict=True))
    low, high = action.low, action.high
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all()):
        raise UserError(f"dataset {dataset!r}: the action space {low.tolist()} to {high.tolist()} is not bounded")
    return Metadata(
        dataset=dataset,
        path=path,
        format=str(raw.get("data_format", "hdf5")),
        transitions=transitions,
        episodes=episodes,
        observation_size=observation.low.size,
        action_size=low.size,
        action_low=low,
        action_high=high,
        environment=environments.flattened(environment) if observation.parts else environment,
        horizon=horizon,
        reference=_reference(environment, raw),
        observation=observation,
        note="; ".join(filter(None, (_mujoco(raw), note))),
    )


def read_episodes(metadata: Metadata) -> Iterator[Episode]:
    """Yield observations [T+1, O], actions [T, A], rewards [T], terminations [T] of each episode, in the dataset's order.

    Dict observations are flattened. Only these columns are read: infos are ten times the data in the hub's sets, and Minari's reader of
    Arrow files fails at some that Minari has written.
    """
    names = ("actions", "rewards", "terminations")
    if metadata.format == "hdf5":
        import h5py

        with h5py.File(metadata.path / "main_data.hdf5", "r") as file:
            for i in range(metadata.episodes):
                group = file[f"episode_{i}"]
                held = group["observations"]
                observations = metadata.observation.vectors(held if metadata.observation.parts else held[()])
                actions, rewards, terminations = (group[name][()] for name in names)
                yield observations, actions, rewards, terminations
    else:
        import pyarrow.dataset

        for i in range(metadata.episodes):
            files = pyarrow.dataset.dataset(
                metadata.path / str(i), format=metadata.format, exclude_invalid_files=False, ignore_prefixes=IGNORED
            )
            held, *others = files.to_table(columns=["observations", *names]).columns
            actions, rewards, terminations = (from_arrow(column)[:-1] for column in others)  # as long as the observations
            yield metadata.observation.vectors(from_arrow(held)), actions, rewards, terminations


def outside(actions: npt.NDArray[Any], low: npt.NDArray[Any], high: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Which of the actions [N, A] lie outside the box [A] by more than rounding: [N]."""
    return np.asarray(((actions < low - SLACK) | (actions > high + SLACK)).any(axis=-1))


def download(dataset: str, check: Callable[[Metadata], None]) -> None:
    """Fetch the dataset from Minari's hub into the local root, whole or not at all; `check` sees its metadata before that, and may raise.

    Raises UserError, within SEARCH_SECONDS and a little, when the hub cannot be reached or has no such dataset.
    """
    if local.exists(dataset):
        return
    local.refuse_d4rl_name(dataset)
    if dataset.startswith(local.OURS):
        raise local.missing(dataset)
    target = local.folder(dataset)
    scratch = local.root() / f".download-{uuid.uuid4().hex}"  # not yet a dataset
    try:
        scratch.mkdir(parents=True)
        if reason := _fetch(dataset, scratch, check=check):
            raise local.missing(dataset, reason)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not local.exists(dataset):
            (scratch / "datasets" / dataset).rename(target)
    except OSError as error:
        if not local.exists(dataset):  # else another process has put it there meanwhile
            raise local.missing(dataset, f"download failed: {one_line(error)}") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def offered(dataset: str) -> Offer:
    """What the hub says about a dataset, without downloading it; UserError where there is none, and where it cannot be trained on."""
    if dataset.startswith(local.OURS):
        raise local.missing(dataset)
    local.folder(dataset)
    with tempfile.TemporaryDirectory() as scratch:
        if reason := _fetch(dataset, Path(scratch), look=True):
            raise local.missing(dataset, reason)
        found = json.loads((Path(scratch) / OFFERED).read_bytes())
    size = found["metadata"].get("dataset_size")
    metadata = _checked(dataset, local.folder(dataset) / "data", found["metadata"])
    return Offer(metadata, float(size) if isinstance(size, int | float) else math.nan, str(found["licence"]))


def _fetch(dataset: str, scratch: Path, look: bool = False, check: Callable[[Metadata], None] = lambda _: None) -> str:
    """Download into `scratch`/datasets with Minari's client, in a process of its own; returns why that failed, or ''.

    With `look`, only write what the hub says about the dataset to `scratch`. UserError, before anything is downloaded, for metadata of a
    dataset that cannot be trained on."""
    settings = {
        "MINARI_DATASETS_PATH": str(scratch / "datasets"),
        "HF_HUB_CACHE": str(scratch / "hub"),  # nothing stays in anyone's home, and no older copy answers for the hub
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", _CLIENT, dataset, str(scratch / OFFERED), "look" * look],
        env=os.environ | settings,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        alarm = threading.Timer(SEARCH_SECONDS, child.kill)
        try:
            assert child.stdout is not None
            child.stdout.readline()  # the time that imports take does not count as the hub's
            alarm.start()
            said = child.stdout.readline()
            listed = said == "found\n"
            if listed:
                alarm.cancel()
            if listed and not look:
                found = json.loads((scratch / OFFERED).read_bytes())
                check(_checked(dataset, local.folder(dataset) / "data", found["metadata"]))
            _, complaint = child.communicate("" if look or not listed else "go\n")
        finally:
            alarm.cancel()
            child.kill()
    last = next((line[:200] for line in reversed(complaint.splitlines()) if line.strip() and not line.startswith("Retrying")), "")
    if said == "missing\n" and child.returncode < 0:  # while it looked for near ones
        return "the hub has no such dataset"
    if not listed and child.returncode < 0:
        return f"no answer from the hub in {SEARCH_SECONDS:.0f} s" + (f": {last}" if last else "")
    if child.returncode != 0 or not (look or (scratch / "datasets" / dataset / "data" / "metadata.json").is_file()):
        return last or "download failed"
    return ""


def unreadable(dataset: str, path: Path, error: BaseException) -> UserError:
    """The error for a damaged file of a dataset, with what replaces it."""
    how = f"; {local.how_to_get(dataset)} --force" if local.exists(dataset) else ""
    return UserError(f"dataset {dataset!r}: {path} cannot be read ({type(error).__name__}: {one_line(error)}){how}")


def _declared(dataset: str, raw: dict[str, Any]) -> tuple[str, int, str]:
    """The environment to play, its time limit, and a note where it is not the one that the data was recorded in.

    A dataset may declare an environment for evaluation (`eval_env_spec`); else it is the one of the recording (`env_spec`)."""
    specs = [_spec(dataset, name, raw.get(name)) for name in ("eval_env_spec", "env_spec")]
    if not any(specs):
        raise UserError(f"dataset {dataset!r} names no environment (env_spec), so policies trained on it cannot be evaluated")
    played, recorded = (spec or specs[1] or specs[0] for spec in specs)
    try:
        environment, horizon = environments.declared(played)
        note = "" if played == recorded else environments.declared(recorded)[0]
    except UserError as error:
        raise UserError(f"dataset {dataset!r}: {error}") from None
    if horizon is None:
        raise UserError(
            f"dataset {dataset!r}: environment {environment!r} has no time limit; register it with max_episode_steps=N, and record again"
        )
    return environment, horizon, "" if note in ("", environment) else f"recorded in {note}, played in its eval_env_spec, {environment}"


def _json_object(name: str, text: Any) -> dict[str, Any]:
    """What a field of the metadata holds as text; empty where there is none. Raises ValueError and TypeError."""
    held = json.loads(text) if text else {}
    if not isinstance(held, dict):
        raise ValueError(f"{name} is not a JSON object")
    return held


def _spec(dataset: str, name: str, text: Any) -> dict[str, Any]:
    """An EnvSpec of the metadata; empty where there is none."""
    try:
        spec = _json_object(name, text)
        wrong = next((f for f, kind in SPEC_FIELDS.items() if not isinstance(spec.get(f), kind | None)), None)
        if wrong:
            raise ValueError(f"its {wrong} is {spec[wrong]!r}")
        return spec if spec.get("id") else {}
    except (ValueError, TypeError) as error:
        raise UserError(f"dataset {dataset!r}: the {name} in its metadata is not the JSON of an EnvSpec ({one_line(error)})") from None


def _reference(environment: str, raw: dict[str, Any]) -> Reference:
    low, high = raw.get("ref_min_score"), raw.get("ref_max_score")
    if low is not None and high is not None and np.isfinite([low, high]).all() and low < high:
        return Reference(float(low), float(high), "dataset metadata (ref_min_score, ref_max_score)")
    return environments.reference(environment) or environments.UNKNOWN


def _mujoco(raw: dict[str, Any]) -> str:
    """One line where the dataset pins another mujoco than the installed one: trajectories differ between versions."""
    import importlib.metadata

    pinned = next((str(r).removeprefix("mujoco==") for r in raw.get("requirements") or () if str(r).startswith("mujoco==")), None)
    try:
        installed = importlib.metadata.version("mujoco")
    except importlib.metadata.PackageNotFoundError:
        installed = "none"
    if pinned is None or pinned == installed:
        return ""
    return f"recorded with mujoco {pinned}, installed is {installed}: returns may differ"
