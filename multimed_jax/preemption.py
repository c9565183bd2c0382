"""SIGTERM and SIGINT: the first asks the run to save and stop, the second stops it at once."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from types import FrameType


class Preempted(Exception):
    """Raised at a point where the run can stop; what it needs to go on is already saved."""


class StopRequest:
    """Whether a signal has asked the run to stop.

    In a job of several processes a signal may reach one of them. Asking is then an agreement: every
    process asks at the same places of the program, and all hear the same answer.

    Attributes:
        step: of training that was finished last, for those who watch.
    """

    def __init__(self) -> None:
        self.step = 0
        self._signal: int | None = None
        self._agree: Callable[[bool], bool] = bool

    def __bool__(self) -> bool:
        return self._agree(self.came_here)

    @property
    def came_here(self) -> bool:
        """Whether a signal has come to this process; what the others know is not asked."""
        return self._signal is not None

    def check(self) -> None:
        """Raises Preempted once a signal has come."""
        if self:
            raise Preempted

    def agree_by(self, agree: Callable[[bool], bool]) -> None:
        """From now on `agree` makes the answer of all processes out of that of each."""
        self._agree = agree

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
