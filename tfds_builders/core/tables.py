"""Tables of a source: read with the standard library, refused where a column is missing."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from multimed_jax.types import UserError


def read_csv(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a csv file with a header; names lose surrounding blanks and their case.

    Args:
        path: of the file, which may be gzipped.
        columns: that must be there, in lower case.

    Raises:
        UserError: where the file or a column is missing, or the file is no UTF-8 text.
    """
    return _read_table(path, columns, ",", csv.QUOTE_MINIMAL)


def read_tsv(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """As `read_csv`, of a file whose cells are parted by tabs and hold quotes as they are."""
    return _read_table(path, columns, "\t", csv.QUOTE_NONE)


@contextmanager
def open_text(path: Path) -> Iterator[IO[str]]:
    """A UTF-8 text file, gzipped where it is named `.gz`.

    Raises:
        UserError: where it cannot be opened, or reading inside the block meets damage.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", newline="", encoding="utf-8-sig") as lines:
            yield lines  # type: ignore[misc]
    except OSError as error:
        reason = error.strerror or str(error)[:80]
        raise UserError(f"the file {path} cannot be read: {reason}") from error
    except (EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UserError(f"the file {path} is damaged, or no UTF-8 text: {error}") from error


def _read_table(
    path: Path, columns: Sequence[str], delimiter: str, quoting: int
) -> list[dict[str, str]]:
    if not path.is_file():
        raise UserError(f"the file {path} does not exist; expected columns: {', '.join(columns)}")
    try:
        with open_text(path) as lines:
            reader = csv.reader(lines, delimiter=delimiter, quoting=quoting)  # pyright: ignore[reportArgumentType]
            header = [name.strip().lower() for name in next(reader, [])]
            rows = list(reader)
    except csv.Error as error:
        raise UserError(f"the file {path} is no UTF-8 csv file: {error}") from error
    for column in columns:
        if column not in header:
            raise UserError(
                f"the file {path} has no column {column!r}; it has: "
                f"{', '.join(name for name in header if name)}"
            )
    return [dict(zip(header, row, strict=False)) for row in rows if row]
