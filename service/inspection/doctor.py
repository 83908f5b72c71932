"""`winnow doctor`: whether this machine can run sweeps; one line per result, each with its fix. Leaves nothing behind but kernels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from service.inspection.checks import CHECKS, CheckResult
from trainables.errors import UserError, first_line
from trainables.output import printable, to_json


def check_all(storage: Path) -> Iterator[CheckResult]:
    """Run all checks, which may take seconds each; an unexpected error is a failure, too."""
    for check in CHECKS:
        name = check.__name__.replace("_", " ")
        try:
            yield from check(storage)
        except UserError as error:
            yield CheckResult(name, "fail", str(error))
        except OSError as error:
            yield CheckResult(name, "fail", f"{error.filename}: {error.strerror}" if error.filename else str(error))
        except Exception as error:  # whatever a check raises
            yield CheckResult(name, "fail", first_line(error, named=True))


def describe(result: CheckResult) -> str:
    """`fail  MLflow: http://mlflow:5000 does not answer; start it, or set MLFLOW_TRACKING_URI`."""
    return f"{result.state:<5} {result.what}: {result.message}" + (f"; {result.fix}" if result.fix else "")


def examine(storage: Path, *, json: bool = False) -> int:
    """Print all results; returns 1 if any is a failure, else 0."""
    results = []
    for result in check_all(storage):
        results.append(result)
        if not json:
            print(printable(describe(result), lines=False), flush=True)
    if json:
        print(to_json([result.to_json() for result in results]))
    return int(any(result.state == "fail" for result in results))
