"""What may be typed after `python -m service`: the commands, their options, an example of each, and what Tab completes."""

from __future__ import annotations

import argparse
from pathlib import Path

from service.cli import completion
from trainables import plugins
from trainables.datasets.__main__ import add_commands

EXAMPLES = """examples:
  python -m service plan quickstart
  python -m service run quickstart --set seeds=0,1,2 --set updates=50000
  python -m service submit mujoco_sparsity --follow
  python -m service export td3_bc/halfcheetah-medium/snip@95/s0 --to cheetah
"""
# command -> what it does, and an example of its own
COMMANDS = {
    "plan": ("what a run would do; starts nothing", "plan quickstart --set seeds=0,1,2"),
    "run": ("run a sweep, or go on with it, then show its results", "run quickstart --set updates=50000"),
    "resume": ("run, and try again what failed", "resume quickstart"),
    "submit": ("run a sweep as a job of a Ray cluster", "submit quickstart --address http://127.0.0.1:8265 --follow"),
    "status": ("the state of every trial of a sweep", "status quickstart --watch"),
    "stop": ("ask the driver of a sweep to leave, wherever it runs", "stop quickstart"),
    "sync": ("bring MLflow up to date by hand", "sync quickstart"),
    "verify": ("prove that MLflow holds exactly what the trials wrote", "verify quickstart"),
    "results": ("table and figure from what MLflow holds", "results quickstart"),
    "report": ("statistics, figures and a page over one sweep or several, from MLflow alone", "report quickstart mujoco_sparsity"),
    "overlap": ("how alike the masks are, between seeds and between pruners", "overlap quickstart"),
    "logs": ("the story of one trial", "logs 3f2a"),
    "export": ("a trained policy as a folder that needs no Winnow", "export bc/halfcheetah-expert/snip@95/s0 --to cheetah --format onnx"),
    "promote": ("a trained policy as a version of a model in MLflow's registry", "promote 3f2a --name cheetah"),
    "rollout": ("let a trained policy play, and film it", "rollout 3f2a --episodes 3 --video cheetah.mp4"),
    "archive": ("finished trials as one file, for another storage", "archive quickstart --to quickstart.zip"),
    "adopt": ("take the trials of such a file into this storage as done", "adopt quickstart.zip"),
    "datasets": ("the datasets here: list, collect, import, check", "datasets collect winnow/hopper/medium-v0"),
    "doctor": ("what this machine lacks for sweeps, and how to mend it", "doctor --storage s3://bucket/prefix"),
}
ONE_SWEEP = ("plan", "run", "resume", "submit", "status", "stop", "sync", "verify", "results", "overlap")
TRAINING = ("plan", "run", "resume", "submit")
TRAINED = ("export", "promote", "rollout")  # commands about a trial that is done
FORMATS = ("compact", "onnx", "torch")


def parser() -> argparse.ArgumentParser:
    """Every command imports what it needs when it runs: `plan` answers before torch or ray could be imported."""
    raw = argparse.RawDescriptionHelpFormatter
    about = "The commands: python -m service COMMAND ..."
    top = argparse.ArgumentParser(prog="python -m service", description=about, epilog=EXAMPLES, formatter_class=raw)
    commands = top.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for name, (text, example) in COMMANDS.items():
        sub = commands.add_parser(name, help=text, description=text, epilog=f"example:\n  python -m service {example}", formatter_class=raw)
        if name == "datasets":
            add_commands(sub)
            continue
        _subject(sub, name)
        sub.add_argument(
            "--storage", help="folder, or s3://bucket/prefix, for everything that is written (default $WINNOW_STORAGE, else ./storage)"
        )
        if name in (*TRAINING, "results"):
            _completed(
                sub.add_argument(
                    "--set", dest="settings", action="append", default=[], metavar="NAME=VALUE", help="in place of the sweep's value"
                ),
                completion.settings,
            )
        if name in TRAINING:
            _training(sub)
        if name in ("run", "resume", "submit", "results"):
            help = "database of an adaptive sweep's studies (default $WINNOW_STUDY_STORAGE, else study.log in the sweep's folder)"
            sub.add_argument("--study-storage", metavar="URL", help=help)
        if name in ("plan", "status", "sync", "verify", "results", "overlap", "logs", "rollout", "doctor"):
            sub.add_argument("--json", action="store_true", help="for programs instead of people")
        if name == "status":
            sub.add_argument("--watch", action="store_true", help="again and again, until nothing is left to do")
        if name == "submit":
            sub.add_argument("--address", help="the cluster's job server (default $RAY_API_SERVER_ADDRESS, else http://127.0.0.1:8265)")
            sub.add_argument("--follow", action="store_true", help="show the job's output until it ends, and leave with its success")
    return top


def _subject(sub: argparse.ArgumentParser, name: str) -> None:
    """What the command is about: a sweep, several, a trial."""
    if name in ONE_SWEEP:
        _completed(sub.add_argument("sweep", help="a file of search_spaces/, e.g. quickstart"), completion.sweeps)
    elif name in ("report", "archive"):
        help = "sweeps that MLflow holds, reported together" if name == "report" else "sweeps whose finished trials are wanted"
        _completed(sub.add_argument("sweeps", nargs="+", metavar="SWEEP", help=help), completion.sweeps)
        if name == "report":
            sub.add_argument("--to", type=Path, metavar="FOLDER", help="where to write (default reports/ in the storage)")
        else:
            sub.add_argument("--to", type=Path, metavar="FILE.zip", required=True, help="the file to write; an older one is replaced")
    elif name == "adopt":
        sub.add_argument("file", type=Path, metavar="FILE.zip", help="what `archive` wrote")
    elif name == "logs":
        help = "a trial's key, the beginning of one, or its name, e.g. bc/halfcheetah-expert/snip@95/s0"
        _completed(sub.add_argument("trial", help=help), completion.trials)
    elif name in TRAINED:
        help = "a trial's name, its key or the beginning of one, or the id of its MLflow run"
        _completed(sub.add_argument("trial", metavar="RUN", help=help), completion.trials)
        _completed(sub.add_argument("--sweep", help="the sweep whose trial it is, where several have one of that name"), completion.sweeps)
        {"export": _export, "promote": _promote, "rollout": _rollout}[name](sub)


def _export(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--to", type=Path, metavar="FOLDER", required=True, help="the folder to write; an older export there is replaced")
    help = "compact: the kept weights, for numpy (default); onnx: for any ONNX runtime; torch: a state dict, removed weights as zeros"
    sub.add_argument("--format", choices=FORMATS, default="compact", help=help)


def _promote(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--name", metavar="MODEL", help="the registered model (default: algorithm and data, e.g. td3_bc-halfcheetah-medium)")


def _rollout(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--episodes", type=_positive, default=1, metavar="N", help="the first N of the trial's evaluations (default 1)")
    sub.add_argument("--video", type=Path, metavar="FILE.mp4", help="film them; needs no screen")


def _training(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    size = "most trials trained as one model (default: CPU 1 to 4, by how many there are; GPU what its memory holds)"
    sub.add_argument("--stack-size", type=_positive, help=size)
    sub.add_argument("--retry-failed", action="store_true", help="trials that failed are tried again, as in `resume`")
    sub.add_argument("--fresh", action="store_true", help="also train what another sweep of this storage has done, apart from it")
    sub.add_argument("--max-concurrent", type=_positive, metavar="N", help="most stacks at a time (default: what fits)")
    sub.add_argument("--gpu-fraction", type=_fraction, default=0.5, metavar="F", help="share of a GPU that a stack takes (default 0.5)")
    choices = ("auto", *plugins.names("execution"))
    sub.add_argument("--execution", choices=choices, default="auto", help="how masked layers are computed")
    sub.add_argument("--tf32", action="store_true", help="a GPU may round the factors of matrix products to 10 bits")
    sub.add_argument("--checkpoint-every", type=_positive, default=5_000, metavar="UPDATES")


def _completed(action: argparse.Action, completer: completion.Completer) -> None:
    """Tab offers what `completer` knows."""
    action.completer = completer  # type: ignore[attr-defined]


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def _fraction(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise ValueError
    return value
