"""An S3 bucket as this service uses it: whole objects, conditional writes, bounded patience. The only file that knows boto3.

Everything is tried again, with growing pauses, while the server does not answer or is at fault; then it is an OSError, which is
infrastructure to whoever trains. What the server refuses (keys, bucket, rights) is a UserError at once. Credentials and endpoint come
from the usual AWS_* variables and are never shown.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterable
from functools import cache, partial
from pathlib import Path
from typing import Any

from service.storage import paths
from trainables.errors import UserError

PATIENCE = 60.0  # seconds, for one call with all its tries
FIRST = 10.0  # seconds, the same until the server has answered once: a wrong address is to be told soon
CONNECT, READ = 5.0, 10.0  # seconds, for one try
LONGEST_PAUSE = 8.0  # seconds between two tries
THREADS = 8  # calls at a time where there is much to copy
MINE = (
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

    def get(self, key: str, etag: str = "", *, patience: float = PATIENCE) -> tuple[bytes, str] | None:
        """Content and etag; None where it still has `etag`. Raises FileNotFoundError."""
        unless = {"IfNoneMatch": etag} if etag else {}

        def read() -> tuple[bytes, str]:
            answer = self._client.get_object(**self._at(key), **unless)
            return answer["Body"].read(), answer["ETag"]

        return self._call(read, key, patience)

    def put(self, key: str, content: bytes, *, patience: float = PATIENCE) -> None:
        self._call(partial(self._client.put_object, **self._at(key), Body=content), key, patience)

    def create(self, key: str, content: bytes, *, patience: float = PATIENCE) -> str:
        """Make an object that is not there yet; the etag. Raises FileExistsError where another one is."""
        return self._put_if(key, content, patience, IfNoneMatch="*")

    def replace(self, key: str, content: bytes, etag: str, *, patience: float = PATIENCE) -> str:
        """Put `content` in the place of the version `etag`; the new etag. Raises FileExistsError where it is another one by now."""
        return self._put_if(key, content, patience, IfMatch=etag)

    def exists(self, key: str, *, patience: float = PATIENCE) -> bool:
        try:
            self._call(partial(self._client.head_object, **self._at(key)), key, patience)
        except FileNotFoundError:
            return False
        return True

    def list(self, prefix: str, *, patience: float = PATIENCE) -> dict[str, str]:
        """The etags of all objects whose keys begin with `prefix`, by key."""
        found: dict[str, str] = {}
        more: dict[str, str] = {}
        while True:
            given = {"Bucket": self._bucket, "Prefix": self._prefix + prefix, **more}
            page = self._call(partial(self._client.list_objects_v2, **given), prefix, patience)
            found |= {item["Key"].removeprefix(self._prefix): item["ETag"] for item in page.get("Contents", [])}
            if not page.get("IsTruncated"):
                return found
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def delete(self, keys: Iterable[str], *, patience: float = PATIENCE) -> None:
        for key in keys:
            self._call(partial(self._client.delete_object, **self._at(key)), key, patience)

    def prove_conditions(self, key: str) -> None:
        """Raise UserError where the server lets through what a condition forbids: then nothing would keep two drivers apart.

        The object `key` must be there; it keeps its content if the server is at fault, too.
        """
        content, _ = self.get(key) or (b"", "")
        for condition in ({"IfNoneMatch": "*"}, {"IfMatch": '"0123456789abcdef0123456789abcdef"'}):
            try:
                self._call(partial(self._client.put_object, **self._at(key), Body=content, **condition), key, PATIENCE)
            except FileExistsError:
                continue
            raise self._unsafe(next(iter(condition)))

    def _put_if(self, key: str, content: bytes, patience: float, **condition: str) -> str:
        try:
            return self._call(partial(self._client.put_object, **self._at(key), Body=content, **condition), key, patience)["ETag"]
        except FileExistsError:
            # Perhaps by ourselves, in a try whose answer was lost: every content that is put here is its writer's alone.
            found = self.get(key, patience=patience)
            if found and found[0] == content:
                return found[1]
            raise

    def _at(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + key}

    def _call(self, call: Callable[[], Any], key: str, patience: float) -> Any:
        """What `call` returns, tried again for `patience` seconds; None for "not modified"."""
        from botocore.exceptions import BotoCoreError, ClientError

        until, pause = time.monotonic() + (patience if self._answered else min(FIRST, patience)), 0.2
        while True:
            try:
                found = call()
                self._answered = True
                return found
            except ClientError as error:
                self._answered = True
                status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
                trouble = str(error.response.get("Error", {}).get("Code", "")) or str(status)
                if status == 304:
                    return None
                if status == 501 or (status < 500 and status not in (408, 409, 429)):
                    raise self._refusal(status, trouble, key) from None
            except (BotoCoreError, OSError) as error:
                trouble = type(error).__name__
                if trouble in MINE:
                    raise UserError(f"{self.url}: {trouble}; set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION") from None
            if time.monotonic() + pause > until:
                raise OSError(errno.EHOSTUNREACH, f"the server does not answer ({trouble}); AWS_ENDPOINT_URL says where it is", self.url)
            time.sleep(pause)
            pause = min(LONGEST_PAUSE, 2 * pause)

    def _unsafe(self, condition: str) -> UserError:
        return UserError(f"the server of {self.url} does not heed {condition} of a PUT; Winnow needs that to keep two drivers apart")

    def _refusal(self, status: int, code: str, key: str) -> Exception:
        if code == "NoSuchBucket":
            return UserError(f"{self.url}: there is no such bucket; make it first, or set AWS_ENDPOINT_URL to the server that has it")
        if status == 404:
            return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), f"{self.url}/{key}")
        if status == 412:
            return FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), f"{self.url}/{key}")
        if status == 501:
            return self._unsafe("a condition")
        return UserError(f"{self.url}: refused ({code}); look at AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the rights on the bucket")


def of(path: Path) -> Bucket | None:
    """The bucket that a path under a storage root stands for; None where the storage is a folder."""
    url = paths.remote(path)[0]
    return _bucket(url, os.getpid()) if url else None


@cache
def _bucket(url: str, pid: int) -> Bucket:
    """One per process: connections do not survive a fork."""
    return Bucket(url)


def _client(url: str) -> Any:
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError:
        raise UserError(f"storage {url} needs boto3: pip install winnow[s3]") from None
    once = {"total_max_attempts": 1}  # tried again by us, who know for how long
    options = Config(connect_timeout=CONNECT, read_timeout=READ, retries=once, max_pool_connections=2 * THREADS)
    region = None if os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") else "us-east-1"
    try:
        return boto3.session.Session().client("s3", config=options, region_name=region)
    except (BotoCoreError, ValueError) as error:
        raise UserError(f"{url}: {type(error).__name__}; AWS_ENDPOINT_URL or AWS_PROFILE is not usable") from None
