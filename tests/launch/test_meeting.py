"""How processes meet: all begin or none, and whoever is to blame is named."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Mapping

import pytest

from multimed_jax.meeting import Met, Place, meet
from multimed_jax.types import UserError

FACTS = {"jax": "1.0", "config.seed": "3"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def meeting(
    count: int,
    facts: Mapping[int, Mapping[str, str]] | None = None,
    absent: tuple[int, ...] = (),
    stopping: Mapping[int, Callable[[], bool]] | None = None,
    start_timeout_s: float = 20.0,
    port: int | None = None,
) -> dict[int, Met | Exception | None]:
    """What each of `count` processes (threads here) gets out of it."""
    address = f"localhost:{free_port() if port is None else port}"
    found: dict[int, Met | Exception | None] = {}

    def take_part(index: int) -> None:
        place = Place(index, count, address, start_timeout_s, 60.0)
        stated = (facts or {}).get(index, FACTS)
        stop = (stopping or {}).get(index, lambda: False)
        try:
            found[index] = meet(place, stated, stop)
        except UserError as error:
            found[index] = error

    threads = [threading.Thread(target=take_part, args=(i,)) for i in range(count)]
    for index, thread in enumerate(threads):
        if index not in absent:
            thread.start()
    for index, thread in enumerate(threads):
        if index not in absent:
            thread.join(60)
    return found


def part(found: Mapping[int, Met | Exception | None]) -> None:
    for each in found.values():
        if isinstance(each, Met):
            for connection in each.connections.values():
                connection.close()


def test_all_meet_around_process_0():
    found = meeting(4)
    met = {index: each for index, each in found.items() if isinstance(each, Met)}
    assert sorted(met) == [0, 1, 2, 3]
    assert sorted(met[0].connections) == [1, 2, 3]
    assert all(list(met[i].connections) == [0] for i in (1, 2, 3))
    (coordinator,) = {each.coordinator for each in met.values()}
    host, _, port = coordinator.rpartition(":")
    assert host == "localhost" and 0 < int(port) < 65536
    # The lines lead where they say.
    met[2].connections[0].send({"from": 2})
    assert met[0].connections[2].receive(5.0) == [{"from": 2}]
    assert met[0].connections[1].receive(0.1) == []
    part(found)


def test_who_differs_and_in_what_is_told_to_all():
    others = FACTS | {"jax": "0.9", "config.data.lanes": "8"}
    found = meeting(3, facts={2: others})
    sentence = (
        "process 2 of 3 differs from process 0: jax is 0.9 instead of 1.0, "
        "config.data.lanes is 8 instead of none"
    )
    assert [str(found[index]) for index in range(3)] == [sentence] * 3


def test_many_differences_are_counted():
    found = meeting(2, facts={1: {}, 0: {f"fact {i}": "x" for i in range(9)}})
    assert str(found[1]).endswith("fact 4 is none instead of x and 4 more")


def test_who_does_not_come_is_named():
    began = time.monotonic()
    found = meeting(4, absent=(1, 3), start_timeout_s=2.0)
    assert time.monotonic() - began < 15
    assert sorted(found) == [0, 2]
    for error in found.values():
        assert isinstance(error, UserError)
        assert "of 4 processes 1, 3 did not come" in str(error)


def test_process_0_does_not_come():
    found = meeting(2, absent=(0,), start_timeout_s=1.0)
    assert "process 1 of 2 did not reach process 0 at localhost" in str(found[1])


@pytest.mark.parametrize("who", [0, 1])
def test_one_that_is_stopped_calls_the_meeting_off(who):
    asked = iter([False, False])
    found = meeting(3, absent=(2,), stopping={who: lambda: next(asked, True)})
    assert found == {0: None, 1: None}


def test_two_processes_of_one_number():
    address = f"localhost:{free_port()}"
    errors = []

    def take_part(index: int) -> None:
        try:
            meet(Place(index, 3, address, 20.0, 60.0), FACTS, lambda: False)
        except UserError as error:
            errors.append(str(error))

    threads = [threading.Thread(target=take_part, args=(i,)) for i in (0, 1, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == ["two processes say that they are 1"] * 3


def test_a_port_that_is_taken():
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        found = meeting(2, absent=(1,), port=port)
    assert f"cannot listen at localhost:{port}" in str(found[0])


def test_what_is_none_of_the_job_is_left_out():
    """A scanner of ports, and a process of a job of another size."""
    port = free_port()

    def disturb() -> None:
        time.sleep(0.5)
        for text in (b"GET / HTTP/1.1\r\n\r\n", b'{"process": 1, "count": 9, "facts": {}}\n'):
            with socket.create_connection(("localhost", port), timeout=10) as line:
                line.sendall(text)

    waits_until = time.monotonic() + 2.0

    def late() -> bool:
        time.sleep(max(waits_until - time.monotonic(), 0.0))
        return False

    threading.Thread(target=disturb).start()
    found = meeting(2, port=port, stopping={1: late})
    assert isinstance(found[0], Met) and isinstance(found[1], Met)
    part(found)
