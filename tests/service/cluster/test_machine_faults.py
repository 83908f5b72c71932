"""What fails because of the one host on which it runs has the class that is tried again, perhaps on another host."""

from __future__ import annotations

import errno
import platform
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, NoCredentialsError

from service.planning.packing import retry
from service.storage import s3
from trainables.datasets.table import load_table
from trainables.errors import UserError
from trainables.failures import failure
from trainables.native import build
from trainables.run import run_stack
from trainables.trial import Stack, Trial


def refused(code: str, status: int) -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "PutObject")


def said(error: UserError) -> str:
    """The failure's line, without the host that it names; it is tried again as often as other failures of machines."""
    told = failure(error)
    assert told["reason"] == "infrastructure"
    assert "traceback" not in told
    assert retry(1, told["reason"], 1) == 1
    host, _, line = told["message"].partition(": ")
    assert host == platform.node()
    assert line == str(error)
    return line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (refused("RequestTimeTooSkewed", 403), "s3://w/x: refused (RequestTimeTooSkewed); set this host's clock, which says "),
        (refused("ExpiredToken", 400), "s3://w/x: refused (ExpiredToken); check AWS_ACCESS_KEY_ID, "),
        (refused("AccessDenied", 403), "s3://w/x: refused (AccessDenied); check AWS_ACCESS_KEY_ID, "),
        (refused("NoSuchBucket", 404), "s3://w/x: there is no such bucket; "),
        (NoCredentialsError(), "s3://w/x: NoCredentialsError; set AWS_ACCESS_KEY_ID, "),
    ],
)
def test_what_s3_refuses(error: Exception, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Client:
        def put_object(self, **about: Any) -> None:
            raise error

    monkeypatch.setattr(s3, "_client", lambda url: Client())
    with pytest.raises(UserError) as raised:
        s3.Bucket("s3://w/x").put("heads/1.json", b"")
    assert said(raised.value).startswith(line)


def test_a_host_without_a_compiler_or_a_cache_for_the_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINNOW_CACHE", str(tmp_path))
    for compiler, line in (("no-such-cc", "no C compiler 'no-such-cc' "), ("false", "'false' failed on the C kernels ")):
        monkeypatch.setenv("CC", compiler)
        with pytest.raises(UserError) as raised:
            build._compiled("generic")
        assert said(raised.value).startswith(line)
    monkeypatch.setenv("WINNOW_CACHE", "/proc/cache")
    with pytest.raises(UserError) as raised:
        build._compiled("generic")
    assert said(raised.value).startswith("cannot write the C kernels to '/proc/cache' ")


def test_a_host_whose_cache_is_full(hopper: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setenv("WINNOW_CACHE", str(tmp_path))
    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(UserError) as raised:
        load_table(hopper)
    assert said(raised.value).startswith(f"the prepared table of {hopper!r} cannot be written below {tmp_path} (WINNOW_CACHE): ")


def test_a_host_without_the_drivers_dataset_is_not_a_dataset_that_nobody_has(hopper: str) -> None:
    stack = Stack((Trial(dataset="winnow/hopper/nowhere-v0", algorithm="bc"),))
    with pytest.raises(UserError) as raised:
        next(iter(run_stack(stack, dataset_hash="0" * 64)))
    assert said(raised.value).startswith("no dataset 'winnow/hopper/nowhere-v0' in ")
    with pytest.raises(UserError) as raised:
        next(iter(run_stack(stack)))
    assert failure(raised.value)["reason"] == "user_error"
