# PYTHON_ARGCOMPLETE_OK
"""The command `winnow`, also as `python -m winnow`: every command of `python -m service`, from any folder."""

from __future__ import annotations

import runpy


def main() -> None:
    """Run the command that was typed, and exit."""
    runpy.run_module("service", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
