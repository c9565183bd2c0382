"""Random access to the records of array_record shards.

A record is read as a range of one. By a list of indices, as array_record's own data source and
that of tfds ask, the library first goes through all chunks of the shard: 0.2 ms for a shard of
100,000 records, whatever the record, against 0.01 ms.
"""

from __future__ import annotations

import bisect
import itertools
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from array_record.python import array_record_module  # type: ignore[attr-defined]  # compiled

from multimed_jax.types import Record

# Nothing is read ahead: the next record is drawn from elsewhere.
_OPTIONS = "readahead_buffer_size:0"
_BUFFER_BYTES = 32768


class ShardInstruction(Protocol):
    """Which records of a file belong to a split."""

    filename: str
    skip: int
    take: int


class ShardedRecords:
    """The records of a split in on-disk order; a shard is opened when it is first read.

    Threads share one reader of each shard. An open reader keeps the places of its shard's chunks,
    8 bytes each: one for every 16 records where they are small, else one for every record.
    """

    def __init__(self, shards: Sequence[ShardInstruction], parse: Callable[[bytes], Record]):
        """Opens nothing.

        Args:
            shards: in order.
            parse: from stored bytes to a record.
        """
        self._shards = [(str(s.filename), s.skip, s.take) for s in shards]
        self._ends = list(itertools.accumulate(shard.take for shard in shards))
        self._parse = parse
        self._readers: list[Any] = [None] * len(self._shards)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, row: int, /) -> Record:
        """The record. Raises IndexError, ValueError, OSError or RuntimeError of array_record."""
        return self._parse(self.stored(row))

    def stored(self, row: int) -> bytes:
        """The bytes of a record, not yet parsed."""
        row = int(row)
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        shard = bisect.bisect_right(self._ends, row)
        begin = self._ends[shard - 1] if shard else 0
        position = self._shards[shard][1] + row - begin
        return self._reader(shard).read(position, position + 1)[0]

    def _reader(self, shard: int) -> Any:
        if self._readers[shard] is None:
            with self._lock:
                if self._readers[shard] is None:
                    self._readers[shard] = _open(*self._shards[shard])
        return self._readers[shard]


def _open(file: str, skip: int, take: int) -> Any:
    reader = array_record_module.ArrayRecordReader(
        file, options=_OPTIONS, file_reader_buffer_size=_BUFFER_BYTES
    )
    # Of a file that is missing or damaged array_record itself says that it holds nothing.
    if (found := reader.num_records()) < skip + take:
        raise ValueError(f"{file} holds {found} records of the {skip + take} that it should")
    return reader
