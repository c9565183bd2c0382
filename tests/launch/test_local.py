"""The script that starts processes on one machine: exit codes, signals, one that does not end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.end_to_end.conftest import ROOT

# Stands in for a command of the package: does in each process what the flags say for it.
PROGRAM = """
import os, signal, sys, time
act = sys.argv[1 + int(os.environ["MULTIMED_PROCESS"])]
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
signal.signal(signal.SIGINT, lambda *_: sys.exit(76))
names = ("MULTIMED_PROCESS", "MULTIMED_NUM_PROCESSES", "MULTIMED_COORDINATOR", "XLA_FLAGS")
words = [os.environ[name].split()[-1] for name in names]
os.write(1, (" ".join(words) + "\\n").encode())  # in one piece: the processes share the pipe
if act == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if act in ("wait", "deaf"):
    time.sleep(120)
sys.exit(int(act))
"""


@pytest.fixture
def start(tmp_path):
    (tmp_path / "stand_in.py").write_text(PROGRAM)
    environment = os.environ | {
        "PYTHON": sys.executable,
        "PYTHONPATH": str(tmp_path),
        "MULTIMED_MODULE": "stand_in",
        "MULTIMED_SILENCE_S": "1",
    }

    def begin(*arguments: str, **changes: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["launch/local.sh", *arguments],
            cwd=ROOT,
            env=environment | changes,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return begin


@pytest.mark.parametrize(
    ("acts", "code"),
    [
        (["0", "0"], 0),
        (["75", "75"], 75),
        (["75", "0"], 75),
        (["75", "1"], 1),
        (["1", "75"], 1),
        (["0", "7", "0"], 7),
    ],
)
def test_the_exit_code_is_the_worst(start, acts, code):
    process = start(str(len(acts)), "--", *acts)
    assert process.communicate(timeout=60)[1] == ""
    assert process.returncode == code


def test_every_process_is_told_its_place(start):
    process = start("3", "4", "--", "0", "0", "0")
    lines = [line.split() for line in process.communicate(timeout=60)[0].splitlines()]
    assert sorted(line[0] for line in lines) == ["0", "1", "2"]
    assert {line[1] for line in lines} == {"3"}
    assert len({line[2] for line in lines}) == 1
    assert {line[3] for line in lines} == {"--xla_force_host_platform_device_count=4"}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 76)])
def test_a_signal_goes_to_all(start, number, code):
    process = start("2", "--", "wait", "wait")
    assert process.stdout is not None
    for _ in range(2):
        process.stdout.readline()
    process.send_signal(number)
    assert process.communicate(timeout=60)[1] == ""
    assert process.returncode == code


@pytest.mark.slow
def test_one_that_does_not_end_with_the_others_is_killed(start):
    began = time.monotonic()
    process = start("2", "--", "9", "deaf")
    _, said = process.communicate(timeout=100)
    assert process.returncode == 9
    assert said == "error: processes 1 did not end by themselves and are killed\n"
    assert 15 < time.monotonic() - began < 60


@pytest.mark.parametrize("arguments", [[], ["0", "--"], ["two", "--"], ["2", "--flag"]])
def test_wrong_usage(start, arguments):
    process = start(*arguments)
    assert process.communicate(timeout=60)[1].startswith("error: usage: launch/local.sh N")
    assert process.returncode == 1
