"""Threads that read and decode records, each record under a time limit.

A read that hangs (a dead network mount, a decoder in an endless loop) would otherwise stop a run
without a word. No thread of Python can be ended from outside, so the run ends and names the record.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import Any, Protocol, TypeVar

from multimed_jax.types import UserError

Job = TypeVar("Job")
Job_contra = TypeVar("Job_contra", contravariant=True)
Out_co = TypeVar("Out_co", covariant=True)
Out = TypeVar("Out")

_LOOK_S = 0.5  # between two looks at the clock while a result is awaited


class Reader(Protocol[Job_contra, Out_co]):
    """What a job is handed to."""

    def __call__(self, job: Job_contra, /) -> Out_co: ...

    def name(self, job: Job_contra, /) -> str:
        """What the job reads, for a sentence."""
        ...


class Readers:
    """A pool of threads that watches how long each job takes.

    Its threads are daemons: one that hangs does not keep `close` or the end of the process waiting.
    """

    def __init__(self, threads: int, timeout_s: float):
        """Threads start with the first job.

        Args:
            threads: at least 1.
            timeout_s: limit of one job. Time in which the whole process stood still (suspended, or
                stopped by a signal) does not count.
        """
        self._threads = threads
        self._timeout_s = timeout_s
        self._queue: queue.SimpleQueue[Callable[[int], None] | None] = queue.SimpleQueue()
        self._started = False
        self._closed = threading.Event()
        # Thread number -> (its identity, what it reads, since when).
        self._running: dict[int, tuple[int, Callable[[], str], float]] = {}
        self._lost_s = 0.0

    def map(self, read: Reader[Job, Out], jobs: Iterable[Job]) -> Iterator[Out]:
        """The results in the order of the jobs, all of which are handed to the threads at once.

        Raises:
            UserError: while iterating, where a job takes longer than the limit.
            Exception: what `read` raises, at the place of its job.
        """
        if not self._started:
            self._started = True
            for number in range(self._threads):
                name = f"read-{number}"
                threading.Thread(target=self._work, args=(number,), name=name, daemon=True).start()
        futures: list[Future[Out]] = []
        for job in jobs:
            future: Future[Out] = Future()
            self._queue.put(self._task(read, job, future))
            futures.append(future)
        return self._results(futures)

    def close(self) -> None:
        """Leaves undone what no thread has begun; does not wait for the rest."""
        self._closed.set()
        for _ in range(self._threads):
            self._queue.put(None)

    def _task(self, read: Reader[Job, Out], job: Job, future: Future[Out]) -> Callable[[int], None]:
        def run(number: int) -> None:
            if self._closed.is_set():
                future.cancel()
            if not future.set_running_or_notify_cancel():
                return
            self._running[number] = threading.get_ident(), lambda: read.name(job), self._now()
            try:
                result = read(job)
            except Exception as error:
                future.set_exception(error)
            except BaseException as error:  # such as SystemExit: it would end the thread alone
                future.set_exception(RuntimeError(f"{read.name(job)}: reading ended by {error!r}"))
            else:
                future.set_result(result)
            finally:
                del self._running[number]

        return run

    def _work(self, number: int) -> None:
        while (task := self._queue.get()) is not None:
            task(number)
            del task  # with it the result, which may be large

    def _results(self, futures: list[Future[Out]]) -> Iterator[Out]:
        futures.reverse()
        try:
            while futures:
                yield self._wait(futures.pop())
        finally:
            for future in futures:
                future.cancel()

    def _wait(self, future: Future[Out]) -> Out:
        look_s = min(_LOOK_S, self._timeout_s / 4)
        looked = time.monotonic()
        while not future.done():
            try:
                future.exception(look_s)
            except TimeoutError:
                late = time.monotonic() - looked - look_s
                if late > 2 * look_s:
                    self._lost_s += late
                looked = time.monotonic()
                if self._closed.is_set():
                    raise CancelledError from None
                self._check()
        return future.result()

    def _check(self) -> None:
        for identity, name, since in list(self._running.values()):
            took = self._now() - since
            if took > self._timeout_s:
                raise UserError(
                    f"{name()} has been read for {took:.0f} s and is still not decoded"
                    f"{_place(identity)}; config.data.read_timeout_s is {self._timeout_s:g}: see "
                    "whether its storage answers, or raise the limit"
                )

    def _now(self) -> float:
        return time.monotonic() - self._lost_s


def _place(identity: int) -> str:
    """The innermost line of a running thread: file name without its folder, line, function."""
    frames: dict[int, Any] = sys._current_frames()
    if identity not in frames:
        return ""
    frame = frames[identity]
    code = frame.f_code
    return f" (it is in {code.co_name}, {Path(code.co_filename).name}:{frame.f_lineno})"
