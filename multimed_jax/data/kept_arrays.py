"""Named arrays of each row of a table, kept in files that several processes read and fill.

    <folder>/used                    bytes of all tables, and the lock under which they grow
    <folder>/<table>/index           16 bytes a row: offset, length, CRC-32; 0 where nothing is kept
    <folder>/<table>/data            entries, one behind the other

An entry is written behind the last one before the index names it, and is never changed. What a
killed process leaves is unnamed; what a machine that lost power leaves does not fit its CRC, which
is computed when a process first reads an entry. Either counts as not kept.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import json
import math
import os
import struct
import threading
import weakref
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from absl import logging

from multimed_jax.types import UserError

Arrays = Mapping[str, np.ndarray]

_ENTRY = struct.Struct("<QII")  # of the index
_HEAD = struct.Struct("<I")  # bytes of the header, which follows
_USED = struct.Struct("<Q")
_ALIGNED = 16
_FULL = (errno.ENOSPC, errno.EDQUOT)


class KeptFolder:
    """The folder of all tables, and how large they may grow together."""

    def __init__(self, path: str, gib: float):
        """Makes the folder where it is not there.

        Raises:
            UserError: where it cannot be made or written to.
        """
        self.path, self._limit = Path(path), gib * 2**30
        self._lock, self._told = threading.Lock(), False
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._file = _open(self, self.path / "used")
            with self.locked():
                sizes = (data.stat().st_size for data in self.path.glob("**/data"))
                os.pwrite(self._file, _USED.pack(sum(sizes)), 0)
        except OSError as error:
            raise self.unusable(error) from error

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """No other thread or process is in here meanwhile. The lock of a killed one is free."""
        with self._lock:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)

    def take(self, size: int) -> bool:
        """Whether so many bytes are left of the limit; they are taken then. Called when locked."""
        (used,) = _USED.unpack(os.pread(self._file, _USED.size, 0))
        if used + size > self._limit:
            if not self._told:
                logging.warning(
                    "%s is full (config.data.decoded_cache_gib is %g): what it lacks is decoded "
                    "each time",
                    self.path,
                    self._limit / 2**30,
                )
            self._told = True
            return False
        os.pwrite(self._file, _USED.pack(used + size), 0)
        return True

    def unusable(self, error: OSError) -> UserError:
        """The sentence of a folder that cannot be read or written."""
        if error.errno in _FULL:
            return UserError(
                f"config.data.decoded_cache {str(self.path)!r} is on a full disk; free some room, "
                "lower config.data.decoded_cache_gib below what is free, or name another folder"
            )
        return UserError(
            f"config.data.decoded_cache {str(self.path)!r} cannot be used ({error.strerror}); "
            "accepted: a folder that can be written, or '' to keep nothing"
        )


class KeptArrays:
    """One table: for each row a kind and some arrays, or nothing."""

    def __init__(self, folder: KeptFolder, name: str, num_rows: int):
        """Opens a table, or makes it. `name` must tell everything that the arrays depend on.

        Raises:
            UserError: where it cannot be opened, or is of another number of rows.
        """
        self._folder, self._num_rows = folder, num_rows
        path = folder.path / name
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._index, self._data = _open(self, path / "index"), _open(self, path / "data")
            with folder.locked():
                size = os.fstat(self._index).st_size
                if not size:
                    os.ftruncate(self._index, num_rows * _ENTRY.size)  # a hole, no blocks
        except OSError as error:
            raise folder.unusable(error) from error
        if size not in (0, num_rows * _ENTRY.size):
            raise UserError(
                f"{path} holds decoded records of {size // _ENTRY.size} rows where its data have "
                f"{num_rows}; delete it"
            )
        self._checked = np.zeros(num_rows, np.bool_)

    def get(self, row: int) -> tuple[str, Arrays] | None:
        """Kind and arrays of a row, which cannot be written to; None where it is not kept."""
        try:
            found = os.pread(self._index, _ENTRY.size, row * _ENTRY.size)
            offset, length, check = _ENTRY.unpack(found)
            if not length:
                return None
            if not self._checked[row] and offset + length > os.fstat(self._data).st_size:
                return None
            content = os.pread(self._data, length, offset)
        except OSError as error:
            raise self._folder.unusable(error) from error
        if not self._checked[row]:
            if len(content) != length or zlib.crc32(content) != check:
                return None
            self._checked[row] = True
        return _unpacked(content)

    def put(self, row: int, kind: str, arrays: Arrays) -> None:
        """Keeps the arrays of a row, unless they are kept or the limit is reached.

        Raises:
            UserError: where the disk is full.
        """
        content = _packed(kind, arrays)
        if content is None:
            return
        with self._folder.locked():
            if self.get(row) is not None or not self._folder.take(len(content)):
                return
            try:
                offset = os.fstat(self._data).st_size
                try:
                    _write(self._data, content, offset)
                except OSError:
                    os.ftruncate(self._data, offset)
                    raise
                entry = _ENTRY.pack(offset, len(content), zlib.crc32(content))
                _write(self._index, entry, row * _ENTRY.size)
            except OSError as error:
                raise self._folder.unusable(error) from error


# ------------------------------------------------------------------------------- internals


def _open(owner: object, path: Path) -> int:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    weakref.finalize(owner, os.close, file)
    return file


def _write(file: int, content: bytes, offset: int) -> None:
    written = 0
    while written < len(content):
        written += os.pwrite(file, content[written:], offset + written)


def _packed(kind: str, arrays: Arrays) -> bytes | None:
    """The bytes of an entry; None for arrays of objects, which have none, and over 4 GiB."""
    if any(array.dtype.hasobject for array in arrays.values()):
        return None
    about = [[name, array.dtype.str, list(array.shape)] for name, array in arrays.items()]
    header = json.dumps([kind, about]).encode()
    header += b" " * (-(_HEAD.size + len(header)) % _ALIGNED)
    pieces = [_HEAD.pack(len(header)), header]
    for array in arrays.values():
        pieces += [array.tobytes(), b"\0" * (-array.nbytes % _ALIGNED)]
    content = b"".join(pieces)
    return content if len(content) < 2**32 else None


def _unpacked(content: bytes) -> tuple[str, Arrays]:
    (length,) = _HEAD.unpack_from(content)
    start = _HEAD.size + length
    kind, places = _places(content[_HEAD.size : start])
    return kind, {
        name: np.frombuffer(content, dtype, count, start + offset).reshape(shape)
        for name, dtype, shape, count, offset in places
    }


@functools.lru_cache(maxsize=1024)
def _places(header: bytes) -> tuple[str, tuple[tuple[str, np.dtype, list[int], int, int], ...]]:
    """Kind, and of each array name, dtype, shape, number of elements, and offset."""
    kind, about = json.loads(header)
    out, offset = [], 0
    for name, text, shape in about:
        dtype, count = np.dtype(text), math.prod(shape)
        out.append((name, dtype, shape, count, offset))
        offset += -(-count * dtype.itemsize // _ALIGNED) * _ALIGNED
    return kind, tuple(out)
