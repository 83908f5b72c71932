"""Which database keeps the studies of an adaptive sweep. Imports Optuna only where there is one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from search_spaces.sweep import Sweep
from service.storage import paths
from service.terminal.redaction import hides_secret
from trainables.errors import UserError


def open_studies(sweep: Sweep, storage: Path, url: str | None) -> Any:
    """The database of an adaptive sweep's studies, opened: at `url`, else at $WINNOW_STUDY_STORAGE; None where they are in a file.

    Raises UserError where it cannot be opened, and for what a storage on S3 does not share between hosts."""
    known = os.environ.get("WINNOW_STUDY_STORAGE")
    if sweep.search is None:
        return None
    if url and hides_secret(url):
        if not known:
            raise UserError(f"the password of --study-storage {url} is not stored; give it again, or set WINNOW_STUDY_STORAGE")
        url = known
    url = url or known
    if (bucket := paths.remote(storage)[0]) and not url:
        raise UserError(f"on {bucket} an adaptive sweep keeps its studies in a database: --study-storage URL or WINNOW_STUDY_STORAGE")
    if not url:
        return None
    from service.search.study_storage import open_database  # imports optuna

    return open_database(url)
