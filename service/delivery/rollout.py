"""`winnow rollout`: plays episodes with a finished trial's policy, and optionally films them."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.delivery.finished import find
from service.delivery.video import Video
from service.terminal.display import Display
from service.terminal.waiting import waiting

if TYPE_CHECKING:
    from trainables.evaluation.rollout import Episode


def rollout(
    wanted: str,
    storage: Path,
    *,
    episodes: int = 1,
    video: Path | None = None,
    sweep: str | None = None,
    output: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """Play episodes; passes a line for each, and their mean, to `output`. Returns the episodes, each with the return that it had in the
    trial's last evaluation.

    Raises UserError for a trial that is unknown or not done and, before the first episode, for a video that cannot be written.
    """
    with find(wanted, storage, sweep) as finished, contextlib.ExitStack() as stack:
        recording = stack.enter_context(Video(video)) if video else None
        with waiting("loading the policy"):
            from trainables.evaluation.rollout import play  # imports torch
        evaluated = finished.last.get("returns", [])[:episodes]
        output(f"{finished.trial.key}  {finished.trial.name} in {finished.about['environment']}")
        display, rows, pictures = Display(sys.stderr), [], 0

        def frame(picture: Any, fps: int) -> None:
            nonlocal pictures
            assert recording is not None
            recording.frame(picture, fps)
            pictures += 1
            if pictures % 100 == 0:
                display.show(f"{pictures:,} pictures drawn")

        for number, episode in enumerate(play(finished.folder, finished.trial, episodes, frame if recording else None)):
            known = evaluated[number] if number < len(evaluated) else None
            rows.append(asdict(episode) | {"episode": number, "evaluated": known})
            output(line(number, episode, known))
    if episodes > 1:
        mean = sum(row["total"] for row in rows) / episodes
        scores = [row["score"] for row in rows]
        reported = any(row["success"] is not None for row in rows)  # else nobody knows; an episode without a word is a failure then
        for row in rows if reported else ():
            row["success"] = row["success"] or False
        output(
            f"mean of {episodes}: return {mean:.2f}"
            + ("" if math.isnan(scores[0]) else f", normalized score {sum(scores) / episodes:.2f}")
            + (f", success rate {100 * sum(row['success'] for row in rows) / episodes:.0f} %" if reported else "")
        )
    if recording:
        output(f"video: {recording.path}")
    return rows


def line(number: int, episode: Episode, known: float | None) -> str:
    """`episode 0 (seed 12): return 3.14, normalized score 2.71, 1,000 steps; as in the last evaluation`."""
    score = "" if math.isnan(episode.score) else f", normalized score {episode.score:.2f}"
    score += "" if episode.success is None else f", {_reached(episode.success)}"
    text = f"episode {number} (seed {episode.seed}): return {episode.total:.2f}{score}, {episode.steps:,} steps"
    if known is None:
        return text
    return f"{text}; " + ("as in the last evaluation" if known == episode.total else f"the last evaluation had {known:.2f}")


def _reached(success: bool | float) -> str:
    return "success" if success == 1 else f"{100 * success:.0f} % of its tasks" if success else "no success"
