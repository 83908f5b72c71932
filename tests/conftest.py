"""What all tests share: one thread per process, and a small real dataset."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: two threads beside another process collapse

import pytest

from service.tracking.sql import database
from tests import tables
from tests.costs import Costs
from tests.warm import Warm
from trainables.errors import UserError
from trainables.native import build
from trainables.storage import cache

HOPPER = "test/hopper/random-v0"
LONG = (
    "test_run.py",
    "test_search_run.py",
    "test_submit.py",
    "test_security.py",
    "test_tracking.py",
    "test_boundaries.py",
    "test_object_storage.py",
)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Costs())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take minutes first: what is begun last, on one of two processes, must be short."""
    items.sort(key=lambda item: item.path.name not in LONG)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[Any]:
    """What is imported and collected stays: no garbage is looked for in the meantime, and none among it later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.collect()
        gc.freeze()


@pytest.fixture(autouse=True)
def same_draws() -> None:
    """What a test draws of torch's own generator does not depend on the tests before it; torch is not imported for this."""
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


@pytest.fixture(scope="session")
def hopper_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of Minari datasets with HOPPER: 40 episodes of Hopper-v5 under uniformly random actions, about 800 transitions."""
    import gymnasium
    import minari
    import numpy as np
    from minari.data_collector import EpisodeBuffer

    folder = tmp_path_factory.mktemp("minari")
    env = gymnasium.make("Hopper-v5")
    env.action_space.seed(0)
    episodes = []
    for number in range(40):
        observations, steps, over = [env.reset(seed=number)[0]], [], False
        while not over:
            action = env.action_space.sample()
            observation, reward, terminated, truncated, _ = env.step(action)
            observations.append(observation)
            steps.append((action, reward, terminated, truncated))
            over = terminated or truncated
        actions, rewards, terminations, truncations = (np.array(values) for values in zip(*steps, strict=True))
        episodes.append(EpisodeBuffer(number, None, None, np.array(observations), actions, rewards, terminations, truncations, None))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(folder))
        about = dict.fromkeys(("author", "author_email", "code_permalink", "algorithm_name", "description"), "a test's")
        minari.create_dataset_from_buffers(HOPPER, buffer=episodes, env="Hopper-v5", eval_env="Hopper-v5", **about)
    env.close()
    return folder


@pytest.fixture(scope="session", autouse=True)
def table_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """$WINNOW_CACHE for all tests: prepared tables and compiled kernels are made once and not in anyone's home."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        if "PYTEST_XDIST_WORKER" in os.environ:
            patch.setenv("WINNOW_CACHE", str(tmp_path_factory.getbasetemp().parent / "kernels"))
            share_kernels(folder)
        patch.setenv("WINNOW_CACHE", str(folder))
        yield folder


def share_kernels(folder: Path) -> None:
    """Copy the compiled kernels to `folder`; of the processes of a run, the first one compiles them and the others wait for it."""
    shared = cache.private(cache.root())
    lock = os.open(shared, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with contextlib.suppress(UserError):  # where there is no compiler, the tests say what that means
        shutil.copy2(build._compiled(build.simd()), folder)
    os.close(lock)


@pytest.fixture(scope="session")
def of_the_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of a run share."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session", autouse=True)
def tables_of_mlflow(of_the_run: Path) -> Iterator[None]:
    """MLflow's tables are copied."""

    def new(file: Path, client: Any) -> Path:
        tables.read_migrations_once()
        return tables.copied(of_the_run, file, client)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "_new", new)
        yield


@pytest.fixture(scope="session")
def warm(hopper_folder: Path, table_cache: Path, of_the_run: Path) -> Iterator[Warm]:
    """`warm([sys.executable, "-m", "service", ...], cwd=..., env=...)`: as subprocess.run, by a fork that needs to import nothing."""
    made = Warm(os.environ | {"MINARI_DATASETS_PATH": str(hopper_folder), "WINNOW_CACHE": str(table_cache)}, of_the_run)
    yield made
    made.close()


@pytest.fixture
def own_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of the making: MLflow makes its tables each time."""
    monkeypatch.setattr(database, "_new", tables.MAKE)


@pytest.fixture
def hopper(hopper_folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The id of the small Hopper dataset, with MINARI_DATASETS_PATH set so that it is found."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(hopper_folder))
    return HOPPER
