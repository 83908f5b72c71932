"""An S3 bucket: whole objects, conditional writes, retries with a time limit. The only file that imports boto3.

Calls are retried with growing pauses while the server does not answer or reports a fault of its own. Then a driver waits (patience.py);
all others raise OSError, which trainers treat as an infrastructure failure. What the server refuses (keys, clock, bucket, permissions)
raises MachineError at once, since all of this is the host's own. Credentials and endpoint come from the usual AWS_* variables and are
never shown.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

from service.storage import paths
from service.storage.patience import wait
from trainables.errors import MachineError, UserError

PATIENCE = 60.0  # seconds, for one call with all its retries
FIRST_PATIENCE = 10.0  # seconds, the same before the server's first answer, so that a wrong address is reported soon
CONNECT_TIMEOUT, READ_TIMEOUT = 5.0, 10.0  # seconds, for one request
LONGEST_PAUSE = 8.0  # seconds between two requests
THREADS = 8  # parallel calls
CONFIGURATION_ERRORS = (
    "NoCredentialsError",
    "PartialCredentialsError",
    "CredentialRetrievalError",
    "NoRegionError",
    "ProfileNotFound",
    "ParamValidationError",
)


class Bucket:
    """The objects below `s3://bucket/prefix`; keys are relative to it. An etag names one version of an object."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._bucket, _, prefix = url.removeprefix("s3://").partition("/")
        self._prefix = f"{prefix}/" if prefix else ""
        self._client, self._answered = _client(url), False
        self._last = 0.0  # when it did last, by time.monotonic
        self._given_up = False  # a call has waited in vain, for as long as any does: until the server answers again, others try once

    def get(self, key: str, *, patience: float | None = None) -> tuple[bytes, str]:
        """Content and etag. Raises FileNotFoundError."""
        found: tuple[bytes, str] = self._call(partial(self._read, key), key, patience)
        return found

    def get_newer(self, key: str, etag: str) -> tuple[bytes, str] | None:
        """Content and etag; None if the object still has `etag`, which may be empty. Raises FileNotFoundError."""
        return self._call(partial(self._read, key, **({"IfNoneMatch": etag} if etag else {})), key, None)

    def _read(self, key: str, **condition: str) -> tuple[bytes, str]:
        answer = self._client.get_object(**self._at(key), **condition)
        return answer["Body"].read(), answer["ETag"]

    def put(self, key: str, content: bytes, *, patience: float | None = None) -> None:
        self._call(partial(self._client.put_object, **self._at(key), Body=content), key, patience)

    def create(self, key: str, content: bytes, *, patience: float | None = None) -> str:
        """Create an object; returns its etag. Raises FileExistsError if it exists with other content."""
        return self._put_if(key, content, patience, IfNoneMatch="*")

    def replace(self, key: str, content: bytes, etag: str, *, patience: float | None = None) -> str:
        """Replace the version `etag` of an object; returns the new etag. Raises FileExistsError if the version has changed."""
        try:
            return self._put_if(key, content, patience, IfMatch=etag)
        except FileNotFoundError as error:
            raise FileExistsError(errno.EEXIST, "is gone, and is to be replaced", error.filename) from None

    def exists(self, key: str) -> bool:
        try:
            self._call(partial(self._client.head_object, **self._at(key)), key, None)
        except FileNotFoundError:
            return False
        return True

    def list(self, prefix: str, *, after: str = "") -> dict[str, str]:
        """The etags of all objects whose keys begin with `prefix`, by key; with `after`, of those whose keys come after that one."""
        more = {"StartAfter": self._prefix + after} if after else {}
        return {key: str(item["ETag"]) for key, item in self._items(prefix, **more).items()}

    def folders(self, prefix: str) -> tuple[str, ...]:
        """What comes next in the keys that begin with `prefix`, up to a slash."""
        pages = self._pages(prefix, Delimiter="/")
        return tuple(str(item["Prefix"])[len(self._prefix + prefix) : -1] for page in pages for item in page.get("CommonPrefixes", []))

    def sizes(self, prefix: str) -> dict[str, int]:
        """Their sizes in bytes, by key."""
        return {key: int(item["Size"]) for key, item in self._items(prefix).items()}

    def _items(self, prefix: str, **more: str) -> dict[str, Any]:
        items = (item for page in self._pages(prefix, **more) for item in page.get("Contents", []))
        return {item["Key"].removeprefix(self._prefix): item for item in items}

    def _pages(self, prefix: str, **more: str) -> Iterator[dict[str, Any]]:
        while True:
            query = {"Bucket": self._bucket, "Prefix": self._prefix + prefix, **more}
            page = self._call(partial(self._client.list_objects_v2, **query), prefix, None)
            yield page
            if not page.get("IsTruncated"):
                return
            more |= {"ContinuationToken": page["NextContinuationToken"]}

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._call(partial(self._client.delete_object, **self._at(key)), key, None)

    def check_conditions(self, key: str) -> None:
        """Raise UserError if the server ignores conditions of a PUT; then two drivers could write at the same time.

        The object `key` must exist; it keeps its content in any case.
        """
        content, _ = self.get(key)
        for condition in ({"IfNoneMatch": "*"}, {"IfMatch": '"0123456789abcdef0123456789abcdef"'}):
            try:
                self._call(partial(self._client.put_object, **self._at(key), Body=content, **condition), key, None)
            except FileExistsError:
                continue
            raise self._unsafe(next(iter(condition)))

    def _put_if(self, key: str, content: bytes, patience: float | None, **condition: str) -> str:
        try:
            return self._call(partial(self._client.put_object, **self._at(key), Body=content, **condition), key, patience)["ETag"]
        except FileExistsError:
            # Perhaps created by our own request whose answer was lost; each writer's content is unique.
            current, etag = self.get(key, patience=patience)
            if current == content:
                return etag
            raise

    def _at(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + key}

    def _call(self, call: Callable[[], Any], key: str, patience: float | None) -> Any:
        """The result of `call`, retried for up to `patience` seconds, and by a driver for longer; None for "not modified"."""
        while True:
            try:
                return self._try(call, key, PATIENCE if patience is None else patience)
            except OSError as error:
                if patience is not None or error.errno != errno.EHOSTUNREACH or not wait(self.url, self._last):
                    raise

    def _try(self, call: Callable[[], Any], key: str, patience: float) -> Any:
        from botocore.exceptions import BotoCoreError, ClientError
        from botocore.parsers import ResponseParserError  # e.g. a proxy's page in HTML; not a BotoCoreError

        patience = 0.0 if self._given_up else patience if self._answered else min(FIRST_PATIENCE, patience)
        until, pause = time.monotonic() + patience, 0.2
        while True:
            try:
                result = call()
                self._answered, self._last, self._given_up = True, time.monotonic(), False
                return result
            except ClientError as error:
                self._answered = True
                status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
                trouble = str(error.response.get("Error", {}).get("Code", "")) or str(status)
                if status == 304:
                    return None
                if status == 501 or (status < 500 and status not in (408, 409, 429)):
                    raise self._refusal(status, trouble, key) from None
            except (BotoCoreError, ResponseParserError, OSError) as error:
                trouble = type(error).__name__
                if trouble in CONFIGURATION_ERRORS:
                    raise MachineError(f"{self.url}: {trouble}; set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION") from None
            if time.monotonic() + pause > until:
                self._given_up = self._given_up or patience >= PATIENCE
                raise OSError(errno.EHOSTUNREACH, f"the server does not answer ({trouble}); check AWS_ENDPOINT_URL", self.url)
            time.sleep(pause)
            pause = min(LONGEST_PAUSE, 2 * pause)

    def _unsafe(self, condition: str) -> UserError:
        return UserError(f"the server of {self.url} ignores {condition} on PUT; without it two drivers could write at the same time")

    def _refusal(self, status: int, code: str, key: str) -> Exception:
        if code == "NoSuchBucket":
            return MachineError(f"{self.url}: there is no such bucket; create it, or set AWS_ENDPOINT_URL to the server that has it")
        if status == 404:
            return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), f"{self.url}/{key}")
        if status == 412:
            return FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), f"{self.url}/{key}")
        if status == 501:
            return self._unsafe("a condition")
        if code == "RequestTimeTooSkewed":
            now = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
            return MachineError(f"{self.url}: refused ({code}); set this host's clock, which says {now} UTC")
        return MachineError(
            f"{self.url}: refused ({code}); check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the permissions on the bucket"
        )


def bucket_of(path: Path) -> Bucket | None:
    """The bucket behind a path under a storage root; None if the storage is a folder."""
    url = paths.remote(path)[0]
    return _bucket(url, os.getpid()) if url else None


@cache
def _bucket(url: str, pid: int) -> Bucket:
    """Cached per process, since connections do not survive a fork."""
    return Bucket(url)


def _client(url: str) -> Any:
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError:
        raise MachineError(f"storage {url} needs boto3: pip install 'winnow-rl[s3]'") from None
    once = {"total_max_attempts": 1}  # `_call` retries
    options = Config(connect_timeout=CONNECT_TIMEOUT, read_timeout=READ_TIMEOUT, retries=once, max_pool_connections=2 * THREADS)
    # botocore itself reads the second name only; the first is that of AWS's other tools.
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    try:
        return boto3.session.Session().client("s3", config=options, region_name=region)
    except (BotoCoreError, ValueError) as error:
        raise MachineError(f"{url}: {type(error).__name__}; AWS_ENDPOINT_URL or AWS_PROFILE is invalid") from None
