"""What MLflow's page says under a run's name: what it is, how it ended, and the commands that go on from there. Markdown."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from service.ledger.ledger import Event
from trainables.trial import MAPPINGS, Trial

Line = Mapping[str, Any]
WORDS = {"leased": "in training", "planned": "waiting"}  # for states of the ledger
DETAILS = ("reason", "message")


def of_trial(trial: Trial, event: Event, lines: Sequence[Line]) -> str:
    """`event` is the trial's newest, `lines` are those of its spool; the text does not depend on the time of writing."""
    pruned = "dense" if trial.pruner == "dense" else f"pruned by {trial.method} to {100 * trial.sparsity:g} %"
    title = f"**{trial.algorithm}, {pruned}**, on `{trial.dataset}`, seed {trial.seed}, {trial.updates:,} updates."
    warnings = [f"Warning: {text}." for line in [line for line in lines if "warnings" in line][-1:] for text in line["warnings"]]
    revision = next((str(line["revision"]) for line in reversed(lines) if "revision" in line), "unknown")
    commands = [f"{command_of(trial)}  # again, with code {revision}"]
    if event.state == "done":
        key = trial.key
        commands = [
            f"python -m service rollout {key} --video policy.mp4  # watch it",
            f"python -m service export {key} --to policy  # use it",
            f"python -m service promote {key}  # register it",
            *commands,
        ]
    else:
        commands.insert(0, f"python -m service logs {trial.key}  # what happened")
    return "\n\n".join([title, _result(event, lines), *warnings, "\n".join(["```sh", *commands, "```"])])


def of_sweep(name: str, trials: Sequence[Trial], table: str = "") -> str:
    """`table` is what `results` prints."""
    axes = ("dataset", "algorithm", "pruner", "sparsity", "seed", "updates")
    values = {axis: list(dict.fromkeys(str(getattr(trial, axis)) for trial in trials)) for axis in axes}
    told = "\n".join(f"- {axis}: {', '.join(found[:12])}{', ...' if len(found) > 12 else ''}" for axis, found in values.items())
    commands = "\n".join(f"python -m service {command} {name}" for command in ("status", "results", "report"))
    parts = [f"**Sweep {name}**, {len(trials)} trials, one run each below this one.", told, f"```sh\n{commands}\n```"]
    return "\n\n".join([*parts, *([f"```\n{table}\n```"] if table else [])])


def of_search(name: str, table: str) -> str:
    return f"**Adaptive sweep {name}**, one run per trial below this one.\n\n```\n{table}\n```"


def command_of(trial: Trial) -> str:
    """The command that trains the trial without a cluster."""
    words = ["python", "-m", "trainables"]
    for field in fields(Trial):
        value, option = getattr(trial, field.name), f"--{field.name.replace('_', '-')}"
        if field.name in MAPPINGS:
            words += [option, *(f"{name}={setting}".replace(" ", "") for name, setting in value.items())] if value else []
        elif value is True:
            words.append(option)
        elif value != field.default:
            words += [option, str(value)]
    return shlex.join(words)


def _result(event: Event, lines: Sequence[Line]) -> str:
    state = ": ".join([WORDS.get(event.state, event.state), *(str(event.detail[name]) for name in DETAILS if event.detail.get(name))])
    evaluated = {line["kind"]: line for line in lines if line.get("returns")}  # the last of each kind
    if not evaluated or event.state == "leased":
        return f"State: {state}."
    titles = {"evaluated": "Last evaluation", "final": "Final episodes"}
    return " ".join([f"State: {state}.", *(f"{title}: {_scored(evaluated[kind])}." for kind, title in titles.items() if kind in evaluated)])


def _scored(evaluation: Line) -> str:
    returns, scores = evaluation["returns"], evaluation["scores"]
    score = f"normalized score **{sum(scores) / len(scores):.1f}**, " if scores else ""
    when = f"mean of {len(returns)} episodes after {evaluation['update']:,} updates"
    return f"{score}return {sum(returns) / len(returns):.1f}, {when}"
