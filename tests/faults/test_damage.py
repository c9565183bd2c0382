"""Faults 4 to 7: kill -9 in a save, flipped bits, damaged, missing and foreign files."""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from multimed_jax.checkpoint import Checkpoints
from tests.end_to_end.conftest import ROOT, command, environment
from tests.faults.conftest import figures, steps_kept

CURSOR = np.arange(8).reshape(4, 2)

# One process loads the libraries and forks a child for each trial, before JAX has threads.
KILL = """
import os, random, signal, sys, time
from pathlib import Path
import jax, numpy as np
from multimed_jax.checkpoint import Checkpoints

def save_forever(folder, start, told):
    checkpoints = Checkpoints(folder, 2)
    for step in range(start, 10_000):
        state = {"w": np.full((200_000,), step, np.float32), "step": np.int32(step)}
        state = jax.tree.map(jax.numpy.asarray, state)
        checkpoints.save(step, state, np.full((4, 2), step))
        os.write(told, f"{step} {checkpoints.latest() or 0}\\n".encode())

def check(folder, finished):
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    like = {"w": jax.ShapeDtypeStruct((200_000,), np.float32, sharding=device),
            "step": jax.ShapeDtypeStruct((), np.int32, sharding=device)}
    step, found, cursor = Checkpoints(folder, 2).restore(like, np.zeros((4, 2), int))
    assert step >= finished, (step, finished)
    assert int(found["step"]) == step and (np.asarray(found["w"]) == step).all()
    assert (cursor == step).all()
    Checkpoints(folder, 2).wait()
    return step

def in_child(function, *arguments):
    child = os.fork()
    if child:
        return child
    try:
        function(*arguments)
    except BaseException as error:
        print("child failed:", repr(error), flush=True)
        os._exit(1)
    os._exit(0)

folder, generator = Path(sys.argv[1]), random.Random(4)
step = 0
for trial in range(20):
    read, write = os.pipe()
    child = in_child(save_forever, folder, step + 1, write)
    os.close(write)
    told = os.fdopen(read)
    lines = [told.readline() for _ in range(2)]
    time.sleep(generator.uniform(0, 0.2))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    lines += told.read().splitlines()
    told.close()
    whole = [line for line in lines if len(line.split()) == 2]
    finished = int(whole[-1].split()[1])  # listed at the time of the last line
    checker = in_child(lambda: print("restored", check(folder, finished), flush=True))
    assert os.waitpid(checker, 0)[1] == 0, trial
    step = max(int(p.stem) for p in (folder / "sha256").glob("*.json"))
"""


def test_fault_4_kill_9_in_a_save_twenty_times(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", KILL, str(tmp_path)],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    steps = [int(line.split()[1]) for line in done.stdout.splitlines() if "restored" in line]
    assert len(steps) == 20 and steps == sorted(steps)


def make_state(step: int) -> dict:
    return {"w": jax.random.normal(jax.random.key(step), (64, 32)), "n": jnp.asarray(step)}


def like(state: dict) -> dict:
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), state)


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "checkpoints"
    checkpoints = Checkpoints(folder, 2)
    for step in (3, 6):
        checkpoints.save(step, make_state(step), CURSOR + step)
    checkpoints.close()
    return folder


@pytest.fixture
def copy(saved, tmp_path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "checkpoints"))


def restored(folder: Path) -> int:
    """The step that a restore takes, whose every value is compared."""
    step, found, cursor = Checkpoints(folder, 2).restore(like(make_state(0)), CURSOR)
    for name, value in make_state(step).items():
        np.testing.assert_array_equal(np.asarray(found[name]), np.asarray(value))
    np.testing.assert_array_equal(cursor, CURSOR + step)
    return step


def test_fault_5_forty_flipped_bits_never_restore(copy, caplog):
    generator = random.Random(5)
    files = sorted(p for p in (copy / "6").rglob("*") if p.is_file() and p.stat().st_size)
    weights = [p.stat().st_size for p in files]
    for _ in range(40):
        (path,) = generator.choices(files, weights)
        content = path.read_bytes()
        place, bit = generator.randrange(len(content)), generator.randrange(8)
        damaged = bytearray(content)
        damaged[place] ^= 1 << bit
        path.write_bytes(damaged)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert restored(copy) == 3
        assert "step 6 is rejected" in caplog.text
        assert f"{path.relative_to(copy / '6')} has other content" in caplog.text
        path.write_bytes(content)
    assert restored(copy) == 6


def largest(step: Path) -> Path:
    return max((p for p in step.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def truncate(folder: Path) -> None:
    path = largest(folder / "6")
    os.truncate(path, path.stat().st_size // 2)


def empty(folder: Path) -> None:
    os.truncate(largest(folder / "6"), 0)


def missing(folder: Path) -> None:
    largest(folder / "6").unlink()


def extra(folder: Path) -> None:
    (folder / "6" / "state" / "notes.txt").write_text("mine")


def exchanged(folder: Path) -> None:
    """The list of another step: every name is known, no content fits."""
    shutil.copy(folder / "sha256" / "3.json", folder / "sha256" / "6.json")


@pytest.mark.parametrize("damage", [truncate, empty, missing, extra, exchanged])
def test_fault_6_damaged_steps_are_passed_over(copy, damage, caplog):
    damage(copy)
    with caplog.at_level(logging.WARNING):
        assert restored(copy) == 3
    assert "step 6 is rejected, trying the one before" in caplog.text


def empty_step(folder: Path) -> None:
    (folder / "9").mkdir()


def stale_half(folder: Path) -> None:
    (folder / "9.orbax-checkpoint-tmp" / "state").mkdir(parents=True)


def stale_list(folder: Path) -> None:
    """The list of a step that was removed by hand."""
    shutil.copy(folder / "sha256" / "6.json", folder / "sha256" / "9.json")


def foreign(folder: Path) -> None:
    """Names that look like steps and are none."""
    (folder / "007").mkdir()
    (folder / "12").write_text("a file")
    (folder / "-4").mkdir()
    (folder / "²").mkdir()


@pytest.mark.parametrize("edit", [empty_step, stale_half, stale_list, foreign])
def test_fault_7_empty_and_stale_folders_are_ignored(copy, edit):
    edit(copy)
    assert restored(copy) == 6
    # And the run goes on over them.
    checkpoints = Checkpoints(copy, 2)
    checkpoints.restore(like(make_state(0)), CURSOR)
    checkpoints.save(9, make_state(9), CURSOR + 9)
    checkpoints.close()
    assert restored(copy) == 9


def test_fault_7_a_step_of_a_newer_version_says_so(copy, caplog):
    path = copy / "sha256" / "6.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 2}))
    with caplog.at_level(logging.WARNING):
        assert restored(copy) == 3
    assert "has format 2; this version of multimed_jax reads 1" in caplog.text


@pytest.mark.slow  # whole commands
@pytest.mark.timeout(3600)
def test_faults_5_and_6_the_command_falls_back_and_says_so(start, whole, tmp_path):
    """The last step of a finished run is damaged: both commands take the one before, by name."""
    workdir = Path(shutil.copytree(whole, tmp_path / "run"))
    assert steps_kept(workdir) == [12, 16]
    path = largest(workdir / "checkpoints" / "16")
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)
    done = command("multimed_jax.evaluate", "--checkpoint", workdir)
    assert done.returncode == 0, done.stderr
    assert "checkpoint step 16 is rejected" in done.stderr and path.name in done.stderr
    steps = {
        json.loads(line)["checkpoint"]
        for line in (workdir / "results.jsonl").read_text().splitlines()
    }
    assert any("12" in str(step) for step in steps)
    assert (workdir / "checkpoints" / "16").exists()  # `evaluate` removes nothing

    run = start(workdir)
    assert run.end() == 0, run.text
    assert "checkpoint step 16 is rejected" in run.text
    assert "going on from step 12" in run.text
    assert figures(workdir) == figures(whole)
    assert (workdir / "samples.jsonl").read_bytes() == (whole / "samples.jsonl").read_bytes()
    assert Checkpoints(workdir / "checkpoints", 2)._newest_intact() == 16
