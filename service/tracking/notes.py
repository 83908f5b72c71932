"""The notes that MLflow's page shows under a run's name: what the run is, how it ended, and the commands for the next steps. Markdown."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from service.ledger.ledger import Event
from service.terminal.labels import algorithm_name, method_name
from service.terminal.markdown import block, code, plain
from trainables.trial import MAPPINGS, Trial
from trainables.trial.published import reward_shift

Line = Mapping[str, Any]
WORDS = {"leased": "in training", "planned": "waiting"}  # for states of the ledger
DETAILS = ("reason", "message")
SHOWN = 12  # values of an axis
EVALUATIONS = {"evaluated": "Last evaluation", "final": "Final episodes"}  # kinds of lines in the spool


def of_trial(trial: Trial, event: Event, lines: Sequence[Line]) -> str:
    """`event` is the trial's newest, `lines` are those of its spool; the text does not depend on the time of writing."""
    network = method_name(trial.method, trial.sparsity)
    title = f"**{algorithm_name(trial.algorithm)}, {network}**, on {code(trial.dataset)}, seed {trial.seed}, {trial.updates:,} updates."
    warnings = [f"Warning: {plain(text)}." for line in [line for line in lines if "warnings" in line][-1:] for text in line["warnings"]]
    revision = next((str(line["revision"]) for line in reversed(lines) if "revision" in line), "unknown")
    commands = [" ".join(f"{command_of(trial)}  # train it again, with code {revision}".splitlines())]
    if event.state == "done":
        key = trial.key
        commands = [
            f"winnow rollout {key} --video policy.mp4  # watch it",
            f"winnow export {key} --to policy  # use it",
            f"winnow promote {key}  # register it",
            *commands,
        ]
    else:
        commands.insert(0, f"winnow logs {trial.key}  # what happened")
    return "\n\n".join([title, _result(event, lines), *warnings, block("\n".join(commands), "sh")])


def of_sweep(name: str, trials: Sequence[Trial], table: str = "") -> str:
    """The axes of the grid and the commands that show its results; `table` is the text that `results` prints."""
    axes: dict[str, Callable[[Trial], str]] = {
        "dataset": lambda trial: trial.dataset,
        "algorithm": lambda trial: algorithm_name(trial.algorithm),
        "method": lambda trial: method_name(trial.method),
        "sparsity": lambda trial: f"{100 * trial.sparsity:g} %",
        "seed": lambda trial: str(trial.seed),
        "updates": lambda trial: f"{trial.updates:,}",
    }
    grid = "\n".join(f"- {axis}: {plain(_listed(list(dict.fromkeys(map(value, trials)))))}" for axis, value in axes.items())
    commands = "\n".join(f"winnow {command} {name}" for command in ("status", "results", "report"))
    parts = [f"**Sweep {plain(name)}**, {len(trials)} trials, one run each below this one.", grid, block(commands, "sh")]
    return "\n\n".join([*parts, *([block(table)] if table else [])])


def of_search(name: str, table: str) -> str:
    return f"**Adaptive sweep {plain(name)}**, one run per trial below this one.\n\n{block(table)}"


def command_of(trial: Trial) -> str:
    """The command that trains the trial without a cluster."""
    words = ["python", "-m", "trainables"]
    unless_given = {"reward_shift": reward_shift(trial.algorithm, trial.dataset)}  # the paper's, which the command would take
    for field in fields(Trial):
        value, option = getattr(trial, field.name), f"--{field.name.replace('_', '-')}"
        if field.name in MAPPINGS:
            words += [option, *(f"{name}={setting}".replace(" ", "") for name, setting in value.items())] if value else []
        elif value is True:
            words.append(option)
        elif not value == field.default == unless_given.get(field.name, field.default):
            words += [f"{option}={value}"] if str(value).startswith("-") else [option, str(value)]  # `-1e-05` alone would be an option
    return shlex.join(words)


def _result(event: Event, lines: Sequence[Line]) -> str:
    state = ": ".join(
        [WORDS.get(event.state, event.state), *(plain(str(event.detail[name])) for name in DETAILS if event.detail.get(name))]
    )
    evaluated = {line["kind"]: line for line in lines if line.get("returns")}  # the last of each kind
    if not evaluated or event.state == "leased":
        return f"State: {state}."
    scored = (f"{name}: {_scored(evaluated[kind])}." for kind, name in EVALUATIONS.items() if kind in evaluated)
    return " ".join([f"State: {state}.", *scored])


def _scored(evaluation: Line) -> str:
    returns, scores = evaluation["returns"], evaluation["scores"]
    score = f"normalized score **{sum(scores) / len(scores):.1f}**, " if scores else ""
    if successes := evaluation.get("successes"):
        score += f"success rate **{100 * sum(successes) / len(successes):.0f} %**, "
    when = f"mean of {len(returns)} episodes after {evaluation['update']:,} updates"
    return f"{score}return {sum(returns) / len(returns):.1f}, {when}"


def _listed(values: Sequence[str]) -> str:
    return ", ".join([*values[:SHOWN], *(["..."] if len(values) > SHOWN else [])])
