"""csv files of a source: read with the standard library, refused where a column is missing."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from multimed_jax.types import UserError


def read_csv(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a csv file with a header; names lose surrounding blanks and their case.

    Args:
        path: of the file.
        columns: that must be there, in lower case.

    Raises:
        UserError: where the file or a column is missing, or the file is no UTF-8 text.
    """
    if not path.is_file():
        raise UserError(f"the file {path} does not exist; expected columns: {', '.join(columns)}")
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.reader(lines)
            header = [name.strip().lower() for name in next(reader, [])]
            rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"the file {path} is no UTF-8 csv file: {error}") from error
    for column in columns:
        if column not in header:
            raise UserError(
                f"the file {path} has no column {column!r}; it has: "
                f"{', '.join(name for name in header if name)}"
            )
    return [dict(zip(header, row, strict=False)) for row in rows if row]
