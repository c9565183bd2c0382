"""Cells of an h5ad file or a Matrix Market folder, as (gene keys, values) one after the other.

An h5ad file is read through h5py: numbers and strings only, nothing is unpickled. Its matrix may
be compressed by rows (csr), by columns (csc) or dense.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32

from multimed_jax.modalities.scrna import gene_key
from multimed_jax.types import UserError
from tfds_builders.core.hdf5_guard import check_hdf5
from tfds_builders.core.records import UnreadableRecord
from tfds_builders.hcl.matrix_market import find, read_matrix, read_names
from tfds_builders.pbmc68k.h5ad_cells import (
    damage_named,
    first_of,
    import_h5py,
    row_names,
    strings,
)

# log(1 + n) of more molecules than any droplet holds (4e8): beyond it the scale is another one.
MAX_LOG1P = 20.0
_ROWS_AT_ONCE = 1024


def expressed(
    keys: Int32[np.ndarray, "k"], values: np.ndarray, unit: str
) -> tuple[Int32[np.ndarray, "n"], Float32[np.ndarray, "n"]]:
    """The genes of a cell that are not 0, keys ascending; equal keys (names apart by case) added.

    Args:
        keys: of the genes, in any order.
        values: of the genes.
        unit: "counts", "log1p" (added as levels) or "scaled" (may be negative).

    Raises:
        UnreadableRecord: a value that is not finite, negative where the unit has none, or beyond
            any log1p level; no gene that is not 0.
    """
    values = np.asarray(values, np.float64)
    if not np.isfinite(values).all():
        raise UnreadableRecord("has a value that is not finite")
    if unit != "scaled" and (values < 0).any():
        raise UnreadableRecord(f"has the negative value {values.min():g}; {unit} have none")
    if unit == "log1p" and (values > MAX_LOG1P).any():
        raise UnreadableRecord(f"has the value {values.max():g}, too large for log1p")
    found, place = np.unique(keys[values != 0], return_inverse=True)
    shown = values[values != 0]
    sums = np.bincount(place, np.expm1(shown) if unit == "log1p" else shown, len(found))
    sums = np.log1p(sums) if unit == "log1p" else sums
    if not len(found):
        raise UnreadableRecord("has no expressed gene")
    return found.astype(np.int32), sums.astype(np.float32)


def keys_of(symbols: Sequence[str]) -> Int32[np.ndarray, "g"]:
    """The stable key of every gene."""
    return np.array([gene_key(symbol) for symbol in symbols], np.int32)


@dataclasses.dataclass(frozen=True)
class MatrixFolder:
    """Genes by cells: matrix.mtx, genes.tsv or features.tsv, barcodes.tsv, gzipped or not."""

    names: tuple[str, ...]
    keys: Int32[np.ndarray, "g"]
    matrix: Any

    @classmethod
    def open(cls, folder: Path) -> MatrixFolder:
        """Reads the folder of 10x Genomics; gene symbols are the second column where there is one.

        Raises:
            UserError: a file is missing or damaged, or their sizes differ.
        """
        if not folder.is_dir():
            raise UserError(f"the folder {folder} does not exist; expected matrix.mtx in it")
        new = any((folder / f"features.tsv{end}").is_file() for end in ("", ".gz"))
        genes = find(folder, "features.tsv" if new else "genes.tsv")
        return cls.join(find(folder, "matrix.mtx"), genes, find(folder, "barcodes.tsv"), 1)

    @classmethod
    def join(cls, matrix: Path, genes: Path, cells: Path, symbol_column: int) -> MatrixFolder:
        """Reads the three files; a gene file with fewer columns has its symbols in the last."""
        made = read_matrix(matrix)
        names = tuple(read_names(cells))
        symbols = read_names(genes, symbol_column)
        if made.shape != (len(symbols), len(names)):
            raise UserError(
                f"the file {matrix} is {made.shape[0]} x {made.shape[1]}; genes and cells name "
                f"{len(symbols)} x {len(names)}"
            )
        return cls(names, keys_of(symbols), made)

    def cell(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Keys and values of a cell's stored entries."""
        genes, values = self.matrix.cell(row)
        return self.keys[genes], values


class H5adFile:
    """An AnnData file: the names of its cells, columns of obs as text, the values of a cell.

    Attributes:
        names: of the cells.
        keys: of the genes, by the names of var.
    """

    def __init__(self, path: Path, layer: str) -> None:
        """Opens "X", "raw.X" or a layer.

        Raises:
            UserError: the file is missing, damaged or lacks the layer.
        """
        if not path.is_file():
            raise UserError(f"the file {path} does not exist; expected an h5ad file")
        check_hdf5(path)
        self._path = path
        with damage_named(path):
            self._file = import_h5py().File(path, "r")
            self._obs = first_of(self._file, "obs")
            if self._obs is None:
                raise UserError(f"the file {path} has no obs; expected a table of the cells there")
            self.names = row_names(self._obs, path)
            is_raw = layer in ("raw.X", "raw")
            self.keys = keys_of(
                row_names(first_of(self._file, "raw/var" if is_raw else "var"), path)
            )
            place = "raw/X" if is_raw else "X" if layer == "X" else f"layers/{layer}"
            if place not in self._file:
                there = list(self._file["layers"]) if "layers" in self._file else []
                raise UserError(
                    f"the file {path} has no {layer!r}; it has the layers: "
                    f"{', '.join(['X', *there])}"
                )
            self._rows = _open_matrix(self._file[place])
            shape = self._rows.shape
        if shape != (len(self.names), len(self.keys)):
            raise UserError(
                f"the file {path} has {shape[0]} x {shape[1]} values; obs and var name "
                f"{len(self.names)} x {len(self.keys)}"
            )

    def column(self, name: str) -> list[str]:
        """A column of obs as text, "" where a category or number is missing.

        Raises:
            UserError: there is no such column.
        """
        columns = list(self._obs) if hasattr(self._obs, "keys") else []
        lower = {column.lower(): column for column in columns if not column.startswith("_")}
        if name.lower() not in lower:
            raise UserError(
                f"obs of {self._path} has no column {name!r}; it has: {', '.join(lower)}"
            )
        with damage_named(self._path):
            return _texts(self._file, lower[name.lower()], self._obs)

    def cell(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Keys and values of a cell's stored entries. Raises UserError for a damaged file."""
        with damage_named(self._path):
            columns, values = self._rows.row(row)
            return self.keys[columns], values


@dataclasses.dataclass
class _Rows:
    """Rows of a matrix, read in blocks: neighbours are asked for one after the other."""

    shape: tuple[int, int]
    data: Any
    indices: Any
    indptr: Any
    start: int = 0
    block: Any = None

    def row(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        if self.block is None or not self.start <= number < self.start + _ROWS_AT_ONCE:
            self.start = number - number % _ROWS_AT_ONCE
            stop = min(self.start + _ROWS_AT_ONCE, self.shape[0])
            if self.indptr is None:
                self.block = self.data[self.start : stop]
            else:
                part = slice(int(self.indptr[self.start]), int(self.indptr[stop]))
                self.block = (self.indices[part], self.data[part])
        if self.indptr is None:
            return np.arange(self.shape[1]), self.block[number - self.start]
        first = int(self.indptr[self.start])
        part = slice(int(self.indptr[number]) - first, int(self.indptr[number + 1]) - first)
        columns, values = self.block[0][part], self.block[1][part]
        if ((columns < 0) | (columns >= self.shape[1])).any():
            raise ValueError("an entry lies outside of the matrix")
        return columns, values


def _open_matrix(stored: Any) -> _Rows:
    if isinstance(stored, import_h5py().Dataset):
        if stored.ndim != 2 or stored.dtype.kind not in "iuf":
            raise ValueError("the matrix holds no numbers in two axes")
        return _Rows((int(stored.shape[0]), int(stored.shape[1])), stored, None, None)
    attributes = stored.attrs
    encoding = str(attributes["encoding-type"] if "encoding-type" in attributes else "")
    shape = attributes["shape" if "shape" in attributes else "h5sparse_shape"]
    rows, columns = (int(n) for n in shape)
    if encoding == "csc_matrix":
        import scipy.sparse

        parts = tuple(stored[name][...] for name in ("data", "indices", "indptr"))
        turned = scipy.sparse.csc_matrix(parts, shape=(rows, columns)).tocsr()
        return _Rows((rows, columns), turned.data, turned.indices, turned.indptr)
    if encoding != "csr_matrix":
        raise ValueError(f"the matrix is stored as {encoding!r}")
    pointers = stored["indptr"][...]
    if len(pointers) != rows + 1 or (np.diff(pointers) < 0).any():
        raise ValueError("the row pointers do not fit the matrix")
    return _Rows((rows, columns), stored["data"], stored["indices"], pointers)


def _texts(file: Any, name: str, obs: Any) -> list[str]:
    values = obs[name]
    if isinstance(values, import_h5py().Group):
        if "codes" in values:
            return _categories(values["codes"][...], _any_texts(values["categories"]))
        shown, hidden = _any_texts(values["values"]), values["mask"][...]
        return ["" if mask else text for text, mask in zip(shown, hidden, strict=True)]
    legacy = f"obs/__categories/{name}"
    if legacy in file:
        return _categories(values[...], _any_texts(file[legacy]))
    return _any_texts(values)


def _categories(codes: np.ndarray, names: list[str]) -> list[str]:
    if codes.dtype.kind not in "iu" or ((codes < -1) | (codes >= len(names))).any():
        raise ValueError("a column has codes outside its categories")
    return ["" if code < 0 else names[code] for code in codes.tolist()]


def _any_texts(values: Any) -> list[str]:
    if values.dtype.kind in "iufb":
        return ["" if v != v else str(v) for v in values[...].tolist()]
    return list(strings(values))
