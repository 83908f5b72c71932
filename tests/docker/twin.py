"""compose.yaml's services as commands for one host without containers: what must differ there, and nothing else."""

from __future__ import annotations

import os
import re
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker" / "compose.yaml"
OUTSIDE = ("AWS_", "RAY_", "MLFLOW_", "WINNOW_", "MINARI_", "PG", "POSTGRES_")  # variables of the caller's that must not get in
VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^{}]*))?\}")


def read(given: Mapping[str, str]) -> dict[str, Any]:
    """compose.yaml with its variables replaced, as `docker compose` does it; KeyError for one that is needed and not given."""

    def value(found: re.Match[str]) -> str:
        name, kind, text = found.groups()
        return given.get(name) or (text if kind == "-" else given[name])

    return dict(yaml.safe_load(VARIABLE.sub(value, COMPOSE.read_text())))


@dataclass(frozen=True)
class Command:
    """How a service runs: its words, its own environment and its health check (empty: it ends by itself)."""

    words: list[str]
    environment: dict[str, str]
    health: list[str]


class Twin:
    """compose.yaml's services at this host's addresses: ports from `port` on, files under `folder`."""

    def __init__(self, port: int, folder: Path, programs: Path) -> None:
        self.port, self.folder, self._programs = port, folder, programs
        self.store, self.mlflow, self.dashboard = (f"http://127.0.0.1:{port + offset}" for offset in (4, 1, 2))
        self.secrets = {name: secrets.token_hex(16) for name in ("RAY_AUTH_TOKEN", "POSTGRES_PASSWORD", "AWS_SECRET_ACCESS_KEY")}
        given = {**self.secrets, "AWS_ACCESS_KEY_ID": "winnow", "AWS_ENDPOINT_URL": self.store, "WINNOW_CPUS": "1"}
        self._services = read(given)["services"]
        # What the image sets; the rest of the caller's environment is as good as the container's.
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        places = {"MINARI_DATASETS_PATH": str(folder / "minari"), "WINNOW_CACHE": str(folder / "cache"), "HOME": str(folder)}
        kept = {name: value for name, value in os.environ.items() if not name.startswith(OUTSIDE) and name != "PYTHONPATH"}
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.environment = kept | threads | places | {"PATH": path, "TMPDIR": str(folder)}

    def command(self, name: str, number: int = 1) -> Command:
        """Of the service `name`; `number` tells the workers apart."""
        service, port = self._services[name], self.port
        agent = port + 10 + 4 * {"head": 0}.get(name, number)
        moved = {
            "head:6379": f"127.0.0.2:{port}", "--port=6379": f"--port={port}",
            "http://mlflow:5000": self.mlflow, "127.0.0.1:5000": f"127.0.0.1:{port + 1}", "--port=5000": f"--port={port + 1}",
            "127.0.0.1:8265": f"127.0.0.1:{port + 2}", "--dashboard-port=8265": f"--dashboard-port={port + 2}",
            "postgres:5432": f"127.0.0.1:{port + 3}", "--port=5432": f"--port={port + 3}",
            "host=0.0.0.0": "host=127.0.0.1", "127.0.0.1:52365": f"127.0.0.1:{agent}",
            "/opt/winnow/buckets.py": str(ROOT / "docker" / "buckets.py"),
        }  # fmt: skip

        def here(text: str) -> str:
            for old, new in moved.items():
                text = text.replace(old, new)
            return text

        words = [here(str(word)) for word in service["command"]]
        environment = {name: here(str(value)) for name, value in service["environment"].items()}
        if words[0] == "ray":
            words += self._beside_each_other(name, number, agent)
            environment["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "1"  # whatever its name: raylets may be on addresses of loopback
        if name == "postgres":
            words[0] = str(self._programs / words[0])
            words += ["-D", str(self.folder / "postgres"), "-c", f"port={port + 3}", "-c", "listen_addresses=127.0.0.1"]
            words += ["-c", f"unix_socket_directories={self.folder / 'postgres'}"]
        if name == "objects":
            words = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port + 4)]
            return Command(words, {}, ["python", "-c", f"import urllib.request as u; u.urlopen('{self.store}/moto-api/')"])
        health = [here(word) for word in service.get("healthcheck", {}).get("test", ["CMD"])[1:]]
        if health[:1] == ["pg_isready"]:
            health[0] = str(self._programs / "pg_isready")
        return Command(words, environment, health)

    def _beside_each_other(self, name: str, number: int, agent: int) -> list[str]:
        """What raylets need that share a host: an address, ports and a folder of their own."""
        own = 2 if name == "head" else 2 + number  # not 127.0.0.1, which Ray would replace by the host's own address
        agents = ("dashboard-agent-listen-port", "dashboard-agent-grpc-port", "metrics-export-port", "runtime-env-agent-port")
        given = [f"--{flag}={agent + offset}" for offset, flag in enumerate(agents)]
        # Each unpacks a job's code for itself, and removes what it finds in its place.
        return [f"--node-ip-address=127.0.0.{own}", *given, f"--temp-dir={self.folder / f'ray{own}'}"]
