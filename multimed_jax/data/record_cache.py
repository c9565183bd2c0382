"""Keeps parsed records in memory, which saves reading and parsing them again in every epoch.

Epochs draw records in random order, so nothing is ever evicted: records stay until the budget is
full, later ones are read again each time. The payloads stay encoded as the shards hold them.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from multimed_jax.types import Record

# Dictionaries, small arrays and keys of a parsed record beside its payload, measured.
_OVERHEAD_BYTES = 4000


class CacheBudget:
    """Bytes that all caches of a run share."""

    def __init__(self, mib: int):
        self._left = mib << 20
        self._lock = threading.Lock()

    def take(self, size: int) -> bool:
        """Whether `size` bytes were still free; they are taken then."""
        with self._lock:
            if size > self._left:
                return False
            self._left -= size
            return True


class CachedRecords:
    """Random-access records that are kept once read, as long as the budget lasts."""

    def __init__(self, records: Sequence[Record], budget: CacheBudget):
        self._records = records
        self._budget = budget
        self._kept: dict[int, Record] = {}

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, row: int, /) -> Record:
        record = self._kept.get(row)
        if record is None:
            record = self._records[row]
            if self._budget.take(_OVERHEAD_BYTES + _size(record)):
                self._kept[row] = record
        return record


def _size(value: Any) -> int:
    if isinstance(value, Mapping):
        return sum(_size(v) for v in value.values())
    if isinstance(value, np.ndarray) and value.dtype != object:
        return value.nbytes
    if isinstance(value, (bytes, str)):
        return len(value)
    return 64 * len(value) if isinstance(value, (list, tuple)) else 16
