"""How a launcher tells this process its place in a job, by the environment.

A launcher starts the same command N times:

    MULTIMED_NUM_PROCESSES, MULTIMED_PROCESS, MULTIMED_COORDINATOR   any launcher ("host:port")
    JOB_COMPLETION_INDEX                 Kubernetes, in place of MULTIMED_PROCESS (indexed jobs)
    SLURM_STEP_NUM_TASKS, SLURM_PROCID, SLURM_STEP_NODELIST          srun, which sets them itself
    MULTIMED_PORT                        of process 0, with srun; by default it follows the job's id
    MULTIMED_START_TIMEOUT_S             within it all processes must have come (300)
    MULTIMED_SILENCE_S                   a process not heard of for so long counts as lost (60)

With none of these a command is a process by itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from multimed_jax.meeting import Place
from multimed_jax.types import UserError

_START_TIMEOUT_S = 300.0
_SILENCE_S = 60.0
# By default a port below those that systems hand out themselves (from 32768 on Linux).
_PORTS = range(10000, 30000)


def job_place(environ: Mapping[str, str]) -> Place | None:
    """The place of this process in a job; None where it is a process by itself.

    Raises:
        UserError: where the environment names a job, but not a place in it.
    """
    if "MULTIMED_NUM_PROCESSES" in environ:
        count = _integer(environ, "MULTIMED_NUM_PROCESSES")
        given = "MULTIMED_PROCESS" in environ
        index = _integer(environ, "MULTIMED_PROCESS" if given else "JOB_COMPLETION_INDEX")
        address = _given(environ, "MULTIMED_COORDINATOR")
    elif "SLURM_STEP_NUM_TASKS" in environ:
        count = _integer(environ, "SLURM_STEP_NUM_TASKS")
        index = _integer(environ, "SLURM_PROCID")
        port = _PORTS[_integer(environ, "SLURM_JOB_ID") % len(_PORTS)]
        if "MULTIMED_PORT" in environ:
            port = _integer(environ, "MULTIMED_PORT")
        address = f"{first_host(_given(environ, 'SLURM_STEP_NODELIST'))}:{port}"
    else:
        return None
    if not 0 <= index < count:
        raise UserError(
            f"this process is number {index} of {count}; accepted: 0 to {max(count - 1, 0)}"
        )
    if not re.fullmatch(r".+:\d+", address):
        raise UserError(f"MULTIMED_COORDINATOR is {address!r}; accepted: host:port of process 0")
    return Place(
        index,
        count,
        address,
        _seconds(environ, "MULTIMED_START_TIMEOUT_S", _START_TIMEOUT_S),
        _seconds(environ, "MULTIMED_SILENCE_S", _SILENCE_S),
    )


def first_host(nodes: str) -> str:
    """The first host of a SLURM node list such as "gpu[003-007,9],login1"."""
    found = re.match(r"([^\[,]+)(?:\[(\d+)[^\]]*\]([^,\[]*))?", nodes)
    if found is None:
        raise UserError(
            f"SLURM_STEP_NODELIST is {nodes!r}; accepted: such as gpu[003-007,9],login1"
        )
    return "".join(part for part in found.groups() if part)


def _given(environ: Mapping[str, str], name: str) -> str:
    if name not in environ:
        raise UserError(f"the environment names a job, but {name} is not set")
    return environ[name]


def _integer(environ: Mapping[str, str], name: str) -> int:
    text = _given(environ, name)
    if not text.isdecimal():
        raise UserError(f"{name} is {text!r}; accepted: a number from 0")
    return int(text)


def _seconds(environ: Mapping[str, str], name: str, default: float) -> float:
    if name not in environ:
        return default
    try:
        value = float(environ[name])
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise UserError(f"{name} is {environ[name]!r}; accepted: seconds above 0")
    return value
