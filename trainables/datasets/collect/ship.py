"""Choose a learner's snapshots for the tiers, measure them as they are shipped (float16), and write the two files of the family."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from trainables import environments
from trainables.datasets.collect import policy
from trainables.datasets.collect.policy import Policy
from trainables.datasets.collect.record import from_unit
from trainables.datasets.collect.replay import of_buffer, read_buffer
from trainables.datasets.collect.train import FIRST_REPLAY
from trainables.environments import Reference
from trainables.errors import UserError, one_line
from trainables.simulation.evaluator import Evaluator

MEDIUM_SCORE = 45.0  # normalized, of version 0; D4RL's medium sets: halfcheetah 40.7, hopper 44.3, walker2d 62
MEDIUM_SHARE = 0.42  # of the expert's normalized score, from version 1 on: between a third and a half
REPLAY_TRANSITIONS = 100_000  # at most, of a shipped replay buffer: 4 MB
CANDIDATES = 6  # snapshots measured for each choice; the curve's five deterministic episodes only shortlist them
REPLAY_SNAPSHOTS = 18  # at most, for medium-replay; 20 snapshots of 40 kB stay under 1 MB
EPISODES = 20


def ship(run: Path, folder: Path | None = None, version: int = 0) -> Path:
    """Write `<family>.safetensors` and `<family>.json` from the snapshots that a training has left in `run` so far.

    The expert is the snapshot with the highest measured return. Medium is the one whose measured score is nearest to MEDIUM_SCORE, from
    version 1 on to MEDIUM_SHARE of the expert's, among those taken before the expert. From version 1 on medium-replay is the learner's
    own buffer up to the medium snapshot, read from `run`. Raises UserError where the run holds too little.
    """
    folder = folder or policy.folder(version)
    settings, curve = _read(run)
    environment = settings["env"]
    family, reference = environments.family_of(environment), environments.reference(environment)
    if family is None or reference is None:
        raise UserError(f"run {run} trained {environment!r}, which has no file in environments/")
    snapshots = {int(path.stem.removeprefix("actor-")): path for path in sorted(run.glob("actor-*.npz"))}
    score = {row["steps"]: float(reference.normalize(np.mean(row["returns"]))) for row in curve if row["steps"] in snapshots}
    if len(score) < 2:
        raise UserError(f"run {run} has {len(score)} snapshots with a line in curve.jsonl; shipping needs at least 2")

    evaluator = Evaluator(environment, [[1_000_000 + i for i in range(EPISODES)]])
    tensors = {step: _half(path) for step, path in snapshots.items()}
    measured = _Measured(evaluator, tensors, reference)
    shortlist = sorted(score, key=lambda step: -score[step])[:CANDIDATES]
    expert = max((step for step in shortlist if step != min(score)), key=lambda step: measured(step)["sampled"]["mean"])
    before = [step for step in score if step < expert]
    goal = MEDIUM_SHARE * measured(expert)["sampled"]["normalized"] if version else MEDIUM_SCORE
    near = sorted(before, key=lambda step: abs(score[step] - goal))[:CANDIDATES]
    medium = min(near, key=lambda step: abs(measured(step)["sampled"]["normalized"] - goal))
    shown = [] if version else _thin([step for step in sorted(score) if step <= medium], REPLAY_SNAPSHOTS)
    replay: dict[str, Any] = {"snapshots": shown}
    if version:
        path = next((path for path in (run / FIRST_REPLAY, run / "replay.pkl") if path.exists()), None)
        if path is None:
            raise UserError(f"run {run} holds no replay.pkl, of which medium-replay is made; only TQC leaves one")
        buffer = of_buffer(read_buffer(path), environments.make(environment).unwrapped, medium).thinned(REPLAY_TRANSITIONS)
        replay = {"replay": f"{family}-replay.safetensors", "transitions": int(buffer.spans.sum()), "episodes": len(buffer.episodes)}

    card = {
        "environment": environment,
        "algorithm": settings["algorithm"],
        "library": settings["library"],
        "settings": settings,
        "versions": {name: importlib.metadata.version(name) for name in ("gymnasium", "mujoco", "numpy")},
        "reference": {"random": reference.random, "expert": reference.expert, "source": reference.source},
        "trained_steps": max(score),
        "tiers": {
            "random": {"returns": {"sampled": measured(None)["sampled"]}},
            "medium": {"snapshot": medium, "returns": measured(medium)},
            "medium-replay": replay,
            "expert": {"snapshot": expert, "returns": measured(expert)},
        },
        "curve": [{"steps": row["steps"], "returns": [round(value, 2) for value in row["returns"]]} for row in curve],
    }
    from safetensors.numpy import save

    kept = sorted({*shown, medium, expert})
    shipped = {f"{step:08d}/{name}": value for step in kept for name, value in tensors[step].items()}
    folder.mkdir(parents=True, exist_ok=True)
    _replace(folder / f"{family}.safetensors", save(shipped))
    if version:
        _replace(folder / replay["replay"], save(buffer.tensors()))
    text = re.sub(r"\[[^][{}]*\]", lambda numbers: " ".join(numbers[0].split()), json.dumps(card, indent=1))  # lists on one line
    _replace(folder / f"{family}.json", (text + "\n").encode())
    evaluator.close()
    return folder / f"{family}.json"


class _Measured:
    """Returns of a snapshot over EPISODES fixed episodes, both sampled and by its mode; each is played once. None is uniform actions."""

    def __init__(self, evaluator: Evaluator, tensors: dict[int, dict[str, Any]], reference: Reference) -> None:
        self.evaluator, self.tensors, self.reference = evaluator, tensors, reference
        self.known: dict[int | None, dict[str, dict[str, float]]] = {}

    def __call__(self, step: int | None) -> dict[str, dict[str, float]]:
        if step not in self.known:
            self.known[step] = {"sampled": self._play(step, True)}
            if step is not None:
                self.known[step]["deterministic"] = self._play(step, False)
        return self.known[step]

    def _play(self, step: int | None, sampled: bool) -> dict[str, float]:
        rng = np.random.default_rng(0)
        actor = None if step is None else Policy.from_tensors(self.tensors[step])
        shape = (*self.evaluator.shape, self.evaluator.action_size)

        def act(observations: policy.Array) -> policy.Array:
            if actor is None:
                unit = rng.random(shape, np.float32) * 2 - 1
            else:
                unit = actor.act(observations, rng.standard_normal(shape, np.float32) if sampled else None)
            return from_unit(unit, self.evaluator.action_low, self.evaluator.action_high)

        returns = self.evaluator.run(act)
        mean = float(returns.mean())
        score = float(self.reference.normalize(mean))
        return {"mean": round(mean, 2), "std": round(float(returns.std()), 2), "normalized": round(score, 2), "episodes": EPISODES}


def _read(run: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    try:
        settings = json.loads((run / "settings.json").read_text())
        lines = (run / "curve.jsonl").read_text().splitlines()
        return settings, [json.loads(line) for line in lines if line.endswith("}")]  # the last line may still be being written
    except (OSError, ValueError) as error:
        raise UserError(f"{run} is not the folder of a training ({one_line(error)})") from None


def _half(path: Path) -> dict[str, Any]:
    with np.load(path) as file:
        return {name.removeprefix("params/"): file[name].astype(np.float16) for name in file.files}


def _thin(steps: list[int], limit: int) -> list[int]:
    """At most `limit` of the steps, evenly spread, the last one among them."""
    if len(steps) <= limit:
        return steps
    return [steps[i] for i in np.linspace(0, len(steps) - 1, limit).round().astype(int)]


def _replace(path: Path, content: bytes) -> None:
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    with open(scratch, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(path)
