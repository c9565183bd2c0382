"""The HDF5 files of PatchCamelyon: tiles a block at a time, labels at once. Requires h5py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32, UInt8

from multimed_jax.types import UserError
from tfds_builders.core.hdf5_guard import check_hdf5

SIDE = 96


class TileFile:
    """The tiles of one split."""

    def __init__(self, path: Path) -> None:
        """Looks at the file's shape.

        Raises:
            UserError: it is missing, damaged, or holds no RGB tiles of 96 x 96 in `x`.
        """
        self._path = path
        shape, kind = _shape_of(path, "x")
        if shape[1:] != (SIDE, SIDE, 3) or kind != np.uint8:
            raise UserError(
                f"the file {path} has x of {kind} {list(shape)}; accepted: uint8 "
                f"[n, {SIDE}, {SIDE}, 3]"
            )
        self._length = shape[0]

    def __len__(self) -> int:
        return self._length

    def read(self, start: int, stop: int) -> UInt8[np.ndarray, "n 96 96 3"]:
        """Tiles `start` to `stop`."""
        return _read(self._path, "x", slice(start, stop))


def read_labels(path: Path) -> Int32[np.ndarray, "n"]:  # noqa: F821
    """All labels of one split.

    Raises:
        UserError: the file is missing or damaged, or holds other values than 0 and 1 in `y`.
    """
    _shape_of(path, "y")
    labels = _read(path, "y", slice(None)).reshape(-1).astype(np.int32)
    if not np.isin(labels, (0, 1)).all():
        raise UserError(f"the file {path} has the label {labels.max()}; accepted: 0, 1")
    return labels


def _shape_of(path: Path, key: str) -> tuple[tuple[int, ...], np.dtype]:
    if not path.is_file():
        packed = " (unpack the .gz file beside it)" if Path(f"{path}.gz").is_file() else ""
        raise UserError(f"the file {path} does not exist{packed}")
    check_hdf5(path)
    with _h5py().File(path, "r") as file:
        if key not in file:
            raise UserError(f"the file {path} has no dataset {key!r}; it has: {', '.join(file)}")
        return tuple(file[key].shape), file[key].dtype


def _read(path: Path, key: str, rows: slice) -> np.ndarray:
    with _h5py().File(path, "r") as file:
        return np.asarray(file[key][rows])


def _h5py() -> Any:
    try:
        import h5py
    except ImportError:
        raise UserError(
            "reading HDF5 files needs h5py, which is not installed: "
            "pip install multimed-jax[formats]"
        ) from None
    return h5py
