"""The line between the processes of a job: who is there, who is gone, and why.

Collectives of devices say nothing when a process is missing: they wait. So the line over which the
processes met (`meeting`) stays open beside them. Each is heard of every second; a line that closes,
or silence, ends the job with one sentence on stderr that names the process to look at. At the end
all leave with the worst exit code of them.
"""

from __future__ import annotations

import os
import selectors
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from multimed_jax.meeting import Connection, Place

_BEAT_S = 1.0  # between two signs of life
# For the others to read why this process ends. They lose the runtime of JAX with process 0: it
# waits longer for them.
_LEAVE_S = 2.0
_LEAVE_0_S = 10.0


class Peers:
    """This process's end of the line; watched by a thread from `watch` on."""

    def __init__(self, place: Place, connections: Mapping[int, Connection]):
        self._place = place
        self._connections = dict(connections)
        self._lock = threading.Lock()  # whoever holds it speaks the last sentence
        self._codes: dict[int, int] = {}
        self._agreed: int | None = None
        self._changed = threading.Condition()

    def watch(self, on_beat: Callable[[], None]) -> None:
        """Starts the thread that listens and gives signs of life; `on_beat` is called with each."""
        args = (on_beat,)
        threading.Thread(target=self._watch, args=args, name="peers", daemon=True).start()

    def fail(self, sentence: str) -> NoReturn:
        """Ends this process with an error of its own, which the others hear."""
        with self._lock:
            _say(f"error: {self._place.name()}: {sentence}")
            self._leave(f"{self._place.name()} stopped: {sentence}")

    def finish(self, code: int, is_error: Callable[[int], bool]) -> int:
        """Waits until every process has finished; returns the worst of all exit codes."""
        self._send_all({"done": code})
        with self._changed:
            self._codes[self._place.index] = code
            self._settle(is_error)
            while self._agreed is None:
                self._changed.wait(_BEAT_S)
                self._settle(is_error)
        return self._agreed

    # ---------------------------------------------------------------- the thread

    def _watch(self, on_beat: Callable[[], None]) -> None:
        heard = dict.fromkeys(self._connections, time.monotonic())
        with selectors.DefaultSelector() as selector:
            for process, connection in self._connections.items():
                selector.register(connection.socket, selectors.EVENT_READ, process)
            while True:
                began = time.monotonic()
                self._send_all({"alive": True})
                on_beat()
                while (left := began + _BEAT_S - time.monotonic()) > 0:
                    for key, _ in selector.select(left):
                        self._hear(key.data, heard)
                        if self._connections[key.data].closed:
                            selector.unregister(key.fileobj)
                # Time in which this process stood still is no silence of the others.
                late = time.monotonic() - began - 2 * _BEAT_S
                for process in heard:
                    heard[process] += max(late, 0.0)
                    silent = time.monotonic() - heard[process]
                    if silent > self._place.silence_s and self._agreed is None:
                        self._lose(process, f"has not been heard of for {silent:.0f} s")

    def _hear(self, process: int, heard: dict[int, float]) -> None:
        connection = self._connections[process]
        messages = connection.receive(0.0)
        if messages:
            heard[process] = time.monotonic()
        for message in messages:
            if "verdict" in message:
                with self._lock:
                    _say(f"error: {message['verdict']}; {self._place.name()} ends with it")
                    self._leave(message["verdict"])
            if "done" in message or "agreed" in message:
                with self._changed:
                    if "done" in message:
                        self._codes[process] = message["done"]
                    else:
                        self._agreed = message["agreed"]
                    self._changed.notify_all()
        if connection.closed and self._agreed is None:
            self._lose(process, "has ended without a word: killed, or out of memory")

    def _lose(self, process: int, how: str) -> NoReturn:
        with self._lock:
            self._connections[process].closed = True  # it is not waited for
            verdict = f"{self._place.name(process)} {how}; its own log says more"
            _say(f"error: {verdict}; {self._place.name()} ends with it")
            self._leave(verdict)

    # ---------------------------------------------------------------- the end

    def _settle(self, is_error: Callable[[int], bool]) -> None:
        """Process 0, once all have finished: the worst code is that of all."""
        complete = self._place.index == 0 and len(self._codes) == self._place.count
        if complete and self._agreed is None:
            codes = self._codes.values()
            self._agreed = max(codes, key=lambda code: (is_error(code), code))
            self._send_all({"agreed": self._agreed})

    def _leave(self, verdict: str) -> NoReturn:
        self._send_all({"verdict": verdict})
        deadline = time.monotonic() + (_LEAVE_S if self._place.index else _LEAVE_0_S)
        for connection in self._connections.values():
            connection.drain(deadline)
        sys.stdout.flush()
        os._exit(1)

    def _send_all(self, message: Mapping[str, Any]) -> None:
        for connection in self._connections.values():
            connection.send(message)


def _say(text: str) -> None:
    print(" ".join(text.split()), file=sys.stderr, flush=True)
