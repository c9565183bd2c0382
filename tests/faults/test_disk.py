"""Faults 8 to 10: a full disk, a folder that cannot be written or is gone, a save that fails."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from multimed_jax.checkpoint import Checkpoints
from tests.faults.conftest import steps_kept

# each test starts whole runs
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    """A small file system of its own; skips where this user may not mount one."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if sys.platform != "linux" or shutil.which("mount") is None:
        pytest.skip("needs Linux and `mount` to make a small file system")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this user may not mount a tmpfs: {done.stderr.strip()}")
    try:
        yield
    finally:
        # A process that was just killed may hold the folder for a moment.
        for _ in range(50):
            if not subprocess.run(["umount", str(folder)], check=False).returncode:
                break
            time.sleep(0.1)


def test_fault_8_a_full_disk_ends_the_run_within_one_save_interval(start, tmp_path):
    with mounted(tmp_path / "disk", "size=3m"):
        workdir = tmp_path / "disk" / "run"
        fill = tmp_path / "disk" / "other_user"
        run = start(workdir, fault="slow_steps")
        run.wait_for("step 5/")  # step 4 is saved or being saved
        while 4 not in steps_kept(workdir):
            time.sleep(0.05)
        space = os.statvfs(workdir)
        fill.write_bytes(b"\0" * max(0, (space.f_bavail - 20) * space.f_frsize))
        assert run.end() == 1, run.text
        said = run.lines[-1]
        assert said.startswith("error: ") and "No space left on device" in said
        assert "step 13/" not in run.text  # saved at 8, known at 12
        assert "Traceback" not in run.text
        checkpoints = Checkpoints(workdir / "checkpoints", 2)
        assert steps_kept(workdir) == [4] and checkpoints._newest_intact() == 4
        fill.unlink()
        again = start(workdir)
        assert again.end() == 0, again.text
        assert "going on from step 4" in again.text


def test_fault_8_a_disk_with_no_room_for_logs(start, tmp_path):
    """Not even a log line fits: one sentence all the same."""
    with mounted(tmp_path / "disk", "size=100k"):
        run = start(tmp_path / "disk" / "run", "--config.num_steps=400")
        assert run.end() == 1, run.text
        said = [line for line in run.lines if line.startswith("error: ")]
        assert len(said) == 1 and "No space left on device" in said[0]
        assert "step 400/" not in run.text


def test_fault_9_a_read_only_folder_fails_before_step_0(start, tmp_path):
    with mounted(tmp_path / "disk", "size=3m,ro"):
        run = start(tmp_path / "disk" / "run")
        assert run.end() == 1
        assert len(run.lines) == 1 and run.lines[0].startswith("error: --workdir")
    if os.geteuid():  # root writes wherever it likes
        (tmp_path / "locked").mkdir(mode=0o500)
        run = start(tmp_path / "locked")
        assert run.end() == 1
        assert len(run.lines) == 1 and "cannot be written" in run.lines[0]


def test_fault_9_a_folder_that_vanishes_stops_the_run(start, tmp_path):
    workdir = tmp_path / "run"
    run = start(workdir, fault="slow_steps")
    run.wait_for("step 2/")
    workdir.rename(tmp_path / "moved")
    assert run.end() == 1, run.text
    assert run.lines[-1].startswith("error: ") and str(workdir) in run.lines[-1]
    assert "Traceback" not in run.text and "step 5/" not in run.text
    assert not workdir.exists()  # not begun anew, without its past


def test_fault_10_a_save_that_fails_stops_training(start, tmp_path):
    run = start(tmp_path / "run", fault="failed_save")
    assert run.end() == 1, run.text
    assert "saving step 8" in run.lines[-1] and "the storage said no" in run.lines[-1]
    assert "Traceback" not in run.text
    assert "step 13/" not in run.text  # said at the next save
    assert steps_kept(tmp_path / "run") == [4]


def test_fault_18_a_record_that_hangs_ends_the_run_and_is_named(start, tmp_path):
    run = start(tmp_path / "run", "--config.data.read_timeout_s=2", fault="hanging_record")
    row = run.wait_for("hanging ").split()[1]
    begin = time.monotonic()
    assert run.end() == 1, run.text
    assert time.monotonic() - begin < 30
    said = run.lines[-1]
    assert said.startswith(f"error: record {row} of 'phantoms/tiny' split 'train'")
    assert "Traceback" not in run.text
    kept = steps_kept(tmp_path / "run")
    assert kept and Checkpoints(tmp_path / "run" / "checkpoints", 2)._newest_intact() == kept[-1]
