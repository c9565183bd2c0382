"""Memory of batches that are gone, used again.

The system clears every page that it gives out; for batches of images that takes as long as to lay
them out.
"""

from __future__ import annotations

import collections
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

_SPARE = 4  # buffers of one size that wait to be used, for each stream: about those of a prefetch


class _Lease:
    """What an array is made over; it dies with the last array, or view of one, that needs it."""

    def __init__(self, interface: dict[str, Any]):
        self.__array_interface__ = interface


class Buffers:
    """Gives out arrays, and takes their memory back once nothing refers to it."""

    def __init__(self) -> None:
        self._spare: dict[int, collections.deque[np.ndarray]] = {}
        self._closed = False

    def empty(self, shape: Sequence[int], dtype: str) -> np.ndarray:
        """An array whose values are not set."""
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        spare = self._spare.setdefault(size, collections.deque(maxlen=_SPARE))
        try:
            buffer = spare.pop()  # at once, whatever other threads do
        except IndexError:
            buffer = np.empty(size, np.uint8)
        lease = _Lease(buffer.__array_interface__)
        # The call keeps the buffer alive until then.
        weakref.finalize(lease, self._take_back, size, buffer).atexit = False
        return np.asarray(lease).view(dtype).reshape(tuple(shape))

    def close(self) -> None:
        """Lets go of all memory; what comes back later is not kept."""
        self._closed = True
        self._spare = {}

    def _take_back(self, size: int, buffer: np.ndarray) -> None:
        if not self._closed and size in self._spare:
            self._spare[size].append(buffer)
