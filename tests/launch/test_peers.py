"""What the others do when a process dies, falls silent, fails or finishes."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.end_to_end.conftest import ROOT
from tests.launch.test_meeting import free_port


@contextlib.contextmanager
def job(*acts: str, silence_s: float = 30.0) -> Iterator[list[subprocess.Popen[str]]]:
    """A process for each act; all have met."""
    address = f"127.0.0.1:{free_port()}"
    started = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.launch.peer_program"),
                *(str(index), str(len(acts)), address, str(silence_s), act),
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index, act in enumerate(acts)
    ]
    try:
        for process in started:
            assert process.stdout is not None and process.stdout.readline() == "together\n"
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


def ends(process: subprocess.Popen[str], within_s: float) -> tuple[int, str]:
    _, said = process.communicate(timeout=within_s)
    return process.returncode, said.strip()


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_others_at_once(victim):
    with job("stay", "stay", "stay") as started:
        time.sleep(1.5)
        started[victim].kill()
        killed = time.monotonic()
        for index, process in enumerate(started):
            if index != victim:
                code, said = ends(process, 15)
                assert code == 1
                assert said == (
                    f"error: process {victim} of 3 has ended without a word: killed, or out of "
                    f"memory; its own log says more; process {index} of 3 ends with it"
                )
        assert time.monotonic() - killed < 10


def test_a_process_that_stands_still_is_lost_after_the_limit():
    with job("stay", "stay", silence_s=4.0) as started:
        time.sleep(1.0)
        started[1].send_signal(signal.SIGSTOP)
        stopped = time.monotonic()
        code, said = ends(started[0], 30)
        took = time.monotonic() - stopped
        assert code == 1 and 3.0 < took < 12
        assert said.startswith("error: process 1 of 2 has not been heard of for ")
        assert len(said.splitlines()) == 1
        started[1].send_signal(signal.SIGCONT)
        assert ends(started[1], 15)[0] == 1


def test_a_whole_job_that_was_suspended_goes_on():
    """As a scheduler suspends it: nobody was silent while nobody listened."""
    with job("stay", "stay", silence_s=3.0) as started:
        time.sleep(1.0)
        for process in started:
            process.send_signal(signal.SIGSTOP)
        time.sleep(6.0)
        for process in started:
            process.send_signal(signal.SIGCONT)
        time.sleep(2.5)
        assert [process.poll() for process in started] == [None, None]


@pytest.mark.parametrize("who", [0, 2])
def test_why_a_process_fails_is_said_by_all(who):
    acts = ["stay", "stay", "stay"]
    acts[who] = "fail"
    with job(*acts) as started:
        for index, process in enumerate(started):
            code, said = ends(process, 15)
            assert code == 1
            own = f"error: process {who} of 3: the record is gone"
            heard = f"error: process {who} of 3 stopped: the record is gone; "
            assert said == (own if index == who else heard + f"process {index} of 3 ends with it")


@pytest.mark.parametrize(
    ("codes", "agreed"), [((0, 0, 0), 0), ((75, 75, 75), 75), ((75, 1, 75), 1), ((1, 75, 0), 1)]
)
def test_all_leave_with_the_worst_code(codes, agreed):
    with job(*(f"finish={code}" for code in codes)) as started:
        assert [ends(process, 15) for process in started] == [(agreed, "")] * 3
