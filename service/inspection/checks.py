"""The checks of `winnow doctor`. Each takes the storage root and yields results; it starts nothing and removes what it writes."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import socket
import tempfile
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal
from urllib.error import HTTPError, URLError
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import Request, urlopen

from packaging.requirements import Requirement

from service.cluster import address, embedded
from service.planning import devices
from service.storage import guarantees, paths, s3
from service.terminal.redaction import redact
from service.tracking.connection import DeletedError
from service.tracking.experiment import check_address
from service.tracking.runs import Tracking
from service.tracking.sql.database import has_tables, sqlite_file
from trainables.errors import UserError

CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"
DISTRIBUTION = "winnow-rl"
PACKAGES = ("torch", "numpy", "gymnasium", "mujoco", "minari", "ray", "mlflow", "optuna")
GB = 1 << 30
LITTLE, TOO_LITTLE = 5 * GB, GB  # free bytes for a warning, and too few for a dataset's table
PORTS = {6379: "Ray's head (--port)", 8265: "its job server (--dashboard-port)", 5000: "MLflow (--port)"}
PATIENCE = 5.0  # seconds for a server to answer
# Databases that MLflow's client opens itself: their port, and SQLAlchemy's default driver.
DATABASES = {"postgresql": (5432, "psycopg2"), "mysql": (3306, "MySQLdb"), "mssql": (1433, "pyodbc")}


@dataclass(frozen=True)
class CheckResult:
    """What was checked, its state, and how to fix it if something is wrong."""

    what: str
    state: Literal["ok", "warn", "fail"]
    message: str
    fix: str = ""

    def to_json(self) -> dict[str, str]:
        """The keys are those that `doctor --json` has always printed."""
        return {"what": self.what, "state": self.state, "told": self.message, "mend": self.fix}


def versions(storage: Path) -> Iterator[CheckResult]:
    """Compares with constraints.txt, if present: all hosts of a cluster need the same versions. Then with the package's bounds."""
    lines = CONSTRAINTS.read_text().splitlines() if CONSTRAINTS.exists() else []
    pinned = dict(line.split("#")[0].strip().split("==") for line in lines if "==" in line.split("#")[0])
    good = [f"python {platform.python_version()}"]
    for name in PACKAGES:
        try:
            installed = version(name)
        except PackageNotFoundError:
            install = "--constraint constraints.txt ." if CONSTRAINTS.exists() else name
            yield CheckResult("versions", "fail", f"{name} is not installed", f"pip install {install}")
            continue
        if (wanted := pinned.get(name, installed)).partition("+")[0] == installed.partition("+")[0]:
            good.append(f"{name} {installed}")
        else:
            yield CheckResult("versions", "warn", f"{name} is {installed}, tested with {wanted}", f"pip install {name}=={wanted}")
    yield from _out_of_bounds()
    yield CheckResult("versions", "ok", ", ".join(good))


def _out_of_bounds() -> Iterator[CheckResult]:
    """What is installed in a version that this project is known not to work with; pip leaves it where it was there before."""
    try:
        texts = requires(DISTRIBUTION) or []
    except PackageNotFoundError:  # a copy that nobody has installed
        texts = []
    for text in texts:
        wanted = Requirement(text)
        if wanted.marker is not None:  # of an extra
            continue
        with contextlib.suppress(PackageNotFoundError):
            if not wanted.specifier.contains(there := version(wanted.name), prereleases=True):
                needs = f"{wanted.name}{wanted.specifier}"
                yield CheckResult("versions", "warn", f"{wanted.name} is {there}, and Winnow needs {needs}", f"pip install '{needs}'")


def kernels(storage: Path) -> Iterator[CheckResult]:
    """The C kernels; compiles them if necessary."""
    from trainables.native import build as kernels

    if why := kernels.reason():
        without = "without them trials are slow, and their numbers repeat on this kind of machine only"
        yield CheckResult("kernels", "warn", why, f"Debian: apt-get install gcc libc6-dev; {without}")
    else:
        yield CheckResult("kernels", "ok", f"compiled for {kernels.simd()}")


def gpu(storage: Path) -> Iterator[CheckResult]:
    import torch

    for name, ids in devices.slices_here().items():
        yield CheckResult("GPU", "ok", f"{len(ids)} x {name}; as a node of a cluster: {devices.ray_words(name, ids)} --address=HEAD:6379")
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        yield CheckResult("GPU", "ok", f"{', '.join(names)} (CUDA {torch.version.cuda})")
    elif Path("/dev/nvidiactl").exists() and torch.version.cuda is None:
        yield CheckResult("GPU", "warn", f"torch {torch.__version__} is a CPU build and cannot use it", "install torch from its CUDA index")
    elif Path("/dev/nvidiactl").exists():
        yield CheckResult("GPU", "warn", f"torch cannot use it (CUDA {torch.version.cuda})", "check nvidia-smi: the driver may be too old")
    else:
        yield CheckResult("GPU", "ok", f"none; {devices.cores()} cores train one trial each")


def storage(storage: Path) -> Iterator[CheckResult]:
    """Whether the storage is writable, and what keeps two drivers from writing at the same time."""
    shown = paths.shown(storage)
    if bucket := s3.bucket_of(storage):
        guarantees.check_bucket(bucket)
        yield CheckResult("storage", "ok", f"{shown} is writable and supports conditional writes")
        return
    folder_here = existing(storage)
    try:
        with tempfile.TemporaryDirectory(prefix=".doctor-", dir=folder_here) as folder:
            missing = guarantees.missing_guarantees(Path(folder))
    except OSError as error:
        yield CheckResult("storage", "fail", f"{folder_here}: {error.strerror}", "choose another folder with --storage or WINNOW_STORAGE")
        return
    if missing:
        fix = "two drivers would not see each other: choose another file system, or S3"
        yield CheckResult("storage", "fail", f"{shown} does not support {', '.join(missing)}", fix)
    else:
        yield CheckResult("storage", "ok", f"{shown} is writable and supports {', '.join(guarantees.GUARANTEES)}")


def disk(storage: Path) -> Iterator[CheckResult]:
    """Free space where files grow; for S3, where this host keeps its copies."""
    from trainables.datasets import local
    from trainables.storage import cache

    folders = {
        "storage": (storage, "--storage or WINNOW_STORAGE"), "prepared tables": (cache.tables(), "WINNOW_CACHE"),
        "datasets": (local.root(), "MINARI_DATASETS_PATH"),
    }  # fmt: skip
    for what, (folder, setting) in folders.items():
        if not existing(folder).is_dir():
            yield CheckResult(
                "disk", "fail", f"{existing(folder)} is not a folder: {what} cannot be there", f"choose another with {setting}"
            )
            continue
        free = shutil.disk_usage(existing(folder)).free
        state: Literal["ok", "warn", "fail"] = "fail" if free < TOO_LITTLE else "warn" if free < LITTLE else "ok"
        fix = "" if state == "ok" else f"free some space, or choose another disk with {setting}"
        yield CheckResult("disk", state, f"{free / GB:.1f} GB free for {what} at {folder}", fix)


def minari(storage: Path) -> Iterator[CheckResult]:
    from trainables.datasets import local

    folder = local.root()
    if not existing(folder).is_dir():  # which the disk's line says
        return
    if not os.access(existing(folder), os.W_OK):
        yield CheckResult("datasets", "warn", f"{folder} cannot be written", "missing datasets cannot be added: set MINARI_DATASETS_PATH")
        return
    present = local.local_datasets()
    yield CheckResult(
        "datasets", "ok", f"{len(present)} at {folder}" if present else f"none yet at {folder}; a run records or downloads what it needs"
    )


def mlflow(storage: Path) -> Iterator[CheckResult]:
    """The server at MLFLOW_TRACKING_URI, by its health page, or the database, by its file or port."""
    for result in _address(storage):
        if result.state == "ok" and (why := _refusal(storage)):
            yield CheckResult("MLflow", "fail", why, "" if "`" in why else "set another MLFLOW_TRACKING_URI, or other credentials")
        else:
            yield result


def _refusal(storage: Path) -> str:
    """Why MLflow would take nothing from here, although its address answers; empty if it would. Creates nothing."""
    tracking = Tracking(storage)
    file = sqlite_file(tracking.uri)
    if file is not None and not (file.exists() and has_tables(file)):
        return ""
    try:
        tracking.check()
    except DeletedError as error:
        return str(error)
    except UserError as error:
        return str(error) if file or tracking.uri.startswith("http") else ""  # the port of a database server has answered
    return ""


def _address(storage: Path) -> Iterator[CheckResult]:
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    shown = redact(uri)
    try:
        check_address(storage)
    except UserError as error:
        problem, _, fix = str(error).rpartition("; ")
        yield CheckResult("MLflow", "fail", problem, fix)
        return
    parts = urlsplit(uri)
    if not uri and paths.remote(storage)[0]:
        yield CheckResult("MLflow", "warn", "embedded, so each host has its own", "set MLFLOW_TRACKING_URI to share one")
    elif not uri:
        yield CheckResult("MLflow", "ok", f"embedded, in {paths.mlflow_db(storage)}")
    elif parts.scheme in ("http", "https"):
        yield _served(uri.rstrip("/"), shown)
    elif parts.scheme.partition("+")[0] == "sqlite":
        yield _file(sqlite_file(uri), shown)
    elif parts.scheme.partition("+")[0] in DATABASES:
        yield from _database(parts, shown)
    else:  # databricks
        yield CheckResult(
            "MLflow", "warn", f"{shown} cannot be checked from here", "its experiments are named by paths: set MLFLOW_EXPERIMENT_NAME"
        )


def _file(file: Path | None, shown: str) -> CheckResult:
    """An sqlite database, or the folder in which MLflow will create it."""
    if file is None:
        return CheckResult("MLflow", "fail", f"{shown} names no file, so nothing would be kept", "sqlite:////FOLDER/mlflow.db")
    if not file.parent.is_dir():
        return CheckResult("MLflow", "fail", f"{shown}: there is no folder {file.parent}", "create it, or set another MLFLOW_TRACKING_URI")
    if file.is_dir() or not os.access(file if file.exists() else file.parent, os.W_OK):
        return CheckResult("MLflow", "fail", f"{shown} cannot be written", "choose another file with MLFLOW_TRACKING_URI")
    return CheckResult("MLflow", "ok", f"{shown} {'exists' if file.exists() else 'will be created'}")


def _database(parts: SplitResult, shown: str) -> Iterator[CheckResult]:
    """A database that MLflow's client opens itself; it needs a driver."""
    dialect, _, named = parts.scheme.partition("+")
    port, usual = DATABASES[dialect]
    driver = named or usual
    if find_spec(driver) is None:
        yield CheckResult("MLflow", "fail", f"{shown} needs the package {driver}", f"install it, or name another: {dialect}+DRIVER://...")
    yield from _reached("MLflow", shown, parts.hostname, parts.port or port)


def _served(uri: str, shown: str) -> CheckResult:
    """`/health` answers under any host name, `/version` only under those that the server allows."""
    try:
        urlopen(_request(uri, "health"), timeout=PATIENCE).close()
        with urlopen(_request(uri, "version"), timeout=PATIENCE) as answer:
            served = answer.read(40).decode()
    except HTTPError as error:
        who = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, to ones that it knows"
        fixes = {403: f"start it with --allowed-hosts {urlsplit(uri).netloc.rpartition('@')[2]}", 401: who}
        return CheckResult("MLflow", "fail", f"{shown} answers {error.code}", fixes.get(error.code, "check its log"))
    except (URLError, OSError) as error:
        why = getattr(error, "reason", error)
        return CheckResult("MLflow", "fail", f"{shown} does not answer ({why})", "start it, or set MLFLOW_TRACKING_URI")
    if served.split(".")[0] != version("mlflow").split(".")[0]:
        return CheckResult("MLflow", "warn", f"{shown} is version {served}, here is {version('mlflow')}", "use the same version on both")
    return CheckResult("MLflow", "ok", f"{shown} answers, version {served}")


def _request(uri: str, page: str) -> Request:
    """A request as MLflow's client makes it: with the user and password of the address, else those of the environment, or a token."""
    parts, env = urlsplit(uri), os.environ
    request = Request(f"{parts._replace(netloc=parts.netloc.rpartition('@')[2]).geturl()}/{page}")
    user = unquote(parts.username or "") or env.get("MLFLOW_TRACKING_USERNAME", "")
    password = unquote(parts.password or "") if parts.username else env.get("MLFLOW_TRACKING_PASSWORD", "")
    if user and password:
        request.add_header("Authorization", f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}")
    elif token := env.get("MLFLOW_TRACKING_TOKEN"):
        request.add_header("Authorization", f"Bearer {token}")
    return request


def ray(storage: Path) -> Iterator[CheckResult]:
    """The cluster at RAY_ADDRESS and whether it asks for a token, or whether Ray can start on this host."""
    given = address.given()
    if not given:
        embedded.check_possible()
        yield CheckResult("Ray", "ok", "embedded, on loopback, with a token that only this user's run knows")
        return
    host, port = address.place(given)
    if given == "auto" and not host:
        yield CheckResult("Ray", "fail", "RAY_ADDRESS=auto, and no cluster runs on this host", "ray start --head, or unset it")
        return
    shown = f"auto ({address.running_here()})" if given == "auto" else redact(given)
    answers = list(_reached("Ray", shown, host, port))
    yield from answers
    if answers[0].state == "ok" and not given.startswith("ray://") and not address.asks_for_token(host, port, PATIENCE):
        yield CheckResult(
            "Ray", "warn", f"the cluster at {shown} {address.NO_TOKEN}", "start it with RAY_AUTH_MODE=token (docs/cluster.md)"
        )
    if "RAY_AUTH_MODE" not in os.environ and (Path.home() / ".ray" / "auth_token").exists():
        yield CheckResult(
            "Ray", "warn", "~/.ray/auth_token turns tokens on", "set RAY_AUTH_MODE to token or disabled, on every host the same"
        )


def ports(storage: Path) -> Iterator[CheckResult]:
    """The ports that a Ray head and an MLflow server on this host would use."""
    taken = []
    for port in PORTS:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                taken.append(port)
    for port in taken:
        yield CheckResult("ports", "warn", f"{port} is in use here", f"if that is another program, start {PORTS[port]} on another")
    if not taken:
        yield CheckResult("ports", "ok", f"{', '.join(map(str, PORTS))} are free")


def threads(storage: Path) -> Iterator[CheckResult]:
    """The service sets one thread per process unless the user has set a number."""
    settings = [f"{name}={os.environ[name]}" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") if os.environ.get(name, "1") != "1"]
    if settings:
        yield CheckResult("threads", "warn", f"{', '.join(settings)}: concurrent trials would compete for cores", "unset it, or set 1")
    else:
        yield CheckResult("threads", "ok", "one per trial")


def existing(path: Path) -> Path:
    """The path, or its nearest existing parent, which is on the same disk."""
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _reached(what: str, shown: str, host: str | None, port: int) -> Iterator[CheckResult]:
    try:
        if not host:
            yield CheckResult(what, "fail", f"{shown} names no host", "name one")
            return
        socket.create_connection((host, port), timeout=PATIENCE).close()
        yield CheckResult(what, "ok", f"{shown} answers")
    except OSError as error:
        yield CheckResult(what, "fail", f"{shown} does not answer ({error.strerror or error})", "start it, or name another")


CHECKS: tuple[Callable[[Path], Iterator[CheckResult]], ...] = (
    versions, kernels, gpu, threads, storage, disk, minari, mlflow, ray, ports,
)  # fmt: skip
