"""A SLURM controller and one node on this machine, in a folder of their own, without systemd.

    python -m tests.launch.slurm_cluster FOLDER     starts them, says SLURM_CONF, ends with Ctrl-C

Needs root and Debian's packages slurm-wlm and munge.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel", "sinfo")

_CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort={controller_port}
SlurmdPort={node_port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=2
ReturnToService=2
JobRequeue=1
KillWait=10
MpiDefault=none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def lacking() -> str:
    """Why there can be no cluster here; empty where there can."""
    if os.geteuid() != 0:
        return "a SLURM node needs root"
    found = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"needs Debian's slurm-wlm and munge: no {', '.join(found)}" if found else ""


@contextlib.contextmanager
def cluster(folder: Path, start_s: float = 60.0) -> Iterator[dict[str, str]]:
    """Runs the daemons; yields the environment of SLURM's commands."""
    folder = folder.resolve()
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    conf = folder / "slurm.conf"
    conf.write_text(
        _CONF.format(
            host=socket.gethostname().partition(".")[0],
            folder=folder,
            controller_port=_free_port(),
            node_port=_free_port(),
            cpus=len(os.sched_getaffinity(0)),
        )
    )
    environment = os.environ | {"SLURM_CONF": str(conf)}
    munge = [f"--key-file={key}", f"--socket={folder}/munge.socket"]
    munge += [f"--{name}-file={folder}/munge.{name}" for name in ("pid", "log", "seed")]
    daemons: list[subprocess.Popen] = []
    try:
        for command in (
            ["munged", "--foreground", "--force", *munge],
            ["slurmctld", "-D", "-i", "-f", str(conf)],
            ["slurmd", "-D", "-f", str(conf)],
        ):
            log = (folder / f"{command[0]}.out").open("wb")
            daemons.append(
                subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
            )
            time.sleep(1.0)
        _wait_until_idle(environment, daemons, start_s, folder)
        yield environment
    finally:
        subprocess.run(
            ["scancel", "--full", "--signal=KILL", "--user=root"],
            env=environment,
            capture_output=True,
            check=False,
        )
        for daemon in reversed(daemons):
            daemon.terminate()
            try:
                daemon.wait(15)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


def _wait_until_idle(environment, daemons, start_s: float, folder: Path) -> None:
    deadline = time.monotonic() + start_s
    said = ""
    while time.monotonic() < deadline:
        for daemon in daemons:
            assert daemon.poll() is None, f"{daemon.args} ended; see {folder}"
        found = subprocess.run(
            ["sinfo", "-h", "-o", "%T"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        said = found.stdout.strip() + found.stderr.strip()
        if said == "idle":
            return
        time.sleep(1.0)
    raise TimeoutError(f"the node is {said!r} after {start_s:.0f} s; see {folder}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


if __name__ == "__main__":
    with cluster(Path(sys.argv[1])) as started:
        print(f"export SLURM_CONF={started['SLURM_CONF']}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()
