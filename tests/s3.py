"""A real S3 server as a process of its own on loopback: moto's, which keeps its objects in memory."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SECRET = "wJalrXUtnFEMI-not-to-be-shown"


class Server:
    """Runs from the constructor to `end`; `environment` leads clients to it."""

    def __init__(self, log: Path, host: str = "127.0.0.1", **more: str) -> None:
        with socket.socket() as probe:
            probe.bind((host, 0))
            port = probe.getsockname()[1]
        command = [sys.executable, "-m", "moto.server", "-H", host, "-p", str(port)]
        with log.open("w") as file:
            self._process = subprocess.Popen(command, env=os.environ | more, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
        self.environment = {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "winnow", "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/nowhere",
            "AWS_SHARED_CREDENTIALS_FILE": "/nowhere",
        }  # fmt: skip
        until = time.monotonic() + 600
        while True:
            try:
                socket.create_connection((host, port)).close()
                break
            except OSError:
                assert self._process.poll() is None and time.monotonic() < until, log.read_text()  # noqa: PT018
                time.sleep(0.05)

    def client(self) -> Any:
        import boto3

        given = {name.lower(): self.environment[name.upper()] for name in ("aws_access_key_id", "aws_secret_access_key")}
        return boto3.client("s3", endpoint_url=self.environment["AWS_ENDPOINT_URL"], region_name="us-east-1", **given)

    def bucket(self, name: str) -> str:
        """A new bucket's address."""
        self.client().create_bucket(Bucket=name)
        return f"s3://{name}"

    def stop(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


def serving(folder: Path) -> Iterator[Server]:
    """For a fixture to `yield from`: a server that logs to `folder` and ends with the tests that share it."""
    made = Server(folder / "log")
    yield made
    made.end()
