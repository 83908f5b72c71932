"""Hosts on this machine: network namespaces with an address each, and a cable between every two of them that can be pulled out."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from .harness import WORKER, kill, wait_for


@dataclass(frozen=True)
class Host:
    """`prefix` makes a command run there; `namespace` is empty for the host of the test itself."""

    namespace: str
    address: str

    @property
    def prefix(self) -> list[str]:
        return ["ip", "netns", "exec", self.namespace] if self.namespace else []

    def ip(self, *words: str) -> str:
        return _ip(*(["-n", self.namespace] if self.namespace else []), *words)

    def port_to(self, other: Host) -> str:
        """The end of the cable to another host; named by both, as all those of this machine are seen from here."""
        return "-".join(["wf", *self.address.split(".")[1::2], other.address.rpartition(".")[2]])

    def pids(self) -> list[int]:
        return [int(pid) for pid in _ip("netns", "pids", self.namespace).split()]


def refusal() -> str:
    """Why there can be no hosts here; empty where there can."""
    probe = f"wf-probe-{os.getpid()}"
    try:
        _ip("netns", "add", probe)
    except (OSError, subprocess.CalledProcessError) as error:
        return str(getattr(error, "stderr", "") or error).strip()
    _ip("netns", "del", probe)
    return ""


class Network:
    """The hosts `here`, `a` and `b`, until `end`."""

    def __init__(self) -> None:
        spaces = {"here": "", "a": f"wf-{WORKER}a", "b": f"wf-{WORKER}b"}
        self.hosts = {name: Host(space, f"10.{77 + WORKER}.0.{last}") for last, (name, space) in enumerate(spaces.items(), 1)}
        self.end()  # what a test that was killed has left
        for host in self.hosts.values():
            if host.namespace:
                _ip("netns", "add", host.namespace)
                host.ip("link", "set", "lo", "up")
        for one, other in combinations(self.hosts.values(), 2):
            one.ip("link", "add", one.port_to(other), "type", "veth", "peer", "name", other.port_to(one), "netns", other.namespace)
            for near, far in ((one, other), (other, one)):
                near.ip("address", "add", near.address, "peer", far.address, "dev", near.port_to(far))
                near.ip("link", "set", near.port_to(far), "up")

    def cut(self, *pairs: str) -> None:
        """Pull out the cable between two hosts, `a-b`: neither hears of the other any more."""
        self._set("down", pairs)

    def heal(self, *pairs: str) -> None:
        self._set("up", pairs)

    def _set(self, state: str, pairs: Sequence[str]) -> None:
        for pair in pairs:
            one, other = (self.hosts[name] for name in pair.split("-"))
            other.ip("link", "set", other.port_to(one), state)

    def end(self) -> None:
        """Leave no process, no cable and no namespace."""
        there = _ip("netns", "list").split()
        for host in [host for host in self.hosts.values() if host.namespace in there]:
            for pid in host.pids():
                kill(pid)
            wait_for(lambda host=host: not host.pids(), seconds=60)
            for port in json.loads(host.ip("-json", "link", "show", "type", "veth") or "[]"):
                host.ip("link", "del", port["ifname"])  # with its other end, and at once
            _ip("netns", "del", host.namespace)


def _ip(*words: str) -> str:
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=True).stdout
