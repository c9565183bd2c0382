"""Writes the report of run folders: `python -m multimed_jax.report DIR...`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from multimed_jax.report.page import write_report
from multimed_jax.types import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Reads the arguments and writes; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m multimed_jax.report",
        description="Writes report.html and PNG figures of one or more run folders.",
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="a run folder")
    parser.add_argument(
        "--output",
        type=Path,
        help="where to write: by default DIR/report, and ./report for several folders",
    )
    arguments = parser.parse_args(argv)
    output = arguments.output
    if output is None:
        single = len(arguments.folders) == 1
        output = arguments.folders[0] / "report" if single else Path("report")
    try:
        page = write_report(arguments.folders, output)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
