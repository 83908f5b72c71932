"""`service doctor`: whether this machine can run sweeps, one line per finding, each with how to mend it. Leaves nothing behind but kernels.

Each check of service/inspection/checks.py is asked in turn; what it did not foresee is a finding, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from service.inspection.checks import CHECKS, Finding
from trainables.errors import UserError


def findings(storage: Path) -> Iterator[Finding]:
    """One after the other, as they are made; a check may take seconds."""
    for check in CHECKS:
        name = check.__name__.replace("_", " ")
        try:
            yield from check(storage)
        except UserError as error:
            yield Finding(name, "fail", str(error))
        except OSError as error:
            yield Finding(name, "fail", f"{error.filename}: {error.strerror}" if error.filename else str(error))
        except Exception as error:  # the doctor says what hurts, whatever it is
            yield Finding(name, "fail", f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}")


def describe(finding: Finding) -> str:
    """`fail  MLflow: http://mlflow:5000 does not answer; start it, or set MLFLOW_TRACKING_URI`."""
    return f"{finding.state:<5} {finding.what}: {finding.told}" + (f"; {finding.mend}" if finding.mend else "")


def examine(storage: Path, *, json: bool = False) -> int:
    """Print all findings; 1 where one is a failure, else 0."""
    found = []
    for finding in findings(storage):
        found.append(finding)
        if not json:
            print(describe(finding), flush=True)
    if json:
        from json import dumps

        print(dumps([asdict(finding) for finding in found], indent=1))
    return int(any(finding.state == "fail" for finding in found))
