"""Cells of an h5ad file, read through h5py: numbers and strings only, nothing is unpickled.

today (anndata 0.8 on)   raw/X {data, indices, indptr}, raw/var/<index>, obs/<column>/{codes,
                         categories}
anndata 0.7              the same, with categories in obs/__categories/<column>
before                   raw.X {data, indices, indptr}, raw.var and obs as tables of rows, with
                         categories in uns/<column>_categories
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32

from multimed_jax.types import UserError
from tfds_builders.core.hdf5_guard import check_hdf5
from tfds_builders.core.records import UnreadableRecord

# log(1 + n) of more molecules than any droplet holds (4e8): beyond it the scale is another one.
MAX_LOG1P = 20.0


@dataclasses.dataclass(frozen=True)
class CellTable:
    """All cells of a file, as compressed sparse rows of raw.X.

    Attributes:
        barcodes: cell names.
        labels: name of each cell's class, "" where it has none.
        genes: symbols of raw.var, in column order.
        data: values of the stored entries.
        indices: column of each entry.
        indptr: first entry of each cell, and the end of the last.
    """

    barcodes: tuple[str, ...]
    labels: tuple[str, ...]
    genes: tuple[str, ...]
    data: Float32[np.ndarray, "nnz"]  # noqa: F821
    indices: Int32[np.ndarray, "nnz"]  # noqa: F821
    indptr: Int32[np.ndarray, "rows"]  # noqa: F821

    def cell(self, row: int) -> tuple[Int32[np.ndarray, "k"], Float32[np.ndarray, "k"]]:  # noqa: F821
        """Columns (ascending) and values of a cell's non-zero genes.

        Raises:
            UnreadableRecord: for a value that is negative, not finite or beyond any log1p level,
                for a gene outside raw.var or one that occurs twice, for a cell without any.
        """
        part = slice(self.indptr[row], self.indptr[row + 1])
        columns, values = self.indices[part], self.data[part]
        if not np.isfinite(values).all():
            raise UnreadableRecord("has a value that is not finite")
        if (values < 0).any():
            raise UnreadableRecord(f"has the negative value {values.min():g}")
        if (values > MAX_LOG1P).any():
            raise UnreadableRecord(f"has the value {values.max():g}, too large for log1p")
        if ((columns < 0) | (columns >= len(self.genes))).any():
            raise UnreadableRecord(f"names a gene beyond the {len(self.genes)} of raw.var")
        order = np.argsort(columns, kind="stable")
        columns, values = columns[order], values[order]
        if (np.diff(columns) == 0).any():
            raise UnreadableRecord("names a gene twice")
        present = values > 0
        if not present.any():
            raise UnreadableRecord("has no expressed gene")
        return columns[present], values[present]


def import_h5py() -> Any:
    """The HDF5 reader. Raises UserError where it is not installed."""
    try:
        import h5py
    except ImportError:
        raise UserError(
            "reading h5ad files needs h5py, which is not installed: "
            "pip install multimed-jax[formats]"
        ) from None
    return h5py


def read_cells(path: Path, label_column: str) -> CellTable:
    """Reads raw.X, the barcodes and one column of labels.

    Raises:
        UserError: where the file is missing, damaged or no HDF5 file, has no raw.X in compressed
            sparse rows, lacks the column, or its parts do not fit together.
    """
    import_h5py()
    if not path.is_file():
        raise UserError(f"the file {path} does not exist; expected an h5ad file")
    with damage_named(path):
        return _read(path, label_column)


@contextlib.contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """Turns what h5py raises on a damaged file into one sentence that names the file."""
    check_hdf5(path)
    try:
        yield
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, IndexError) as error:
        text = " ".join(str(error).split())[:160]
        raise UserError(f"the file {path} is truncated or damaged: {text}") from error


def _read(path: Path, label_column: str) -> CellTable:
    with import_h5py().File(path, "r") as file:
        matrix = _raw_matrix(file, path)
        genes = row_names(first_of(file, "raw/var", "raw.var"), path)
        obs = first_of(file, "obs")
        if obs is None:
            raise UserError(f"the file {path} has no obs; expected obs/{label_column}")
        table = CellTable(
            barcodes=row_names(obs, path),
            labels=_labels(file, obs, label_column, path),
            genes=genes,
            data=_numbers(matrix, "data", np.float32),
            indices=_numbers(matrix, "indices", np.int32),
            indptr=_numbers(matrix, "indptr", np.int32),
        )
    _check(table, path)
    return table


def first_of(file: Any, *names: str) -> Any:
    """The first of the named groups or datasets that the file has."""
    return next((file[name] for name in names if name in file), None)


def _raw_matrix(file: Any, path: Path) -> Any:
    matrix = first_of(file, "raw/X", "raw.X")
    if matrix is None:
        has = "only X, whose values may be scaled" if "X" in file else "no matrix"
        raise UserError(f"the file {path} has {has}; accepted: raw.X with log-normalised values")
    encoding = "an array"
    if isinstance(matrix, import_h5py().Group):
        attributes = matrix.attrs
        encoding = str(
            attributes["encoding-type"]
            if "encoding-type" in attributes
            else attributes["h5sparse_format"]
        )
    if encoding not in ("csr_matrix", "csr"):
        raise UserError(f"raw.X of {path} is stored as {encoding!r}; accepted: csr_matrix")
    return matrix


def _numbers(group: Any, name: str, dtype: type) -> np.ndarray:
    values = group[name]
    if values.dtype.kind not in "iuf":
        raise ValueError(f"raw.X/{name} holds {values.dtype}, not numbers")
    return values[...].astype(dtype)


def strings(values: Any) -> tuple[str, ...]:
    """A dataset, or a field of a table, of UTF-8 strings."""
    if import_h5py().check_string_dtype(values.dtype) is None and values.dtype.kind != "S":
        raise ValueError(f"{values.dtype} where strings are expected")
    cells = np.asarray(values[...]).tolist()
    return tuple(v.decode("utf-8") if isinstance(v, bytes) else str(v) for v in cells)


def row_names(frame: Any, path: Path) -> tuple[str, ...]:
    """Row names of a data frame in any of the encodings."""
    if frame is None:
        raise UserError(f"the file {path} has no raw.var; expected the gene symbols there")
    if isinstance(frame, import_h5py().Group):
        return strings(frame[str(frame.attrs["_index"])])
    names = frame.dtype.names or ()
    return strings(frame["index" if "index" in names else "_index"])


def _labels(file: Any, obs: Any, column: str, path: Path) -> tuple[str, ...]:
    """Class names of the cells from a categorical column in any of the encodings."""
    is_group = isinstance(obs, import_h5py().Group)
    names = list(obs) if is_group else list(obs.dtype.names or ())
    if column not in names:
        there = ", ".join(name for name in names if not name.startswith("_"))
        raise UserError(f"obs of {path} has no column {column!r}; it has: {there}")
    values = obs[column]
    if is_group and isinstance(values, import_h5py().Group):
        codes, categories = values["codes"][...], strings(values["categories"])
    else:
        codes = values[...]
        where = f"obs/__categories/{column}" if is_group else f"uns/{column}_categories"
        if where not in file:
            raise UserError(f"obs/{column} of {path} is no categorical column")
        categories = strings(file[where])
    if codes.dtype.kind not in "iu" or ((codes < -1) | (codes >= len(categories))).any():
        raise ValueError(f"obs/{column} has codes outside its {len(categories)} categories")
    return tuple("" if code < 0 else categories[code] for code in codes.tolist())


def _check(table: CellTable, path: Path) -> None:
    rows = len(table.barcodes)
    if rows == 0:
        raise UserError(f"the file {path} has no cells")
    if len(table.labels) != rows or len(table.indptr) != rows + 1:
        raise UserError(
            f"the file {path} has {rows} barcodes, {len(table.labels)} labels and "
            f"{len(table.indptr) - 1} rows of raw.X; they must agree"
        )
    ends = table.indptr[[0, -1]].tolist()
    if ends != [0, len(table.data)] or len(table.data) != len(table.indices):
        raise UserError(f"raw.X of {path} is damaged: its row pointers do not span its entries")
    if (np.diff(table.indptr) < 0).any():
        raise UserError(f"raw.X of {path} is damaged: its row pointers fall")
    finite = table.data[np.isfinite(table.data)]
    if len(finite) and (finite == np.rint(finite)).all():
        raise UserError(f"raw.X of {path} holds whole numbers; accepted: log1p values")
