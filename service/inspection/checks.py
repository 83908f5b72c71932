"""What `service doctor` looks at. A check takes the storage root and yields findings; it starts nothing and removes what it writes."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal
from urllib.error import HTTPError, URLError
from urllib.parse import SplitResult, urlsplit
from urllib.request import urlopen

from service.storage import guarantees, paths, s3
from service.tracking.connection import sqlite_file

CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"
PACKAGES = ("torch", "numpy", "gymnasium", "mujoco", "minari", "ray", "mlflow", "optuna")
GB = 1 << 30
LITTLE, TOO_LITTLE = 5 * GB, GB  # bytes free: worth a word, and not enough for a dataset's table
PORTS = {6379: "Ray's head (--port)", 8265: "its job server (--dashboard-port)", 5000: "MLflow (--port)"}
PATIENCE = 5.0  # seconds for a server to answer
# Databases that MLflow's client opens itself: their port, and the module that SQLAlchemy takes where the address names none.
DATABASES = {"postgresql": (5432, "psycopg2"), "mysql": (3306, "MySQLdb"), "mssql": (1433, "pyodbc")}


@dataclass(frozen=True)
class Finding:
    """What was looked at, how it is, in words, and how to mend it where it is not well."""

    what: str
    state: Literal["ok", "warn", "fail"]
    told: str
    mend: str = ""


def versions(storage: Path) -> Iterator[Finding]:
    """Against constraints.txt, where the code lies beside it: the hosts of a cluster must have the same."""
    lines = CONSTRAINTS.read_text().splitlines() if CONSTRAINTS.exists() else []
    pinned = dict(line.split("#")[0].strip().split("==") for line in lines if "==" in line.split("#")[0])
    good = [f"python {platform.python_version()}"]
    for name in PACKAGES:
        try:
            found = version(name)
        except PackageNotFoundError:
            yield Finding("versions", "fail", f"{name} is not installed", "pip install --constraint constraints.txt .")
            continue
        if (wanted := pinned.get(name, found)).partition("+")[0] == found.partition("+")[0]:
            good.append(f"{name} {found}")
        else:
            yield Finding("versions", "warn", f"{name} is {found}, tested is {wanted}", f"pip install {name}=={wanted}")
    yield Finding("versions", "ok", ", ".join(good))


def kernels(storage: Path) -> Iterator[Finding]:
    """Of execution `sparse`: compiled here, if they were not yet."""
    from trainables.native import build as kernels

    if why := kernels.reason():
        yield Finding("kernels", "warn", why, "without them pruned trials cost what dense ones do (Debian: apt-get install gcc libc6-dev)")
    else:
        yield Finding("kernels", "ok", f"compiled for {kernels.simd()}")


def gpu(storage: Path) -> Iterator[Finding]:
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        yield Finding("GPU", "ok", f"{', '.join(names)} (CUDA {torch.version.cuda})")
    elif Path("/dev/nvidiactl").exists() and torch.version.cuda is None:
        yield Finding("GPU", "warn", f"there is one, but torch {torch.__version__} is a CPU build", "install torch from its CUDA index")
    elif Path("/dev/nvidiactl").exists():
        yield Finding("GPU", "warn", f"torch cannot use it (CUDA {torch.version.cuda})", "look at nvidia-smi: the driver may be older")
    else:
        yield Finding("GPU", "ok", f"none; {len(os.sched_getaffinity(0))} cores train a trial each")


def storage(storage: Path) -> Iterator[Finding]:
    """That writing works, and what keeps two drivers apart."""
    shown = paths.shown(storage)
    if bucket := s3.of(storage):
        guarantees.prove(bucket)
        yield Finding("storage", "ok", f"{shown} can be written and heeds conditions")
        return
    place = existing(storage)
    try:
        with tempfile.TemporaryDirectory(prefix=".doctor-", dir=place) as folder:
            broken = guarantees.broken(Path(folder))
    except OSError as error:
        yield Finding("storage", "fail", f"{place}: {error.strerror}", "choose another place with --storage or WINNOW_STORAGE")
        return
    if broken:
        mend = "two drivers would not see each other: choose another file system, or S3"
        yield Finding("storage", "fail", f"{shown} does not heed {', '.join(broken)}", mend)
    else:
        yield Finding("storage", "ok", f"{shown} can be written and heeds {', '.join(guarantees.PROMISES)}")


def disk(storage: Path) -> Iterator[Finding]:
    """Room where files grow; on S3 what this host keeps of it."""
    from trainables.datasets import local
    from trainables.datasets.table import cache

    places = {
        "storage": (storage, "--storage or WINNOW_STORAGE"), "prepared tables": (cache(), "WINNOW_CACHE"),
        "datasets": (local.root(), "MINARI_DATASETS_PATH"),
    }  # fmt: skip
    for what, (place, setting) in places.items():
        free = shutil.disk_usage(existing(place)).free
        state: Literal["ok", "warn", "fail"] = "fail" if free < TOO_LITTLE else "warn" if free < LITTLE else "ok"
        mend = "" if state == "ok" else f"make room, or choose another disk with {setting}"
        yield Finding("disk", state, f"{free / GB:.1f} GB free for {what} at {place}", mend)


def minari(storage: Path) -> Iterator[Finding]:
    from trainables.datasets import local

    folder = local.root()
    if not os.access(existing(folder), os.W_OK):
        yield Finding(
            "datasets", "warn", f"{folder} cannot be written", "datasets that are not there cannot be added: MINARI_DATASETS_PATH"
        )
        return
    found = local.local_datasets()
    yield Finding("datasets", "ok", f"{len(found)} at {folder}" if found else f"none yet at {folder}; a run records or downloads its own")


def mlflow(storage: Path) -> Iterator[Finding]:
    """The server that MLFLOW_TRACKING_URI names, by its own health page, or the database, by its file or its port."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    parts = urlsplit(uri)
    shown = uri.replace(f"{parts.username or ''}:{parts.password}@", "") if parts.password else uri
    if not uri and paths.remote(storage)[0]:
        yield Finding("MLflow", "warn", "embedded, so each host has its own", "set MLFLOW_TRACKING_URI for one that all see")
    elif not uri:
        yield Finding("MLflow", "ok", f"embedded, in {paths.mlflow_db(storage)}")
    elif parts.scheme in ("http", "https"):
        yield _served(uri.rstrip("/"), shown)
    elif parts.scheme.partition("+")[0] == "sqlite":
        yield _file(sqlite_file(uri), shown)
    elif parts.scheme.partition("+")[0] in DATABASES:
        yield from _database(parts, shown)
    elif parts.scheme == "databricks" or uri == "databricks":
        yield Finding(
            "MLflow", "warn", f"{shown} cannot be looked at from here", "names of its experiments are paths: MLFLOW_EXPERIMENT_NAME"
        )
    else:
        told = "a folder, which MLflow no longer keeps runs in" if parts.scheme in ("", "file") else "no address that MLflow knows"
        choices = "http://HOST:PORT, sqlite:////FOLDER/mlflow.db, postgresql://USER:PASSWORD@HOST/DATABASE"
        yield Finding("MLflow", "fail", f"MLFLOW_TRACKING_URI {shown!r} is {told}", f"set {choices}, or nothing for the storage's own")


def _file(file: Path | None, shown: str) -> Finding:
    """An sqlite database, or the folder in which MLflow will make it."""
    if file is None:
        return Finding("MLflow", "fail", f"{shown} names no file, so nothing would last", "sqlite:////FOLDER/mlflow.db")
    if not file.parent.is_dir():
        return Finding("MLflow", "fail", f"{shown}: there is no folder {file.parent}", "make it, or set another MLFLOW_TRACKING_URI")
    if file.is_dir() or not os.access(file if file.exists() else file.parent, os.W_OK):
        return Finding("MLflow", "fail", f"{shown} cannot be written", "choose another file with MLFLOW_TRACKING_URI")
    return Finding("MLflow", "ok", f"{shown} {'is there' if file.exists() else 'will be made'}")


def _database(parts: SplitResult, shown: str) -> Iterator[Finding]:
    """A database that MLflow's client opens itself, for which it needs a driver."""
    dialect, _, named = parts.scheme.partition("+")
    port, usual = DATABASES[dialect]
    driver = named or usual
    if find_spec(driver) is None:
        yield Finding("MLflow", "fail", f"{shown} needs the package {driver}", f"install it, or name another: {dialect}+DRIVER://...")
    yield from _reached("MLflow", shown, parts.hostname, parts.port or port)


def _served(uri: str, shown: str) -> Finding:
    """`/health` answers to any name, `/version` only to those that the server was told."""
    try:
        urlopen(f"{uri}/health", timeout=PATIENCE).close()
        with urlopen(f"{uri}/version", timeout=PATIENCE) as answer:
            served = answer.read(40).decode()
    except HTTPError as error:
        mend = f"start it with --allowed-hosts {urlsplit(uri).netloc.rpartition('@')[2]}" if error.code == 403 else "look at its log"
        return Finding("MLflow", "fail", f"{shown} answers {error.code}", mend)
    except (URLError, OSError) as error:
        why = getattr(error, "reason", error)
        return Finding("MLflow", "fail", f"{shown} does not answer ({why})", "start it, or set MLFLOW_TRACKING_URI")
    if served.split(".")[0] != version("mlflow").split(".")[0]:
        return Finding("MLflow", "warn", f"{shown} is version {served}, here is {version('mlflow')}", "use the same on both sides")
    return Finding("MLflow", "ok", f"{shown} answers, version {served}")


def ray(storage: Path) -> Iterator[Finding]:
    """The cluster that RAY_ADDRESS names; whether tokens are wanted is said, not left to a file that may be there."""
    address = os.environ.get("RAY_ADDRESS", "")
    if address in ("", "local"):
        yield Finding("Ray", "ok", "embedded, on loopback")
    elif address == "auto" and not (here := _running_here()):
        yield Finding("Ray", "fail", "RAY_ADDRESS=auto, and no cluster runs on this host", "ray start --head, or unset it")
    else:
        parts = urlsplit(address if "://" in address else f"gcs://{here if address == 'auto' else address}")
        shown = f"{address} ({here})" if address == "auto" else address
        yield from _reached("Ray", shown, parts.hostname, parts.port or (10001 if parts.scheme == "ray" else 6379))
    if "RAY_AUTH_MODE" not in os.environ and (Path.home() / ".ray" / "auth_token").exists():
        yield Finding("Ray", "warn", "~/.ray/auth_token turns tokens on", "set RAY_AUTH_MODE to token or disabled, on every host the same")


def _running_here() -> str:
    """The address of the cluster that `auto` means: Ray writes it down when it starts."""
    file = Path(os.environ.get("RAY_TMPDIR", "/tmp")) / "ray" / "ray_current_cluster"
    return file.read_text().strip() if file.exists() else ""


def ports(storage: Path) -> Iterator[Finding]:
    """Those that a head and a server started here would take."""
    taken = []
    for port in PORTS:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                taken.append(port)
    for port in taken:
        yield Finding("ports", "warn", f"{port} is in use here", f"where it is not the one you want, start {PORTS[port]} on another")
    if not taken:
        yield Finding("ports", "ok", f"{', '.join(map(str, PORTS))} are free")


def threads(storage: Path) -> Iterator[Finding]:
    """The service sets one thread per process, but not over what the user has set."""
    more = [f"{name}={os.environ[name]}" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") if os.environ.get(name, "1") != "1"]
    if more:
        yield Finding("threads", "warn", f"{', '.join(more)}: trials beside each other would be in each other's way", "unset it, or set 1")
    else:
        yield Finding("threads", "ok", "one per trial")


def existing(path: Path) -> Path:
    """The path, or the nearest folder above that is there: what is made below lies on its disk."""
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _reached(what: str, shown: str, host: str | None, port: int) -> Iterator[Finding]:
    try:
        if not host:
            yield Finding(what, "fail", f"{shown} names no host", "name one")
            return
        socket.create_connection((host, port), timeout=PATIENCE).close()
        yield Finding(what, "ok", f"{shown} is there")
    except OSError as error:
        yield Finding(what, "fail", f"{shown} does not answer ({error.strerror or error})", "start it, or name another")


CHECKS: tuple[Callable[[Path], Iterator[Finding]], ...] = (
    versions, kernels, gpu, threads, storage, disk, minari, mlflow, ray, ports,
)  # fmt: skip
