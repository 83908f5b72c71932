"""A small dataset of each family of environments, stored as Minari's hub stores its own: read, played, scored, exported and filmed.

    pip install 'winnow-rl[robotics,video]'
    python -m benchmarks.learning.families                   # the table of docs/data.md, in about a minute
    python -m benchmarks.learning.families record --to DIR   # only record; then MINARI_DATASETS_PATH=DIR

Random actions, so that it takes seconds: about formats and environments, not about scores. The settings of the mazes and of the kitchen are
those of the hub's datasets (the scripts in Farama-Foundation/minari-dataset-generation-scripts).
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.tables import fill, markdown
from trainables import environments

PAGE = Path(__file__).parents[2] / "docs" / "data.md"
HEAD = (
    "family",
    "environment",
    "observations",
    "actions",
    "scores 0 and 100",
    "stored as",
    "read",
    "played",
    "scored",
    "exported",
    "filmed",
)
OGBENCH = "npz"  # OGBench's own format; the others are Minari's
ROBOTICS, EPISODES, STEPS, UPDATES = "gymnasium_robotics", 3, 10, 200
# The hub's mazes go on at the goal, which stays where it is; policies are evaluated from r to g.
CONTINUING: Mapping[str, Any] = {"continuing_task": True, "reset_target": False}
FROM_R_TO_G = [[1, 1, 1, 1, 1], [1, "r", 0, 0, 1], [1, 1, 1, 0, 1], [1, "g", 0, 0, 1], [1, 1, 1, 1, 1]]
KITCHEN = {
    "tasks_to_complete": ["microwave", "kettle", "light switch", "slide cabinet"],
    "remove_task_when_completed": False,
    "terminate_on_tasks_completed": False,
}


@dataclass(frozen=True)
class Family:
    """The environment of a recording, its settings there, those in which policies are evaluated where they differ, and the format."""

    environment: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    evaluated: Mapping[str, Any] | None = None
    stored: str = "hdf5"


FAMILIES = {
    "PointMaze": Family(f"{ROBOTICS}:PointMaze_UMaze-v3", CONTINUING, {**CONTINUING, "maze_map": FROM_R_TO_G}),
    "AntMaze": Family(f"{ROBOTICS}:AntMaze_UMaze-v4", CONTINUING, {**CONTINUING, "maze_map": FROM_R_TO_G}),
    "Adroit door": Family(f"{ROBOTICS}:AdroitHandDoor-v1"),
    "Adroit hammer": Family(f"{ROBOTICS}:AdroitHandHammer-v1", stored="arrow"),
    "Adroit pen": Family(f"{ROBOTICS}:AdroitHandPen-v1", stored="parquet"),
    "Adroit relocate": Family(f"{ROBOTICS}:AdroitHandRelocate-v1"),
    "Kitchen": Family(f"{ROBOTICS}:FrankaKitchen-v1", KITCHEN),
    "Ant": Family("Ant-v5"),
    "HalfCheetah": Family("HalfCheetah-v5"),
    "Hopper": Family("Hopper-v5"),
    "Humanoid": Family("Humanoid-v5", stored="arrow"),
    "Inverted pendulum": Family("InvertedPendulum-v5"),
    "Inverted double pendulum": Family("InvertedDoublePendulum-v5"),
    "Pusher": Family("Pusher-v5", stored="parquet"),
    "Reacher": Family("Reacher-v5"),
    "Swimmer": Family("Swimmer-v5"),
    "Walker2d": Family("Walker2d-v5"),
    "OGBench's layout": Family("Swimmer-v5", stored=OGBENCH),
}


def dataset_of(name: str) -> str:
    """`made/adroit-door/random-v0`."""
    return f"made/{re.sub('[^a-z0-9]+', '-', name.lower())}/random-v0"


def record(name: str, steps: int, episodes: int = EPISODES) -> str:
    """Record episodes of `steps` time steps, the time limit, below $MINARI_DATASETS_PATH; returns the dataset's id."""
    family, dataset = FAMILIES[name], dataset_of(name)
    limit = {environments.TIME_LIMIT: steps}
    env = environments.make(environments.written(family.environment, {**family.settings, **limit}))
    env.action_space.seed(0)
    recorded = [_episode(env, number) for number in range(episodes)]
    if family.stored == OGBENCH:
        _import_npz(recorded, environments.written(family.environment, limit), dataset)
    else:
        _write_minari(recorded, env, family, limit, dataset)
    env.close()
    return dataset


def _episode(env: Any, seed: int) -> dict[str, Any]:
    """Observations of T + 1 steps, and successes where they are reported; T actions, rewards and ends, under random actions."""
    observation, _ = env.reset(seed=seed)
    seen, steps, reached, over = [observation], [], [False], False
    while not over:
        action = env.action_space.sample()
        observation, reward, terminated, truncated, info = env.step(action)
        seen.append(observation)
        steps.append((action, float(reward), terminated, truncated))
        reached.append(info.get("success"))
        over = terminated or truncated
    names = ("actions", "rewards", "terminations", "truncations")
    columns = dict(zip(names, (np.array(values) for values in zip(*steps, strict=True)), strict=True))
    infos = {} if None in reached else {"infos": {"success": np.array(reached)}}
    return {"observations": _columns(seen), **columns, **infos}


def _columns(values: Sequence[Any]) -> Any:
    return {name: _columns([each[name] for each in values]) for name in values[0]} if isinstance(values[0], dict) else np.array(values)


def _write_minari(recorded: list[dict[str, Any]], env: Any, family: Family, limit: Mapping[str, int], dataset: str) -> None:
    import minari
    from minari.data_collector import EpisodeBuffer

    played = None
    if family.evaluated is not None:
        played = environments.make(environments.written(family.environment, {**family.evaluated, **limit}))
    about = {"author": "Winnow", "author_email": "none", "code_permalink": "benchmarks/learning/families.py"}
    about |= {"algorithm_name": "random actions", "description": "Small, for tests of formats and environments."}
    buffers = [EpisodeBuffer(id=number, seed=number, **episode) for number, episode in enumerate(recorded)]
    with warnings.catch_warnings():  # that there may be no eval_env, as in many of the hub's
        warnings.simplefilter("ignore")
        minari.create_dataset_from_buffers(dataset, buffers, env=env, eval_env=played, data_format=family.stored, **about)
    if played is not None:
        played.close()


def _import_npz(recorded: list[dict[str, Any]], environment: str, dataset: str) -> None:
    """As OGBench has transitions: one after the other, with `terminals` where a trajectory ends and `masks` 0 where the value does."""
    from trainables.datasets import ogbench

    columns: dict[str, list[Any]] = {}
    for each in recorded:
        last = np.arange(len(each["rewards"])) == len(each["rewards"]) - 1
        part = {"observations": each["observations"][:-1], "next_observations": each["observations"][1:]}
        part |= {"actions": each["actions"], "rewards": each["rewards"], "masks": ~each["terminations"], "terminals": last}
        for name, values in part.items():
            columns.setdefault(name, []).append(values)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "random-v0.npz"
        np.savez_compressed(file, **{name: np.concatenate(values).astype(np.float32) for name, values in columns.items()})
        ogbench.import_file(file, environment, dataset)


def row(name: str, folder: Path, steps: int, updates: int) -> list[str]:
    """The family's row of the table; it ends with the message of the first stage that is refused."""
    from trainables.datasets.minari_store import read_metadata
    from trainables.errors import UserError

    family, dataset = FAMILIES[name], record(name, steps)
    about = read_metadata(dataset)
    kind = f"Dict, {about.observation_size} numbers" if about.observation_names else str(about.observation_size)
    reference = environments.reference(family.environment)
    scores = reference.source.partition(" (")[0] if reference else "none"
    cells = [name, f"`{family.environment.rpartition(':')[2]}`", kind, str(about.action_size), scores, family.stored]
    try:
        cells += stages(dataset, folder, updates)
    except UserError as error:
        cells.append(f"no: {error}")
    return cells


def stages(dataset: str, folder: Path, updates: int) -> Iterator[str]:
    """`read`, `played`, `scored`, `exported` and `filmed`, one after the other: a cell for each that works."""
    from service.delivery.export import export
    from service.delivery.finished import find, means
    from service.delivery.rollout import rollout
    from service.delivery.standalone.numpy_policy import load
    from trainables.datasets.table import load_table
    from trainables.datasets.table_evaluator import evaluator_of
    from trainables.trial import Trial

    table = load_table(dataset)
    yield "yes"
    evaluator_of(table, [[0]]).close()
    small = {"hidden": (32, 32), "batch_size": 32}
    trial = Trial(
        dataset=dataset, algorithm="td3_bc", pruner="snip", sparsity=0.9, updates=updates, evaluations=1, episodes=2, hyper=small,
        calibration_batches=1, calibration_size=32,
    )  # fmt: skip
    _train(folder, trial)
    yield "yes"
    with find(trial.key, folder) as finished:
        yield ", ".join(name.replace("_", " ") for name, value in means(finished.last).items() if np.isfinite(value))
    exported = export(trial.key, folder / "exports" / trial.key, folder)
    env = environments.make(table.environment)
    observation, _ = env.reset(seed=0)
    action = load(str(exported / "policy.safetensors"))(observation)
    assert env.action_space.contains(action.astype(env.action_space.dtype)), action
    env.close()
    yield "yes"
    film = folder / f"{dataset.split('/')[1]}.mp4"
    (episode,) = rollout(trial.key, folder, video=film, output=lambda line: None)
    assert episode["total"] == episode["evaluated"], episode
    assert film.stat().st_size > 0
    yield "yes"


def _train(storage: Path, trial: Any) -> None:
    """Train a trial in this process, and leave behind what a sweep does."""
    from service.ledger.manifest import Manifest
    from service.spool.writer import StackSpool
    from trainables.reports import Finished
    from trainables.run import run_stack
    from trainables.trial import Stack

    stack, manifest = Stack((trial,)), Manifest(storage, "families")
    manifest.plan([trial])
    manifest.record("leased", {trial.key: {"size": 1}})
    listener = StackSpool(stack, storage, {trial.dataset: {}}, trial.updates)
    for report in run_stack(stack, storage):
        listener(report)
    assert isinstance(report, Finished)
    listener.close()
    manifest.record("done", {trial.key: {"execution": report.execution, "seconds": report.seconds, "device": "cpu"}})
    manifest.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command")
    recorder = commands.add_parser("record")
    recorder.add_argument("--to", type=Path, required=True)
    table = commands.add_parser("table")
    table.add_argument("--page", type=Path, default=PAGE, help="the page that has a place for the table")
    table.add_argument("--updates", type=int, default=UPDATES, help="of the policy that is played, scored, exported and filmed")
    for command in (recorder, table):
        command.add_argument("--steps", type=int, default=STEPS, help="time steps of an episode")
    given = parser.parse_args()
    if given.command == "record":
        given.to.mkdir(parents=True, exist_ok=True)
        os.environ["MINARI_DATASETS_PATH"] = str(given.to)
        for name in FAMILIES:
            print(record(name, given.steps), flush=True)
        return
    from service.delivery.video import choose_renderer

    choose_renderer()  # before anything imports mujoco
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MINARI_DATASETS_PATH"] = f"{folder}/minari"
        os.environ.setdefault("WINNOW_CACHE", f"{folder}/cache")
        rows = []
        for name in FAMILIES:
            rows.append(row(name, Path(folder) / "storage", getattr(given, "steps", STEPS), getattr(given, "updates", UPDATES)))
            print(" | ".join(rows[-1]), flush=True)
    page: Path = getattr(given, "page", PAGE)
    fill(page, "families", markdown([list(HEAD), *rows]))


if __name__ == "__main__":
    main()
