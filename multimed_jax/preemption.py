"""SIGTERM and SIGINT: the first asks the run to save and stop, the second stops it at once."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType


class Preempted(Exception):
    """Raised at a point where the run can stop; what it needs to go on is already saved."""


class StopRequest:
    """Whether a signal has asked the run to stop."""

    def __init__(self) -> None:
        self._signal: int | None = None

    def __bool__(self) -> bool:
        return self._signal is not None

    def check(self) -> None:
        """Raises Preempted once a signal has come."""
        if self:
            raise Preempted

    def _receive(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self._signal is not None:
            # Nothing is flushed or joined: the last committed checkpoint stays as it is.
            os._exit(128 + number)
        self._signal = number


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Installs the handlers for the length of a `with` block."""
    request = StopRequest()
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, request._receive) for number in numbers}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
