"""Ray, and nothing but Ray: connects to a cluster or starts one here, and trains stacks with Ray Tune, one ray_trial per stack.

Tune schedules and places. It is never asked to restore: its snapshots lag and can be wrong, and the manifest decides what runs.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from service.cluster import address, ray_process

# isort: split
import ray
from ray import tune
from ray._private.ray_constants import PROCESS_TYPE_GCS_SERVER, PROCESS_TYPE_RAYLET
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from service.cluster.ended_trials import Forgetful, Silent
from service.cluster.places import Sharing
from service.cluster.tune_stacks import Conductor, Source, TuneEvents, let_commit
from service.planning import devices
from service.planning.gpu_stacks import UNKNOWN, GpuStacks, groups
from service.planning.options import TrainingOptions
from service.planning.plan import STACK_SIZE
from service.planning.update_cost import Kind
from service.scheduling.shares import CORE
from service.storage import paths
from service.terminal import signals
from trainables.errors import UserError, one_line
from trainables.trial import Trial
from trainables.tune_trainable import StackTrainable, yields

MODEL = "accelerator_type:"  # before a GPU's model, in the names of Ray's resources
AHEAD = 1  # stacks that wait in Ray for a free worker, so that a warm one gets its next stack at once
LITTLE = 0.01  # of a GPU, for a question
ANSWER = 60.0  # seconds to wait for a node's answer
WATCH = 0.5  # seconds between two looks whether an embedded Ray is alive
RECOUNT = 5.0  # seconds between two looks at how large the cluster is
COMMIT_AT_LIMIT = 60.0  # seconds that workers have to commit what they have done when the run has reached a limit
COMMIT = 1.2  # seconds after a signal that workers have to commit what they have done; service/terminal/signals.py waits for no more


class Cluster:
    """A connection to Ray; made by `connect`."""

    def __init__(self, options: TrainingOptions) -> None:
        """`options.device` is what to train on: `cpu`, `cuda` or `all`."""
        self.options, self.device, self.gpu_stacks = options, options.device, GpuStacks(options)
        self._looked, self._devices = -RECOUNT, dict[str, float]()
        self._dead = False

    def kinds(self) -> dict[str, Kind]:
        """The kinds of places of a run on every device: cores, and GPUs by the model that Ray knows them by."""
        gpus = (Kind(name=name, device="cuda", most=STACK_SIZE["cuda"], share=self.gpu_stacks.share(name)) for name in gpus_by_model())
        return {kind.name: kind for kind in (Kind(name=CORE, device="cpu", most=STACK_SIZE["cpu"]), *gpus)}

    def slots_by_kind(self) -> Mapping[str, int]:
        """How many stacks fit on the places of each kind now."""
        return self.gpu_stacks.slots(self.devices())

    def divide_by(self, gpu_stacks: GpuStacks, trials: Sequence[Trial]) -> None:
        """From here on stacks have the shares of GPUs that `gpu_stacks` says. On GPUs alone `trials` decide them now; a pool of several
        kinds does so itself."""
        self.gpu_stacks = gpu_stacks
        if self.device == "cpu":
            return
        gpu_stacks.memory = self._memory()
        if self.device == "cuda":
            for kind in (kind for kind in self.kinds().values() if kind.name != CORE):
                gpu_stacks.divide(kind, groups(trials, {}), self.devices())

    def _memory(self) -> Callable[[str, Trial, int], int]:
        """How many trials like one fit into a stack where so many share a GPU of a kind; asked of a GPU of each. Where others have all of
        them for now, as many as without a question.

        Raises UserError for GPUs that torch cannot use."""
        from trainables.training.memory import free_bytes, members_that_fit  # imports torch

        asked = {ray.remote(num_gpus=LITTLE, resources=of_model(kind))(free_bytes).remote(): kind for kind in gpus_by_model()}
        answered, busy = ray.wait([*asked], num_returns=len(asked), timeout=ANSWER) if asked else ([], [])
        for answer in busy:
            ray.cancel(answer)
        try:
            free = {asked[answer]: ray.get(answer) for answer in answered}
        except ray.exceptions.RayTaskError as error:
            raise UserError(f"torch cannot use a GPU of the cluster ({one_line(error.cause)}); {devices.INSTEAD}") from None
        return lambda kind, trial, stacks: members_that_fit(trial, free[kind] // stacks) if kind in free else UNKNOWN

    def devices(self) -> Mapping[str, float]:
        """How many cores, and GPUs of each model, there are now."""
        if time.monotonic() - self._looked > RECOUNT:
            self._devices, self._looked = {CORE: ray.cluster_resources().get("CPU", 0.0), **gpus_by_model()}, time.monotonic()
        return self._devices

    @property
    def slots(self) -> int:
        """How many stacks fit on the cluster as it is now; nodes come and go."""
        devices = self.devices()
        on_gpus = sum(int(count) * self._stacks() for name, count in devices.items() if name != CORE)
        return max(1, on_gpus if self.device == "cuda" else int(devices[CORE]))

    def fit(self) -> Callable[[Trial], int] | None:
        """How many trials like one a stack is best made of, on any of the GPUs; None on CPUs."""
        if self.device != "cuda":
            return None
        kinds = [kind for kind in self.kinds().values() if kind.name != CORE]
        return lambda trial: min(self.gpu_stacks.members(kind, trial) for kind in kinds)

    def place(self) -> dict[str, Any]:
        """What the journal says of a stack's place in a run on one device: its kind where there is one alone, and its share of a GPU."""
        if self.device == "cpu":
            return {"on": CORE}
        models = [*gpus_by_model()]
        return {"share": self._share(), **({"on": models[0]} if len(models) == 1 else {})}

    def _stacks(self) -> int:
        """On a GPU of any kind, in a run that takes them as one."""
        return min((self.gpu_stacks.stacks(name) for name in gpus_by_model()), default=1)

    def _share(self) -> float:
        return max((self.gpu_stacks.share(name) for name in gpus_by_model()), default=1.0)

    @contextlib.contextmanager
    def watched(self, leave: Callable[[str, int], None]) -> Iterator[None]:
        """Inside, `leave(why, exit code)` is called once if an embedded Ray dies: Ray itself would notice after up to a minute."""
        over, node = threading.Event(), getattr(ray._private.worker, "_global_node", None)
        kinds = {PROCESS_TYPE_GCS_SERVER: "head", PROCESS_TYPE_RAYLET: "raylet"}
        known = {
            info.process: kinds[kind] for kind, infos in (node.all_processes if node else {}).items() for info in infos if kind in kinds
        }

        def watch() -> None:
            while known and not over.wait(WATCH):
                for process, kind in known.items():
                    if (code := process.poll()) is not None:
                        self._dead = True
                        return leave(f"Ray's {kind} has died{f' by signal {-code}' if code < 0 else ''}", 1)
            return None

        with signals.blocked():
            threading.Thread(target=watch, name="watches Ray", daemon=True).start()
        try:
            yield
        finally:
            over.set()

    def train(
        self, name: str, conductor: Conductor, storage: Path, listen: Callable[..., Any], work: Callable[..., Any] | None = None
    ) -> None:
        """Train what the conductor hands out until it has no more.

        `listen` and `work`: see trainables/tune_trainable.py. What the conductor raises ends the training and is raised here. After a
        signal the workers commit what they have done.
        """
        run = f"{name}-{uuid4().hex}"
        mixed = self.device == "all"
        source = Source(
            conductor,
            lambda: self.options.max_concurrent or (sum(self.slots_by_kind().values()) if mixed else self.slots + AHEAD),
            self.slots_by_kind if mixed else None,
        )
        if address.given():
            source.sharing = Sharing(run, name, self.options, conductor, self.devices, self.gpu_stacks.stacks)
            source.here = self._kinds_here
        scheduler = Forgetful()
        trainable = tune.with_parameters(
            StackTrainable, storage=str(storage), listen=listen, options=self.options, work=work, run=run, shared=bool(source.sharing)
        )
        tuner = tune.Tuner(
            tune.with_resources(
                trainable, self._request if mixed else {"cpu": 1, "gpu": self._share()} if self.device == "cuda" else {"cpu": 1}
            ),
            tune_config=tune.TuneConfig(
                num_samples=-1,
                search_alg=source,
                scheduler=scheduler,
                # A warm worker saves seconds per stack; on a GPU the next stack could find the last one's memory still held.
                reuse_actors=self.device == "cpu",
                trial_name_creator=lambda ray_trial: f"stack-{ray_trial.trial_id}",
                trial_dirname_creator=lambda ray_trial: f"stack-{ray_trial.trial_id}",
            ),
            run_config=tune.RunConfig(
                name=f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}",
                storage_path=str(paths.ray_results(storage)),
                callbacks=[
                    TuneEvents(source, partial(let_commit, run, source, COMMIT_AT_LIMIT), partial(yields, run), scheduler),
                    Silent(),
                ],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                failure_config=tune.FailureConfig(max_failures=0),  # tried again by the conductor, which knows why it failed
                verbose=0,
            ),
        )
        try:
            with source.shares():
                tuner.fit()
        except KeyboardInterrupt:
            with contextlib.suppress(Exception):  # Ray may have died: then the checkpoints are what there is
                if not self._dead:
                    let_commit(run, source, COMMIT)
            raise
        except Exception:
            # What the conductor raised is raised below as it was; Tune wraps some of it in errors of its own.
            if source.trouble is None:
                raise
        if source.trouble is not None:
            raise source.trouble

    def _kinds_here(self) -> list[str]:
        """The kinds of place that this run uses."""
        return [kind for kind in self.devices() if self.device == "all" or (kind == CORE) == (self.device == "cpu")]

    def _request(self, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """What a stack needs of Ray, by the kind of its place."""
        kind = config["kind"]
        gpu = {} if kind == CORE else {"GPU": self.gpu_stacks.share(kind), **of_model(kind)}
        return tune.PlacementGroupFactory([{"CPU": 1.0, **gpu}])


def gpus_by_model() -> dict[str, float]:
    """GPUs of the nodes that are there, MIG slices by their names; `gpu` where Ray does not know the model."""
    found: dict[str, float] = {}
    for node in ray.nodes():
        if node["Alive"] and (count := node["Resources"].get("GPU", 0)):
            names = [name for prefix in (devices.SLICE, MODEL) for name in node["Resources"] if name.startswith(prefix)]
            model = names[0].removeprefix(devices.SLICE).removeprefix(MODEL) if names else "gpu"
            found[model] = found.get(model, 0.0) + count
    return found


def of_model(kind: str) -> dict[str, float]:
    """The resource that only nodes with GPUs of that model have."""
    return {} if kind == "gpu" else {(devices.SLICE if " MIG " in kind else MODEL) + kind: 0.001}


@contextlib.contextmanager
def connect(options: TrainingOptions, *, search: bool = False) -> Iterator[Cluster]:
    """The running cluster that $RAY_ADDRESS names (`ray job submit` sets it), else an embedded one on loopback. `search`: one that has to
    take one kind of device.

    Raises UserError where GPUs are asked for and the cluster has none."""
    with ray_process.running():
        for name in ("ray", "ray.tune", "ray.train"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # failures are reported by their class, not as tracebacks
        how: dict[str, Any] = {"search": search, "execution": options.execution, "usable": _torch_uses_gpus if address.given() else None}
        yield Cluster(replace(options, device=devices.choose(options.device, ray.cluster_resources().get("GPU", 0), **how)))


def _torch_uses_gpus() -> bool:
    """Whether torch can use GPUs on a node that has some: the driver may run on another one, with torch's CPU build."""
    node = next(node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU"))
    asked = ray.remote(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=True))(devices.torch_uses_gpus).remote()
    return bool(ray.get(asked)) if ray.wait([asked], timeout=ANSWER)[0] else devices.torch_uses_gpus()
