"""The SLURM script under a real controller: stopped in the middle, queued again, finished."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.end_to_end.conftest import ROOT, command
from tests.end_to_end.test_processes import PAIR
from tests.end_to_end.test_run import losses
from tests.launch.slurm_cluster import cluster, lacking

pytestmark = [
    pytest.mark.slow,
    pytest.mark.slurm,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(bool(lacking()), reason=lacking() or "a cluster can be made here"),
]

# The only save is that of the stop.
STEPS = ["--config.checkpoint.every_steps=100"]


@pytest.fixture(scope="module")
def slurm():
    # Not below pytest's own folder: the path of munge's socket must be short.
    with tempfile.TemporaryDirectory(prefix="slurm") as folder, cluster(Path(folder)) as found:
        yield found | {"PYTHON": sys.executable, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}


def submit(environment: dict[str, str], folder: Path, *flags: object, options=()) -> str:
    """The id of a job of two processes on the one node."""
    done = subprocess.run(
        [
            *("sbatch", "--parsable", "--ntasks-per-node=2", f"--chdir={ROOT}"),
            *(f"--output={folder}/%x-%j.log", *options),
            *("launch/slurm.sbatch", *map(str, flags)),
        ],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def job(environment: dict[str, str], number: str) -> dict[str, str]:
    """The fields that `scontrol show job` has; the job is kept for minutes after its end."""
    shown = subprocess.run(
        ["scontrol", "show", "job", number], env=environment, capture_output=True, text=True
    )
    assert shown.returncode == 0, shown.stderr
    return dict(re.findall(r"(\S+?)=(\S*)", shown.stdout))


def wait_for(environment: dict[str, str], number: str, log: Path, seen, limit_s: float) -> None:
    """Until `seen`; says what SLURM and the job's log have where that does not come."""
    deadline = time.monotonic() + limit_s
    while not seen():
        text = log.read_text() if log.exists() else ""
        found = job(environment, number)
        node = Path(environment["SLURM_CONF"]).with_name("slurmd.log").read_text()
        state = f"{found}\n{text}\n{node}"
        assert found["JobState"] in ("PENDING", "RUNNING", "COMPLETING", "COMPLETED"), state
        assert time.monotonic() < deadline, state
        assert not re.search(r"^error:", text, re.MULTILINE), text
        time.sleep(1.0)


def test_a_stopped_job_is_queued_again_and_ends_as_if_nothing_had_been(slurm, tiny_data, tmp_path):
    workdir = tmp_path / "run"
    flags = ["--config", PAIR, f"--config.data_dir={tiny_data}", "--workdir", workdir, *STEPS]
    number = submit(slurm, tmp_path, *flags)
    log = tmp_path / f"multimed-{number}.log"
    wait_for(slurm, number, log, lambda: log.exists() and "step 3/40" in log.read_text(), 600)
    subprocess.run(["scancel", "--signal=TERM", number], env=slurm, check=True)
    wait_for(slurm, number, log, lambda: job(slurm, number)["JobState"] == "PENDING", 300)
    # SLURM lets a job that is queued again wait for two minutes. A node refuses ("already killed")
    # to start it within the second in which it ended, for it compares whole seconds.
    subprocess.run(
        ["scontrol", "update", f"JobId={number}", "StartTime=now+3seconds"], env=slurm, check=True
    )
    wait_for(slurm, number, log, lambda: job(slurm, number)["JobState"] == "COMPLETED", 900)
    text = log.read_text()
    assert job(slurm, number)["Restarts"] == "1"
    assert job(slurm, number)["ExitCode"] == "0:0"
    assert text.count("stopped by a signal") == 1 and "the job is queued again" in text
    assert "start 1: 2 processes" in text and "start 2: 2 processes" in text
    stopped_at = re.search(r"going on from step (\d+)", text)
    assert stopped_at and 3 <= int(stopped_at[1]) < 40
    assert text.count("going on from step") == 1
    assert {p.name for p in (workdir / "heartbeats").iterdir()} == {
        "process-0.json",
        "process-1.json",
    }
    flags[flags.index(workdir)] = tmp_path / "alone"
    alone = command("multimed_jax.main", *flags)
    assert alone.returncode == 0, alone.stderr
    found, expected = losses(workdir), losses(tmp_path / "alone")
    assert sorted(found) == list(range(1, 41))
    for step, loss in expected.items():
        assert found[step] == pytest.approx(loss, rel=1e-5)


def test_a_failing_job_is_not_queued_again(slurm, tiny_data, tmp_path):
    flags = ["--config", PAIR, f"--config.data_dir={tmp_path}/nothing", "--workdir", tmp_path / "b"]
    number = submit(slurm, tmp_path, *flags)
    deadline = time.monotonic() + 300
    while job(slurm, number)["JobState"] not in ("FAILED", "COMPLETED", "CANCELLED"):
        assert time.monotonic() < deadline
        time.sleep(1.0)
    found = job(slurm, number)
    assert (found["JobState"], found["ExitCode"], found["Restarts"]) == ("FAILED", "1:0", "0")
    text = (tmp_path / f"multimed-{number}.log").read_text()
    assert f"{tmp_path}/nothing" in text and "Traceback" not in text


def test_a_job_that_does_not_move_is_ended(slurm, tmp_path):
    """Its processes live, and write no heartbeat; they would stay until the time is up."""
    stuck = tmp_path / "stuck"
    stuck.write_text("#!/bin/sh\nexec sleep 600\n")
    stuck.chmod(0o755)
    (tmp_path / "x" / "heartbeats").mkdir(parents=True)
    (tmp_path / "x" / "heartbeats" / "process-0.json").write_text("{}")  # of an earlier start
    changes = {"PYTHON": str(stuck), "MULTIMED_STALL_S": "20"}
    number = submit(slurm | changes, tmp_path, f"--workdir={tmp_path}/x")
    deadline = time.monotonic() + 150
    while (found := job(slurm, number))["JobState"] not in ("FAILED", "CANCELLED"):
        assert time.monotonic() < deadline, found
        time.sleep(1.0)
    assert found["Restarts"] == "0"
    text = (tmp_path / f"multimed-{number}.log").read_text()
    assert "error: no process has moved for 20 s; the job is ended" in text
    assert "queued again" not in text


def test_jobs_of_an_array_need_folders_of_their_own(slurm, tmp_path):
    number = submit(slurm, tmp_path, "--workdir", tmp_path / "x", options=["--array=3"])
    deadline = time.monotonic() + 120
    while not (found := list(tmp_path.glob("multimed-*.log"))) or not found[0].read_text():
        assert time.monotonic() < deadline, job(slurm, number)
        time.sleep(0.5)
    assert "write %a in --workdir" in found[0].read_text()
    assert not os.path.exists(tmp_path / "x")
