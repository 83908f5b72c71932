"""The batch script of `submit --slurm`: what it says, what is refused, and that no secret is in it. tests/faults runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from service.__main__ import main
from service.cluster import slurm
from service.cluster.slurm import Slurm, minutes, script
from service.planning.options import TrainingOptions
from service.planning.run_settings import RunSettings
from tests.faults.support.slurm import options
from trainables import project
from trainables.errors import UserError

PLANTED = "hunter2hunter2"


@dataclass
class Answer:
    """What a command returned and printed."""

    code: int
    out: str
    err: str


Submit = Callable[..., Answer]


@pytest.fixture
def submit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Submit:
    """`submit ...` in an empty folder, with a program `sbatch` of some lines, and variables set."""
    monkeypatch.chdir(tmp_path)
    project.root.cache_clear()

    def run(*words: str, sbatch: str = "", **environment: str) -> Answer:
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / "sbatch").write_text(f"#!/bin/sh\n{sbatch or 'exit 9'}\n")
        (tmp_path / "bin" / "sbatch").chmod(0o755)
        given = {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}", "WINNOW_REVISION": "abc123"} | environment
        with monkeypatch.context() as patch:
            for name, value in given.items():
                patch.setenv(name, value)
            code = main(["submit", *words])
        shown = capsys.readouterr()
        return Answer(code, shown.out, shown.err)

    return run


def test_the_script_says_what_was_asked_for_and_bash_takes_it(submit: Submit, tmp_path: Path) -> None:
    words = ("--tasks=8%4", "--partition=gpu", "--time=1-12", "--gres=gpu:a100:2", "--account=lab", "--cpus-per-task=6")
    more = ("--sbatch=mail-type=END", "--sbatch=exclusive", "--setup=module load cuda", "--set=seeds=0,1", "--device=cuda")
    places = {"WINNOW_STORAGE": "/lab/with space", "MLFLOW_TRACKING_URI": "http://mlflow.lab:5000"}
    done = submit("quickstart", "--slurm", "--dry-run", *words, *more, **places)
    assert done.code == 0, done.err
    said = options(done.out)
    assert said == {
        "job-name": "winnow-quickstart", "array": "0-7%4", "output": f"{tmp_path}/slurm/%x-%A_%a.log", "nodes": "1", "ntasks": "1",
        "partition": "gpu", "time": "1-12", "gres": "gpu:a100:2", "account": "lab", "cpus-per-task": "6", "signal": "B:USR1@120",
        "open-mode": "append", "export": "NONE", "requeue": "", "mail-type": "END", "exclusive": "",
    }  # fmt: skip
    assert not (tmp_path / "slurm").exists(), "a dry run writes nothing"
    lines = done.out.splitlines()
    assert lines.index("module load cuda") < lines.index("export WINNOW_STORAGE='/lab/with space'") < lines.index("sweep=quickstart")
    assert next(line for line in lines if line.startswith("unset RAY_ADDRESS"))
    (run,) = [line for line in lines if "-m winnow run" in line]
    assert run == (
        f'{sys.executable} -m winnow run "$sweep" --max-concurrent="$SLURM_CPUS_ON_NODE" --set=seeds=0,1 --device=cuda &'
    )  # fmt: skip
    assert subprocess.run(["bash", "-n"], input=done.out, capture_output=True, text=True, check=True).stderr == ""


def test_a_limit_on_stacks_is_not_replaced_by_the_number_of_cpus() -> None:
    text = script("quickstart", RunSettings(options=TrainingOptions(max_concurrent=3)), Slurm())
    assert "--max-concurrent=3" in text
    assert "SLURM_CPUS_ON_NODE" not in text


def test_no_secret_is_in_the_script_whatever_the_environment_holds(submit: Submit) -> None:
    secrets = dict.fromkeys(("AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_TOKEN", "RAY_AUTH_TOKEN", "WANDB_API_KEY", "DB_PASSWORD"), PLANTED)
    done = submit("quickstart", "--slurm", "--dry-run", **secrets)
    assert done.code == 0
    assert PLANTED not in done.out + done.err
    address = f"postgresql://me:{PLANTED}@db/winnow"
    for name in ("MLFLOW_TRACKING_URI", "WINNOW_STUDY_STORAGE"):
        refused = submit("quickstart", "--slurm", "--dry-run", **{name: address})
        assert (refused.code, refused.out) == (2, "")
        assert refused.err == (
            f"error: {name} holds a secret, which SLURM shows and stores; set it in the file of --env-file instead\n"
        )  # fmt: skip


def test_sbatch_gets_the_script_and_none_of_its_own_variables(submit: Submit, tmp_path: Path) -> None:
    lines = f'test -z "$SBATCH_EXPORT" || exit 1; cp "$2" {tmp_path}/seen; echo "42;lab"'
    done = submit("quickstart", "--slurm", "--tasks=2", sbatch=lines, SBATCH_EXPORT="ALL", MLFLOW_TRACKING_URI="")
    assert done.code == 0, done.err
    assert done.out.splitlines() == [
        f"job 42 submitted, of {tmp_path}/slurm/winnow-quickstart.sh; its output: tail -F slurm/winnow-quickstart-42_0.log",
        "end it: scancel 42",
        "note: several hosts should not share MLflow's SQLite file; MLFLOW_TRACKING_URI names a server (docs/cluster.md)",
    ]
    assert (tmp_path / "seen").read_text() == (tmp_path / "slurm" / "winnow-quickstart.sh").read_text()


def test_json_says_the_same_to_programs(submit: Submit, tmp_path: Path) -> None:
    done = submit("quickstart", "--slurm", "--json", sbatch="echo 42")
    assert json.loads(done.out) == {
        "job": "42", "script": f"{tmp_path}/slurm/winnow-quickstart.sh", "output": "tail -F slurm/winnow-quickstart-42_0.log",
        "end": "scancel 42",
    }  # fmt: skip


def test_the_values_of_the_private_file_arrive_as_they_stand(submit: Submit, tmp_path: Path) -> None:
    """No shell reads them: this password would be cut at `$$`, run as a command from `&` on, and printed."""
    private = tmp_path / "private"
    private.write_text('# of the lab\n\nWINNOW_STUDY_STORAGE=postgresql://u:pa$$w&rd@h/db\r\nA=\'two words\'\nB="$HOME"\nC=x="y"\nD=')
    private.chmod(0o600)
    done = submit("quickstart", "--slurm", "--dry-run", "--env-file=private")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    reader = lines[lines.index(next(line for line in lines if line.startswith("secrets()"))) : lines.index("}") + 1]
    (call,) = [line for line in lines if line.startswith("secrets ")]
    shown = 'printf "%s|" "$WINNOW_STUDY_STORAGE" "$A" "$B" "$C" "${D-unset}"'
    found = subprocess.run(["bash", "-c", "\n".join([*reader, call, shown])], capture_output=True, text=True, check=True, env={})
    assert (found.stdout, found.stderr) == ('postgresql://u:pa$$w&rd@h/db|two words|$HOME|x="y"||', "")


def test_a_private_file_with_other_lines_is_refused_without_showing_them(submit: Submit, tmp_path: Path) -> None:
    (tmp_path / "private").write_text(f"A=1\nexport {PLANTED}\n")
    (tmp_path / "private").chmod(0o600)
    done = submit("quickstart", "--slurm", "--dry-run", "--env-file=private")
    wanted = "error: line 2 of --env-file private is not of the form NAME=VALUE, e.g. AWS_SECRET_ACCESS_KEY=...\n"
    assert (done.code, done.out, done.err) == (2, "", wanted)


def test_what_sbatch_refuses_is_one_line(submit: Submit, tmp_path: Path) -> None:
    lines = "echo 'sbatch: error: Batch job submission failed: Invalid account' >&2; exit 1"
    done = submit("quickstart", "--slurm", sbatch=lines)
    wanted = f"error: sbatch refused {tmp_path}/slurm/winnow-quickstart.sh: sbatch: error: Batch job submission failed: Invalid account\n"
    assert (done.code, done.out, done.err) == (2, "", wanted)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--time=4:00:00"], "--time is a SLURM option; add --slurm"),
        (["--dry-run"], "--dry-run is a SLURM option; add --slurm"),
        (["--slurm", "--follow"], "--follow shows a Ray job's output, but --slurm starts its own Ray in each task; use one or the other"),
        (["--slurm", "--time=4"], "--time '4' is not a SLURM time of 5 minutes or more, e.g. 90, 4:00:00 or 2-12"),
        (["--slurm", "--time=1h"], "--time '1h' is not a SLURM time of 5 minutes or more, e.g. 90, 4:00:00 or 2-12"),
        (["--slurm", "--gres=gpu 1"], "--gres 'gpu 1' is empty or holds a space, a quote or a backslash"),
        (["--slurm", "--sbatch=mail type"],
         "--sbatch 'mail type' is not of the form NAME or NAME=VALUE, without spaces, e.g. mail-type=END"),
        (["--slurm", "--sbatch=export=ALL"],
         "--sbatch 'export=ALL': export is set by `submit --slurm` itself, or has an option of its own there"),
        (["--slurm", "--setup=a\nb"], "--setup takes one line of shell, which is not empty"),
        (["--slurm", f"--setup=curl https://me:{PLANTED}@lab"],
         "'curl https://***@lab' holds a secret, which SLURM shows and stores; put it into a file for --env-file"),
        (["--slurm", "--notify=https://hooks.lab/T1/B2"],
         "the address of --notify is its secret, which SLURM shows and stores; set WINNOW_NOTIFY in the file of --env-file"),
        (["--slurm", "--dry-run", "--json"], "--json does not go with --dry-run or --local, which submit nothing"),
        (["--slurm", "--env-file=nothing"], "--env-file nothing cannot be read (No such file or directory)"),
        (["--slurm", "--env-file=open"], "--env-file open can be read by others; `chmod 600 open` makes it private"),
        (["--slurm", "--logs=a b"], "--logs 'a b' holds a space or another character that SLURM or a shell would read"),
        (["--slurm", "--tasks=2", "--fresh"],
         "a sweep with --fresh has one driver, so --tasks 2 is more than the 1 that it can use; give that one more CPUs or GPUs"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)  # fmt: skip
def test_bad_input_is_one_line(words: list[str], said: str, submit: Submit, tmp_path: Path) -> None:
    (tmp_path / "open").write_text("TOKEN=1\n")
    (tmp_path / "open").chmod(0o644)
    done = submit("quickstart", *words, sbatch="echo 1")
    assert (done.code, done.out, done.err) == (2, "", f"error: {said}\n")
    assert not (tmp_path / "slurm").exists(), "nothing is written"


@pytest.mark.parametrize("name", ["my project", "100%", "a#b"])
def test_a_working_folder_whose_name_a_directive_cannot_hold_is_refused(
    name: str, submit: Submit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    done = submit("quickstart", "--slurm", "--dry-run")
    said = f"--logs 'slurm' is '{tmp_path / name}/slurm' here, which SLURM cannot take; give a folder without spaces or %"
    assert (done.code, done.out, done.err) == (2, "", f"error: {said}\n")
    assert submit("quickstart", "--slurm", "--dry-run", f"--logs={tmp_path}/slurm").code == 0


def test_without_sbatch_it_says_where_to_submit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match="no sbatch here; submit on a host of the cluster, or try the script here with --local"):
        slurm.submit("quickstart", RunSettings(), Slurm(folder=tmp_path))


def test_an_adaptive_sweep_has_one_task() -> None:
    with pytest.raises(UserError, match="an adaptive sweep has one driver, so --tasks 3 is more than the 1 that it can use"):
        script("td3bc_adaptive", RunSettings(), Slurm(tasks=3))


@pytest.mark.parametrize(
    ("text", "wanted"), [("90", 90), ("30:30", 30.5), ("4:00:00", 240), ("2-12", 3600), ("1-01:30", 1530), ("1-00:00:30", 1440.5)]
)
def test_times_of_slurm(text: str, wanted: float) -> None:
    assert minutes(text) == wanted
