"""What may be imported by what, seen from a fresh interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import trainables

ROOT = Path(trainables.__file__).parents[1]


def run(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_science_runs_where_ray_and_mlflow_cannot_be_imported(hopper: str) -> None:
    """Importing a name that is None in sys.modules raises ImportError."""
    program = f"""
import sys
for name in ("ray", "mlflow", "optuna"):
    sys.modules[name] = None
from trainables import plugins, run
for folder in ("algorithms", "pruners", "environments"):
    for name in plugins.names(folder):
        plugins.load(folder, name)
from trainables.__main__ import main
sys.exit(main("--dataset {hopper} --algorithm bc --pruner snip --sparsity 0.5 --updates 4 --evaluations 1 --episodes 1".split()))
"""
    assert "normalized score" in run(program)


def test_planning_imports_nothing_heavy() -> None:
    program = """
import sys
from trainables import environments, plugins, reports
from trainables.datasets import local
from trainables.storage import trial_files
from trainables.__main__ import parser
from search_spaces.sweep import expand, load_sweep, sweep_names
counts = {name: len(expand(load_sweep(name))) for name in sweep_names()}
parser()
environments.reference("HalfCheetah-v5")
local.local_datasets()
heavy = {"torch", "ray", "mlflow", "numpy", "gymnasium", "minari", "h5py", "mujoco", "optuna", "matplotlib"} & sys.modules.keys()
assert not heavy, f"imported: {sorted(heavy)}"
print(counts)
"""
    assert "quickstart" in run(program)
