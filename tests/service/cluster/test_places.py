"""The actor that sweeps of a cluster share its places through, on real Ray: what each hears, and that no sweep depends on it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from tests.service.conftest import ROOT, Command

PROGRAM = """
import json, os, signal, time
from types import SimpleNamespace
import ray
from service.cluster import ray_cluster, places
from service.planning.options import TrainingOptions
from service.scheduling import shares

class Sweep:
    def __init__(self):
        self.notes, self.share = [], None
    def wanted(self, kind): return 50
    def interruptible(self, stacks): return []
    def shared(self, share): self.share = share
    def not_shared(self, why): self.notes.append(why)

def sharing(name, **options):
    sweep = Sweep()
    return sweep, places.Sharing(name, name, TrainingOptions(device="cpu", **options), sweep, lambda: {"cpu": 6.0})

def until(what, *parts):
    # for some minutes at most, whatever else this machine does
    for _ in range(3000):
        for part in parts:
            part.step({}, {}, {}, ["cpu"])
        if what():
            return True
        time.sleep(0.1)
    return False

def actor():
    return ray.get_actor(places.NAME, namespace=places.NAMESPACE)

def pid(before=0):
    # of the actor; another one than `before`
    while True:
        try:
            found = ray.get(actor().__ray_call__.remote(lambda self: os.getpid()))
        except ray.exceptions.RayError:
            found = before
        if found != before:
            return found
        time.sleep(0.1)

places.REPORT_EVERY, shares.WAIT, found = 0.1, 0.5, {}
"""

BOTH = """
with ray_cluster.connect(TrainingOptions(device="cpu")):
    (one, first), (two, second) = sharing("one"), sharing("two", weight=2.0)
    first.begin(["cpu"])
    found["alone"] = until(lambda: one.share is not None, first) and first.most(["cpu"]) == float("inf")
    second.begin(["cpu"])
    found["both"] = until(lambda: one.share.places == {"cpu": 2} and two.share and two.share.places == {"cpu": 4}, first, second)
    found["others"] = [one.share.others[0].split()[0], two.share.others[0].split()[0]]
    found["most"] = [first.most(["cpu"]), second.most(["cpu"])]
    names = [actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True)]
    found["actors"] = names
    stacks, leaving = {id: SimpleNamespace(lead=SimpleNamespace(key=id)) for id in "abcd"}, []
    four = SimpleNamespace(step=lambda *_: leaving.extend(first.step(stacks, {}, {}, ["cpu"])))
    found["left places"] = until(lambda: len(leaving) == 2, four, second)
    found["leaving"] = leaving
    told = actor().__ray_call__.remote(lambda self: [demand.uses for demand in self._shares._demands.values()])
    found["uses"] = sorted(ray.get(told), key=len)
    before = pid()
    os.kill(before, signal.SIGKILL)
    pid(before)
    one.share = two.share = None
    found["again"] = until(lambda: one.share and one.share.places == {"cpu": 2}, first, second)
    second.end()
    found["left"] = until(lambda: one.share.others == (), first) and first.most(["cpu"]) == float("inf")
    found["notes"] = one.notes + two.notes
print(json.dumps(found))
"""

STRANGER = """
class Stranger:
    def other(self): pass

with ray_cluster.connect(TrainingOptions(device="cpu")):
    stranger = ray.remote(Stranger).options(name=places.NAME, namespace=places.NAMESPACE).remote()
    one, first = sharing("one")
    places.PATIENCE = places.FIRST = 1.0
    first.begin(["cpu"])
    until(lambda: one.notes, first)
    for _ in range(20):
        first.step({}, {}, {}, ["cpu"])
        time.sleep(0.1)
    found = {"notes": one.notes, "limited": first.most(["cpu"]) != float("inf")}
    first.end()
print(json.dumps(found))
"""


def ran(service: Command, program: str) -> Any:
    command = [sys.executable, "-c", PROGRAM + program]
    done = subprocess.run(command, cwd=ROOT, env=service.environment, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_two_sweeps_hear_what_each_may_use_and_an_actor_that_dies_is_told_again(service: Command) -> None:
    assert ran(service, BOTH) == {
        "alone": True, "both": True, "others": ["two", "one"], "most": [2, 4], "left places": True, "leaving": ["d", "c"],
        "uses": [{}, {"cpu": 4}], "actors": ["winnow-places"], "again": True, "left": True, "notes": [],
    }  # fmt: skip


def test_a_sweep_that_gets_no_answer_goes_on_without_a_limit_and_says_so_once(service: Command) -> None:
    found = ran(service, STRANGER)
    assert not found["limited"]
    (note,) = found["notes"]
    assert note.startswith("the sweeps of this cluster do not share it by weight for now (")
    assert note.endswith("): this one takes what Ray gives it")
