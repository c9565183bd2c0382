"""Faults 1 to 3: SIGTERM and SIGINT in every part of a run, and a second one."""

from __future__ import annotations

import json
import signal
import time

import numpy as np
import pytest

from multimed_jax.checkpoint import Checkpoints
from tests.faults.conftest import figures, steps_kept

# each test starts whole runs
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

SPARSE = "--config.checkpoint.every_steps=1000"


def last_step(watched) -> int:
    """Of the log: the last finished one."""
    lines = [line for line in watched.lines if line.startswith("step ") and "/" in line]
    return int(lines[-1].split()[1].split("/")[0])


def test_faults_1_and_2_in_a_step_then_in_validation_then_in_evaluation(start, whole, tmp_path):
    """Three stops of one run, which then equals the run that nobody stopped."""
    workdir = tmp_path / "run"
    validation = "--config.eval.validation_every_steps=8"
    run = start(workdir, SPARSE, validation, fault="slow_steps")
    run.wait_for("step 3/")
    run.send()
    assert run.end() == 75, run.text
    assert "Traceback" not in run.text and "stopped by a signal" in run.text
    step = last_step(run)
    # Within one step, though the next regular checkpoint is far away.
    assert steps_kept(workdir) == [step] and 3 <= step < 8

    run = start(workdir, SPARSE, validation, fault="slow_evaluation")
    run.wait_for("predicting")  # the validation at step 8
    run.send(signal.SIGINT)
    assert run.end() == 75, run.text
    assert f"going on from step {step}" in run.text and "Traceback" not in run.text
    assert steps_kept(workdir)[-1] == 8

    run = start(workdir, SPARSE, "--config.eval.validation_every_steps=0", fault="slow_evaluation")
    run.wait_for("predicting")  # the evaluation after the last step
    run.send()
    assert run.end() == 75, run.text
    assert "going on from step 8" in run.text and "Traceback" not in run.text
    assert steps_kept(workdir)[-1] == 16
    assert not (workdir / "results.jsonl").exists()

    run = start(workdir, SPARSE, "--config.eval.validation_every_steps=0")
    assert run.end() == 0, run.text
    assert (workdir / "results.jsonl").exists()
    assert figures(workdir) == figures(whole)
    assert (workdir / "samples.jsonl").read_bytes() == (whole / "samples.jsonl").read_bytes()
    # Equal but for the hash of a config that saves and validates at other steps.
    mine, theirs = (
        [json.loads(line) | {"config_hash": ""} for line in (folder / "results.jsonl").open()]
        for folder in (workdir, whole)
    )
    assert mine == theirs and mine


@pytest.mark.parametrize(
    ("fault", "line"), [("slow_start", "opening"), ("slow_compile", "compili")]
)
def test_fault_2_before_the_first_step(start, tmp_path, fault, line):
    """At the start nothing is saved; while the step is compiled, that step is."""
    run = start(tmp_path / "run", SPARSE, fault=fault)
    run.wait_for(line)
    run.send()
    assert run.end() == 75, run.text
    assert "Traceback" not in run.text
    assert steps_kept(tmp_path / "run") == ([] if fault == "slow_start" else [1])


def test_faults_2_and_3_in_a_save_and_twice(start, tmp_path):
    """Once: the save in progress and that of the last step are finished. Twice: out at once."""
    workdir = tmp_path / "once"
    run = start(workdir, fault="slow_save")
    run.wait_for("saving 4")
    run.send()
    assert run.end() == 75, run.text
    assert "Traceback" not in run.text
    # The save in progress is finished, and that of the step the loop was in follows it.
    assert len(steps_kept(workdir)) == 2 and steps_kept(workdir)[-1] == last_step(run)

    workdir = tmp_path / "twice"
    run = start(workdir, fault="slow_save")
    run.wait_for("saving 8")
    run.send(signal.SIGINT)
    time.sleep(0.3)
    run.send()
    assert run.end() == 128 + signal.SIGTERM, run.text
    assert steps_kept(workdir) == [4]  # the list of step 8 was four seconds away
    assert Checkpoints(workdir / "checkpoints", 2)._newest_intact() == 4
    again = start(workdir)
    assert again.end() == 0, again.text
    assert "checkpoint step 8 is rejected" in again.text
    assert "going on from step 4" in again.text
    losses = [v for (_, name), v in figures(workdir).items() if name == "loss"]
    assert len(losses) == 16 and np.isfinite(losses).all()
