"""Who has asked for a run of a sweep, and by what: kept in the sweep's journal, and shown by MLflow on its runs. Holds no secret."""

from __future__ import annotations

import contextlib
import getpass
import json
import os

from service.planning.provenance import commit
from service.terminal.redaction import redact

VARIABLE = "WINNOW_SUBMITTER"  # what `submit` hands to the job, whose driver runs elsewhere and as somebody else
FIELDS = ("user", "name", "type", "commit")
LOCAL, JOB = "LOCAL", "JOB"  # MLflow's words for what a run comes from


def this_process(command: str, kind: str = LOCAL) -> dict[str, str]:
    """`user`, `name` (the command), `type` and `commit` of this process, without those that are not known."""
    user = ""
    with contextlib.suppress(OSError, KeyError, ImportError):  # a user id without a name, as in containers
        user = getpass.getuser()
    known = zip(FIELDS, (user, redact(command), kind, commit()), strict=True)
    return {name: value for name, value in known if value}


def submitter(command: str) -> dict[str, str]:
    """The same of the process that has submitted the sweep: of this one, unless it is a submitted job."""
    given: dict[str, str] = {}
    with contextlib.suppress(ValueError, TypeError):  # not as `submit` writes it
        given = dict(json.loads(os.environ.get(VARIABLE, "{}")))
    return {name: str(given[name]) for name in FIELDS if name in given} or this_process(command)
