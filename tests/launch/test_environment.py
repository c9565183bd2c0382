"""The place of a process as each launcher tells it."""

from __future__ import annotations

import pytest

from multimed_jax.environment import first_host, job_place
from multimed_jax.types import UserError

PLAIN = {
    "MULTIMED_NUM_PROCESSES": "4",
    "MULTIMED_PROCESS": "3",
    "MULTIMED_COORDINATOR": "gpu1.cluster:12345",
}
SLURM = {
    "SLURM_JOB_ID": "20007",
    "SLURM_STEP_NUM_TASKS": "16",
    "SLURM_PROCID": "9",
    "SLURM_STEP_NODELIST": "gpu[007-008]",
}


def test_no_job():
    assert job_place({}) is None
    # The shell of a batch script, before srun.
    assert job_place({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "2", "SLURM_PROCID": "0"}) is None


def test_plain_variables():
    place = job_place(PLAIN | {"MULTIMED_SILENCE_S": "7.5"})
    assert place is not None
    assert (place.index, place.count) == (3, 4)
    assert (place.host, place.port) == ("gpu1.cluster", 12345)
    assert (place.silence_s, place.start_timeout_s) == (7.5, 300.0)
    assert place.name() == "process 3 of 4" and place.name(0) == "process 0 of 4"


def test_an_ipv6_address():
    place = job_place(PLAIN | {"MULTIMED_COORDINATOR": "[fd00::1]:99"})
    assert place is not None
    assert (place.host, place.port) == ("fd00::1", 99)


def test_the_index_of_a_kubernetes_job():
    environ = PLAIN | {"JOB_COMPLETION_INDEX": "1"}
    del environ["MULTIMED_PROCESS"]
    place = job_place(environ)
    assert place is not None and place.index == 1


def test_slurm_tells_by_itself():
    place = job_place(SLURM)
    assert place is not None
    assert (place.index, place.count, place.host) == (9, 16, "gpu007")
    # A port of every job, below those that Linux hands out, and the same for all tasks.
    assert place.port == 10007
    other = job_place(SLURM | {"SLURM_PROCID": "0"})
    assert other is not None and other.address == place.address
    chosen = job_place(SLURM | {"MULTIMED_PORT": "23456"})
    assert chosen is not None and chosen.port == 23456


def test_plain_variables_go_before_slurm():
    place = job_place(SLURM | PLAIN)
    assert place is not None and place.count == 4


@pytest.mark.parametrize(
    ("nodes", "host"),
    [
        ("node001", "node001"),
        ("node001,other2", "node001"),
        ("node[001-015],other2", "node001"),
        ("node[7,9-15]", "node7"),
        ("rack[3-4]-gpu", "rack3-gpu"),
        ("a-b.c.org", "a-b.c.org"),
    ],
)
def test_first_host_of_a_list(nodes, host):
    assert first_host(nodes) == host


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"MULTIMED_PROCESS": "4"}, "number 4 of 4"),
        ({"MULTIMED_PROCESS": "-1"}, "MULTIMED_PROCESS is '-1'"),
        ({"MULTIMED_NUM_PROCESSES": "two"}, "MULTIMED_NUM_PROCESSES is 'two'"),
        ({"MULTIMED_COORDINATOR": "gpu1"}, "MULTIMED_COORDINATOR is 'gpu1'"),
        ({"MULTIMED_SILENCE_S": "0"}, "MULTIMED_SILENCE_S is '0'"),
        ({"MULTIMED_START_TIMEOUT_S": "soon"}, "MULTIMED_START_TIMEOUT_S is 'soon'"),
        ({"MULTIMED_START_TIMEOUT_S": "nan"}, "MULTIMED_START_TIMEOUT_S is 'nan'"),
    ],
)
def test_what_makes_no_sense_is_named(change, sentence):
    with pytest.raises(UserError, match=sentence):
        job_place(PLAIN | change)


@pytest.mark.parametrize("lacking", ["MULTIMED_PROCESS", "MULTIMED_COORDINATOR"])
def test_what_is_lacking_is_named(lacking):
    with pytest.raises(UserError, match="is not set"):
        job_place({k: v for k, v in PLAIN.items() if k != lacking})
