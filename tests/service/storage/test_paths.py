"""What a storage may be."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.storage import paths
from trainables.errors import UserError


@pytest.mark.parametrize("given", ["gs://bucket/x", "http://host/x", "S3://bucket/x", "file:///data"])
def test_another_kind_of_storage_is_refused_and_not_made_a_folder(given: str) -> None:
    with pytest.raises(UserError, match=f"^storage '{given}' is of no kind that Winnow knows: a folder, or s3://bucket/prefix$"):
        paths.root(given)


def test_its_password_is_not_shown() -> None:
    with pytest.raises(UserError, match=r"'http://\*\*\*@host/x'"):
        paths.root("http://user:hunter2@host/x")


def test_a_folder_may_have_any_name(tmp_path: Path) -> None:
    for name in ("a:b", "gs:", "what? a storage"):
        assert paths.root(tmp_path / name) == tmp_path / name
