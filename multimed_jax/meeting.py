"""How the processes of a job meet: each says who it is and what it runs, and all begin or none.

A star of TCP lines around process 0, kept for the length of the job (`peers`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import select
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from multimed_jax.types import UserError

_POLL_S = 0.5
_HELLO_S = 10.0  # for a process that has connected to say who it is
_SEND_S = 10.0
_LEAVE_S = 3.0  # for the others to read why they cannot begin
_MAX_LINE = 1 << 24  # of a message, in bytes
_HELLO = {"process", "count", "facts"}


@dataclasses.dataclass(frozen=True)
class Place:
    """The place of this process in its job.

    Attributes:
        index: of this process.
        count: of processes.
        address: "host:port" at which process 0 is reached.
        start_timeout_s: within it every process must have come.
        silence_s: a process that is not heard of for so long counts as lost.
    """

    index: int
    count: int
    address: str
    start_timeout_s: float
    silence_s: float

    @property
    def host(self) -> str:
        return self.address.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def name(self, process: int | None = None) -> str:
        """As a sentence names a process (this one where none is given): "process 1 of 2"."""
        return f"process {self.index if process is None else process} of {self.count}"


@dataclasses.dataclass(frozen=True)
class Met:
    """All processes are there and run the same.

    Attributes:
        connections: process -> line; those of process 0 lead to all others, theirs to process 0.
        coordinator: "host:port" for the coordinator of JAX, which process 0 starts.
    """

    connections: Mapping[int, Connection]
    coordinator: str


def meet(place: Place, facts: Mapping[str, str], stopping: Callable[[], bool]) -> Met | None:
    """Waits for all processes and compares what they run.

    Args:
        place: of this process.
        facts: what must be equal on all of them, by what it is called in a sentence.
        stopping: asked while waiting; True calls the meeting off for all.

    Returns:
        None where the meeting was called off.

    Raises:
        UserError: where a process does not come in time, or runs something else.
    """
    deadline = time.monotonic() + place.start_timeout_s
    if place.index == 0:
        return _gather(place, facts, deadline, stopping)
    connection = _call(place, deadline, stopping)
    if connection is None:
        return None
    connection.send({"process": place.index, "count": place.count, "facts": dict(facts)})
    met = None
    try:
        met = _await_begin(place, connection, deadline, stopping)
    finally:
        if met is None:
            connection.close()
    return met


def _await_begin(
    place: Place, connection: Connection, deadline: float, stopping: Callable[[], bool]
) -> Met | None:
    # Process 0 gives up by itself where others do not come: it is waited for a little longer.
    while not connection.closed and time.monotonic() < deadline + _HELLO_S:
        if stopping():
            connection.send({"stopped": True})
            return None
        if messages := connection.receive(_POLL_S):
            message = messages.pop(0)
            if "refused" in message:
                raise UserError(message["refused"])
            if "stopped" in message:
                return None
            connection.put_back(messages)  # process 0 may say more at once: that it fails
            return Met({0: connection}, message["coordinator"])
    raise UserError(f"{place.name(0)} at {place.address} was reached, but did not begin")


def differences(first: Mapping[str, str], other: Mapping[str, str]) -> str:
    """What another process runs otherwise than process 0, for a sentence; empty where nothing."""
    found = []
    for name in [*first, *(name for name in other if name not in first)]:
        here, there = (values[name] if name in values else "none" for values in (first, other))
        if here != there:
            found.append(f"{name} is {there} instead of {here}")
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    return ", ".join(found[:5]) + more


# ---------------------------------------------------------------------------- process 0


def _gather(
    place: Place, facts: Mapping[str, str], deadline: float, stopping: Callable[[], bool]
) -> Met | None:
    found: dict[int, Connection] = {}
    stated: dict[int, Mapping[str, str]] = {0: facts}
    with _listen(place) as server:
        server.settimeout(_POLL_S)
        while len(stated) < place.count:
            if _called_off(found, stated) or stopping():
                _tell(found, {"stopped": True})
                for connection in found.values():
                    connection.drain(time.monotonic() + _LEAVE_S)
                    connection.close()
                return None
            if time.monotonic() > deadline:
                lacking = [str(i) for i in range(place.count) if i not in stated]
                _refuse(
                    found,
                    f"of {place.count} processes {', '.join(lacking)} did not come to "
                    f"{place.address} within {place.start_timeout_s:g} s",
                )
            with contextlib.suppress(TimeoutError):
                _welcome(place, Connection(server.accept()[0]), found, stated)
    for process in range(1, place.count):
        differing = differences(facts, stated[process])
        if differing:
            _refuse(found, f"{place.name(process)} differs from process 0: {differing}")
    with _server(0) as probe:
        port = probe.getsockname()[1]
    coordinator = f"{place.address.rpartition(':')[0]}:{port}"
    _tell(found, {"coordinator": coordinator})
    return Met(found, coordinator)


def _welcome(
    place: Place,
    connection: Connection,
    found: dict[int, Connection],
    stated: dict[int, Mapping[str, str]],
) -> None:
    """Takes in a process; what is not one of this job is left unanswered."""
    message, *later = connection.receive(_HELLO_S) or [{}]
    connection.put_back(later)
    if not message.keys() >= _HELLO or message["count"] != place.count:
        connection.close()
        return
    process = message["process"]
    if process in stated or not 0 < process < place.count:
        _refuse(found | {-1: connection}, f"two processes say that they are {process}")
    found[process], stated[process] = connection, message["facts"]


def _called_off(found: dict[int, Connection], stated: dict[int, Mapping[str, str]]) -> bool:
    """Whether one that has come stops; one that has gone may come again."""
    for process, connection in list(found.items()):
        if any("stopped" in message for message in connection.receive(0.0)):
            return True
        if connection.closed:
            connection.close()
            del found[process], stated[process]
    return False


def _refuse(found: Mapping[int, Connection], sentence: str) -> NoReturn:
    _tell(found, {"refused": sentence})
    for connection in found.values():
        connection.drain(time.monotonic() + _LEAVE_S)
        connection.close()
    raise UserError(sentence)


def _tell(found: Mapping[int, Connection], message: Mapping[str, Any]) -> None:
    for connection in found.values():
        connection.send(message)


def _listen(place: Place) -> socket.socket:
    try:
        return _server(place.port)
    except OSError as error:
        raise UserError(
            f"{place.name()} cannot listen at {place.address} ({error.strerror}); give another port"
        ) from None


def _server(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


# ------------------------------------------------------------------------------- others


def _call(place: Place, deadline: float, stopping: Callable[[], bool]) -> Connection | None:
    while not stopping():
        try:
            return Connection(socket.create_connection((place.host, place.port), timeout=_SEND_S))
        except OSError as error:
            if time.monotonic() > deadline:
                raise UserError(
                    f"{place.name()} did not reach process 0 at {place.address} within "
                    f"{place.start_timeout_s:g} s: {error.strerror or error}"
                ) from None
            time.sleep(_POLL_S / 2)
    return None


# ---------------------------------------------------------------------------- messages


class Connection:
    """JSON objects over a socket, one a line. A broken line is a closed one, never an error."""

    def __init__(self, connected: socket.socket):
        self.socket = connected
        self.closed = False
        self._rest = b""
        self._unread: list[dict[str, Any]] = []
        self._sending = threading.Lock()
        connected.settimeout(_SEND_S)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, message: Mapping[str, Any]) -> None:
        """Sends; one that is gone is noticed where its messages are awaited."""
        with self._sending, contextlib.suppress(OSError):
            self.socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, timeout_s: float) -> list[dict[str, Any]]:
        """The whole messages that have come, after waiting for one until the time is over."""
        if self._unread:
            unread, self._unread = self._unread, []
            return unread
        lines: list[bytes] = []
        deadline = time.monotonic() + timeout_s
        while not lines and not self.closed:
            # Not by the socket's own time limit, which another thread's `send` has to keep.
            left = max(deadline - time.monotonic(), 0.0)
            if not select.select([self.socket], [], [], left)[0]:
                break
            try:
                part = self.socket.recv(1 << 16)
            except OSError:
                part = b""
            self.closed = not part or len(self._rest) > _MAX_LINE
            *lines, self._rest = (self._rest + part).split(b"\n")
        try:
            return [message for line in lines if isinstance(message := json.loads(line), dict)]
        except ValueError:  # not one of ours
            self.closed = True
            return []

    def put_back(self, messages: list[dict[str, Any]]) -> None:
        """What came with a message, for whoever receives next."""
        self._unread = messages + self._unread

    def close(self) -> None:
        self.closed = True
        self.socket.close()

    def drain(self, deadline: float) -> None:
        """Says that nothing more comes, and waits until the other end has closed."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)
        while not self.closed and (left := deadline - time.monotonic()) > 0:
            self.receive(left)
