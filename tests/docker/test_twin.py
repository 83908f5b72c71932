"""The process-level twin runs what compose.yaml says, with nothing changed but places."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from .twin import COMPOSE, ROOT, VARIABLE, Twin

GIVEN = dict.fromkeys(("RAY_AUTH_TOKEN", "POSTGRES_PASSWORD", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "given")
# What may have another value on one host: where things are, and how much of a small machine a worker takes.
PLACES = {"--port", "--address", "--dashboard-host", "--dashboard-port", "--host", "--num-cpus"}
# What raylets need besides, since they share a host.
BESIDE = {
    "--node-ip-address", "--temp-dir", "--dashboard-agent-listen-port", "--dashboard-agent-grpc-port", "--metrics-export-port",
    "--runtime-env-agent-port",
}  # fmt: skip
SERVICES = ("head", "worker", "mlflow", "buckets", "postgres")


@pytest.fixture(scope="module")
def twin() -> Twin:
    return Twin(7500, Path("/tmp/nowhere"), Path("/usr/bin"))


def compose() -> dict[str, dict[str, object]]:
    return dict(yaml.safe_load(VARIABLE.sub(lambda found: found[3] if found[2] == "-" else "given", COMPOSE.read_text())))["services"]


def flags(words: list[str]) -> dict[str, str]:
    """`--name=value` by name; other words by themselves."""
    return {word.partition("=")[0]: word.partition("=")[2] for word in map(str, words)}


@pytest.mark.parametrize("name", ["head", "worker", "mlflow"])
def test_the_flags_are_the_same(name: str, twin: Twin) -> None:
    asked, run = flags(compose()[name]["command"]), flags(twin.command(name).words)  # type: ignore[arg-type]
    assert set(run) - set(asked) <= BESIDE
    assert set(asked) <= set(run)
    assert {flag: value for flag, value in asked.items() if flag not in PLACES} == {flag: run[flag] for flag in asked if flag not in PLACES}


def test_postgres_and_the_buckets(twin: Twin) -> None:
    asked, run = compose()["postgres"]["command"], twin.command("postgres").words
    assert run[1 : len(asked)] == asked[1:]  # type: ignore[arg-type,index]
    assert Path(run[0]).name == "postgres"
    assert twin.command("buckets").words[2:] == compose()["buckets"]["command"][2:]  # type: ignore[index]


@pytest.mark.parametrize("name", SERVICES)
def test_the_variables_are_the_same(name: str, twin: Twin) -> None:
    asked, run = compose()[name]["environment"], twin.command(name).environment
    assert set(run) - set(asked) <= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"}  # type: ignore[call-overload]
    assert set(asked) <= set(run)  # type: ignore[call-overload]
    for variable in ("RAY_AUTH_MODE", "WINNOW_STORAGE", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "RAY_worker_niceness"):
        assert asked.get(variable) == run.get(variable)  # type: ignore[attr-defined]


def test_everything_is_on_loopback(twin: Twin) -> None:
    words = [word for name in (*SERVICES, "objects") for word in [*twin.command(name).words, *twin.command(name).health]]
    words += [value for name in SERVICES for value in twin.command(name).environment.values()]
    strange = [word for word in words if any(name in word for name in ("0.0.0.0", "head:", "postgres:5432", "objects:", "http://mlflow:"))]
    assert strange == []


def test_workers_do_not_share_an_address_or_a_port(twin: Twin) -> None:
    own = [flags(twin.command(name, number).words) for name, number in (("head", 1), ("worker", 1), ("worker", 2))]
    for flag in BESIDE:
        assert len({found[flag] for found in own}) == 3
    ports = [int(value) for found in own for flag, value in found.items() if flag.endswith("port")]
    assert len(ports) == len(set(ports))
    assert all(7500 <= port < 7530 for port in ports)


def test_secrets_are_new_each_time_and_in_no_command() -> None:
    first, second = (Twin(7500, Path("/tmp/nowhere"), Path("/usr/bin")) for _ in range(2))
    assert not set(first.secrets.values()) & set(second.secrets.values())
    words = " ".join(word for name in SERVICES for word in first.command(name).words)
    assert not [name for name, secret in first.secrets.items() if secret in words]


def test_the_image_sets_what_the_twin_sets(twin: Twin) -> None:
    text = (ROOT / "docker" / "Dockerfile").read_text()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        assert f"{name}={twin.environment[name]}" in text
    assert all(name in text for name in ("MINARI_DATASETS_PATH=", "WINNOW_CACHE="))
