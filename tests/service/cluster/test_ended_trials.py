"""Tune's memory of what has ended, in a real run: it does not grow with the sweep, and the run ends as it should."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from service.ledger import manifest
from tests.service.conftest import ROOT

PROGRAM = """
import gc, json, sys
from functools import partial
from pathlib import Path
from service.driving.workers.listener import Fenced
from service.driving.session import Session
from service.planning.options import TrainingOptions
from service.planning.plan import make_plan
from service.planning.run_settings import RunSettings
from trainables.reports import Checkpointed, Finished

def nothing(stack, storage, **options):
    if stack.lead.seed == 3:
        raise ValueError("no")
    yield Checkpointed(stack.lead.updates)
    yield Finished(stack.lead.updates, 0.1, "none")

storage = Path(sys.argv[1])
overrides = ("datasets={dataset}", "seeds=0-9", "pruners=dense")
settings = RunSettings(overrides=overrides, options=TrainingOptions(device="cpu", stack_size=1))
session = Session(make_plan("smoke", settings, storage=storage), storage)
alive, ended = [], session.driver.ended

def count(stack, news):
    ended(stack, news)
    from service.cluster import ended_trials
    from ray.tune.experiment import Trial
    ended_trials.MANY = 3
    gc.collect()
    alive.append(sum(isinstance(each, Trial) for each in gc.get_objects()))

session.driver.ended = count
listen = partial(Fenced, permit=session.permit, origin={{"{dataset}": {{}}}}, checkpoint_every=50)
with session:
    session.driver.prepare()
    session.train(listen, nothing)
print(json.dumps(alive))
"""


def test_what_has_ended_is_forgotten_while_the_run_goes_on(tmp_path: Path, hopper: str) -> None:
    program = PROGRAM.format(dataset=hopper)
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    alive = json.loads(done.stdout.splitlines()[-1])
    assert len(alive) == 10
    # One trains on each core, one waits, and as many as are forgotten at once have ended; one more is on its way out.
    entries = manifest.read(tmp_path, "smoke").entries.values()
    assert [entry.state for entry in entries] == ["failed" if entry.trial.seed == 3 else "done" for entry in entries]
    assert alive[-1] <= alive[4] + 2 < 10, alive
