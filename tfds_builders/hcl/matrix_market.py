"""A gene-by-cell matrix in three files: Matrix Market, gene names, cell names; gzip or plain.

Source of the format: NIST, "The Matrix Market Exchange Formats" (1996), coordinate, real, general.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int32

from multimed_jax.types import UserError

# Twice the entries of a million cells with 2,500 genes each: beyond it the size line is damaged.
MAX_ENTRIES = 5_000_000_000
_HEADER = "%%matrixmarket matrix coordinate"


@dataclasses.dataclass(frozen=True)
class Columns:
    """A sparse matrix by columns (cells).

    Attributes:
        shape: genes and cells.
        rows: gene of each entry, from 0, ascending within a cell.
        values: of each entry.
        ends: first entry of each cell, and the end of the last.
    """

    shape: tuple[int, int]
    rows: Int32[np.ndarray, "nnz"]  # noqa: F821
    values: Float32[np.ndarray, "nnz"]  # noqa: F821
    ends: np.ndarray

    def cell(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Genes and values of a cell."""
        part = slice(self.ends[number], self.ends[number + 1])
        return self.rows[part], self.values[part]


def find(folder: Path, name: str) -> Path:
    """`name` or `name.gz` in the folder. Raises UserError where there is neither."""
    for path in (folder / f"{name}.gz", folder / name):
        if path.is_file():
            return path
    raise UserError(f"the folder {folder} has no {name} or {name}.gz")


@contextlib.contextmanager
def _open(path: Path) -> Iterator[io.TextIOBase]:
    try:
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
            yield lines  # type: ignore[misc]
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UserError(f"the file {path} is truncated or damaged: {str(error)[:80]}") from error


def read_names(path: Path, column: int = 0) -> list[str]:
    """The tab-separated field `column` of every line, the last of a line that has fewer.

    Raises:
        UserError: where the file is damaged or empty.
    """
    with _open(path) as lines:
        rows = [line.rstrip("\n").split("\t") for line in lines if line.strip()]
    names = [row[min(column, len(row) - 1)].strip() for row in rows]
    if not names:
        raise UserError(f"the file {path} is empty; expected a name on every line")
    return names


def read_matrix(path: Path) -> Columns:
    """Reads a matrix whose entries may come in any order.

    Raises:
        UserError: where the file is no such matrix, damaged, has an entry outside its size, two at
            one place, or another number of entries than it says.
    """
    with _open(path) as lines:
        header = lines.readline()
        if not header.lower().startswith(_HEADER):
            raise UserError(f"the file {path} is no Matrix Market file of coordinates")
        size = lines.readline()
        while size.startswith("%"):
            size = lines.readline()
        try:
            genes, cells, number = (int(text) for text in size.split())
            if min(genes, cells) < 1 or not 0 < number <= MAX_ENTRIES:
                raise ValueError(size.strip())
            table = np.loadtxt(lines, np.float64, ndmin=2, max_rows=number + 1)
        except ValueError as error:
            raise UserError(f"the file {path} is damaged: {str(error)[:80]}") from error
    if table.shape != (number, 3):
        raise UserError(f"the file {path} has {len(table)} entries; its size line says {number}")
    rows, columns = table[:, 0], table[:, 1]
    whole = (rows == np.rint(rows)) & (columns == np.rint(columns))
    inside = (rows >= 1) & (rows <= genes) & (columns >= 1) & (columns <= cells)
    if not (whole & inside).all():
        raise UserError(f"the file {path} has entries outside its {genes} x {cells} places")
    order = np.lexsort((rows, columns))
    rows, columns = rows[order].astype(np.int64) - 1, columns[order].astype(np.int64) - 1
    if (np.diff(columns * genes + rows) == 0).any():
        raise UserError(f"the file {path} has two entries at one place")
    return Columns(
        (genes, cells),
        rows.astype(np.int32),
        table[order, 2].astype(np.float32),
        np.searchsorted(columns, np.arange(cells + 1)),
    )
