"""Records in the order of their keys, whatever their number: sorted runs on disk.

Rows are collected until they fill `RUN_BYTES`, sorted and written: a run. Reading takes the same
range of keys from every run, a range that fills `CHUNK_BYTES` at most, and sorts it. So memory
depends on these two sizes alone, and any range can be read apart, by another process too.

    run 0   [0a 1f|2c 3b|  ..  |fe]        a key is 16 bytes; its first 10 bits are its bucket;
    run 1   [0b   |2a   |  ..  |ff]        the table of a run counts rows and bytes by bucket
             chunk 1   chunk 2  ...
"""

from __future__ import annotations

import dataclasses
import operator
import struct
import uuid
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from etils import epath
from jaxtyping import Int
from tensorflow_datasets.core import hashing

Row = tuple[bytes, bytes]  # key, record
Table = Int[np.ndarray, "1024 2"]  # rows and bytes, by bucket

NUM_BUCKETS = 1024
RUN_BYTES = 16 << 20
CHUNK_BYTES = 8 << 20
KEY_BYTES = 16
_SIZE = struct.Struct("<Q")
_HEAD_BYTES = KEY_BYTES + _SIZE.size  # before every record of a file
_TABLE_BYTES = NUM_BUCKETS * 2 * 8
_key = operator.itemgetter(0)


class Run(Protocol):
    """Rows sorted by key."""

    def read(self, first: int, last: int) -> list[Row]:
        """The rows of the buckets from `first` to `last`, without the latter."""
        ...


@dataclasses.dataclass(frozen=True)
class FileRun:
    """A run in a file: key, size and bytes of every row, then the table.

    Attributes:
        path: of the file, on a file system that every worker reaches.
    """

    path: str

    def read(self, first: int, last: int) -> list[Row]:
        with epath.Path(self.path).open("rb") as file:
            file.seek(-_TABLE_BYTES, 2)
            table = np.frombuffer(file.read(_TABLE_BYTES), "<i8").reshape(NUM_BUCKETS, 2)
            file.seek(int(table[:first, 1].sum()))
            content = file.read(int(table[first:last, 1].sum()))
        rows, at = [], 0
        while at < len(content):
            start = at + _HEAD_BYTES
            end = start + _SIZE.unpack_from(content, at + KEY_BYTES)[0]
            rows.append((content[at : at + KEY_BYTES], content[start:end]))
            at = end
        return rows


@dataclasses.dataclass(frozen=True)
class MemoryRun:
    """A run that was not written, since its rows fit into memory.

    Attributes:
        rows: sorted by key.
        table: of these rows.
    """

    rows: Sequence[Row]
    table: Table

    def read(self, first: int, last: int) -> list[Row]:
        start = int(self.table[:first, 0].sum())
        return list(self.rows[start : start + int(self.table[first:last, 0].sum())])


class RunWriter:
    """Takes rows in any order and leaves sorted runs in a folder.

    Attributes:
        table: of all rows so far.
    """

    def __init__(self, folder: epath.Path, salt: str) -> None:
        """Files go to `folder`, keys are hashed with `salt` as tfds hashes them."""
        self.table = np.zeros((NUM_BUCKETS, 2), np.int64)
        self._folder = folder
        self._hasher = hashing.Hasher(salt)
        self._runs: list[Run] = []
        self._rows: list[Row] = []
        self._num_bytes = 0

    def add(self, name: str, record: bytes) -> None:
        """Takes a record under the hash of its name."""
        key = self._hasher.hash_key(name).to_bytes(KEY_BYTES, "big")
        self._rows.append((key, record))
        self._num_bytes += _HEAD_BYTES + len(record)
        if self._num_bytes >= RUN_BYTES:
            self.spill()

    def spill(self) -> None:
        """Writes what is in memory."""
        if not self._rows:
            return
        table = self._sort()
        # Its own name: a worker that repeats a block, or does it beside another, disturbs no one.
        path = self._folder / f"{uuid.uuid4().hex}.run"
        with path.open("wb") as file:
            for key, record in self._rows:
                file.write(key + _SIZE.pack(len(record)) + record)
            file.write(table.astype("<i8").tobytes())
        self._runs.append(FileRun(str(path)))
        self._rows, self._num_bytes = [], 0

    def files(self) -> tuple[str, ...]:
        """Paths of all runs, the last rows written too."""
        self.spill()
        return tuple(run.path for run in self._runs if isinstance(run, FileRun))

    def runs(self) -> tuple[Run, ...]:
        """All runs; the last rows stay in memory."""
        if not self._rows:
            return tuple(self._runs)
        table = self._sort()
        return (*self._runs, MemoryRun(self._rows, table))

    def _sort(self) -> Table:
        self._rows.sort(key=_key)
        heads = np.frombuffer(b"".join(key for key, _ in self._rows), ">u2")
        buckets = heads.reshape(len(self._rows), -1)[:, 0] // (2**16 // NUM_BUCKETS)
        sizes = [_HEAD_BYTES + len(record) for _, record in self._rows]
        table = np.stack(
            [np.bincount(buckets, weights, NUM_BUCKETS) for weights in (None, sizes)], axis=1
        ).astype(np.int64)
        self.table += table
        return table


@dataclasses.dataclass(frozen=True)
class Sorted:
    """All rows of several runs in the order of their keys.

    Attributes:
        runs: as `RunWriter` left them.
        table: of all of them together.
    """

    runs: Sequence[Run]
    table: Table

    @property
    def num_records(self) -> int:
        return int(self.table[:, 0].sum())

    @property
    def num_bytes(self) -> int:
        """Of the records alone."""
        return int(self.table[:, 1].sum()) - _HEAD_BYTES * self.num_records

    def read(self, start: int, stop: int) -> Iterator[Row]:
        """The rows from rank `start` to rank `stop`, without the latter.

        Raises:
            ValueError: where two rows have one key.
        """
        ends = np.cumsum(self.table[:, 0])
        bucket = int(np.searchsorted(ends, start, "right"))
        while bucket < NUM_BUCKETS and ends[bucket] - self.table[bucket, 0] < stop:
            after = bucket + 1
            while after < NUM_BUCKETS and self.table[bucket : after + 1, 1].sum() <= CHUNK_BYTES:
                after += 1
            rank = int(ends[bucket] - self.table[bucket, 0])
            rows = self._chunk(bucket, after)
            yield from rows[max(start - rank, 0) : stop - rank]
            del rows  # before the next chunk is read
            bucket = after

    def _chunk(self, first: int, last: int) -> list[Row]:
        rows = [row for run in self.runs for row in run.read(first, last)]
        rows.sort(key=_key)
        for (key, _), (following, _) in zip(rows, rows[1:], strict=False):
            if key == following:
                raise ValueError("two records of one split share their sample_id")
        return rows
