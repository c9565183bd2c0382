"""Faults 11 to 13 and 15: a run that stops anywhere, on any devices, is the run that did not."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from multimed_jax import train
from multimed_jax.checkpoint import Checkpoints
from multimed_jax.command import resolve_config
from multimed_jax.data.sample_log import read_samples
from multimed_jax.preemption import StopRequest
from multimed_jax.run import Run, make_run
from tests.faults import short
from tests.faults.conftest import figures, steps_kept

# compiles a model, or starts whole runs
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

NUM_STEPS = 40


def stored_arrays(workdir: Path) -> dict[str, np.ndarray]:
    """Every array of the last step as it lies on disk, read apart from the package."""
    folder = workdir / "checkpoints" / str(steps_kept(workdir)[-1])
    found = ocp.load(str(folder))
    assert isinstance(found, dict)
    return {name: np.asarray(value) for name, value in found.items()}


# ------------------------------------------------------------------- in one process, 11 and 12


@pytest.fixture(scope="module")
def made(tiny_data, tmp_path_factory) -> Run:
    """The run, compiled once for the eight devices of the tests; windows of a few packs."""
    config = short.get_config()
    config.update(data_dir=str(tiny_data), num_steps=NUM_STEPS, data=dict(window=16))
    return make_run(resolve_config(config), tmp_path_factory.mktemp("made"))


def stretch(made: Run, workdir: Path, to_step: int) -> None:
    """Trains from the last checkpoint of `workdir` to a step, and saves."""
    workdir.mkdir(exist_ok=True)
    config = dataclasses.replace(made.config, num_steps=to_step)
    run = dataclasses.replace(made, workdir=workdir, config=config)
    checkpoints = Checkpoints(workdir / "checkpoints", 2)
    train._Loop(run, checkpoints, StopRequest()).run_steps()
    checkpoints.close()


def test_faults_11_and_12_stops_in_windows_and_at_the_edge_of_an_epoch(made, tmp_path):
    """Bit-equal state, figures and sample ids, with stops where a window or the epoch ends."""
    stretch(made, tmp_path / "whole", NUM_STEPS)
    wanted = read_samples(tmp_path / "whole")
    # Records that carry none of the modalities are never drawn.
    size = made.splits["train"].sizes[0].num_drawable
    drawn = np.cumsum(
        [sum(len(x["rows"]) for x in wanted if x["step"] == s + 1) for s in range(NUM_STEPS)]
    )
    edge = int(np.searchsorted(drawn, size)) + 1  # the step in which the epoch's last draw falls
    assert 6 < edge < NUM_STEPS, "the run is too short to reach a second epoch"
    stops = [1, 2, 5, edge - 2, edge - 1, edge, edge + 1, NUM_STEPS]
    cursors = []
    for step in stops:
        stretch(made, tmp_path / "parts", step)
        found = stored_arrays(tmp_path / "parts")
        assert int(found["state.step"]) == step
        cursors.append(found["cursor"])
    packs = np.concatenate(cursors)[:, 1]
    assert (packs > 0).any() and (packs == 0).any()  # inside windows, and between two
    whole, parts = stored_arrays(tmp_path / "whole"), stored_arrays(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    for part in ("state.params", "state.opt_state", "state.rng", "state.weighting", "cursor"):
        assert any(name.startswith(part) for name in whole), part
    for name in whole:
        assert whole[name].dtype == parts[name].dtype
        np.testing.assert_array_equal(whole[name], parts[name], err_msg=name)
    assert figures(tmp_path / "whole") == figures(tmp_path / "parts")
    assert read_samples(tmp_path / "parts") == wanted
    # More than an epoch was drawn, and it left no record out.
    assert len({row for line in wanted for row in line["rows"]}) == size


# ------------------------------------------------------------------------- whole commands, 13


def test_fault_13_one_two_eight_and_four_devices(start, whole, tmp_path):
    """Four stretches on other devices: losses within 1e-5, the same sample ids in each step."""
    workdir = tmp_path / "run"
    reached = 0
    for devices, stop in ((1, 3), (2, 7), (8, 11), (4, None)):
        run = start(workdir, devices=devices, fault="slow_steps" if stop else "")
        if stop is None:
            assert run.end() == 0, run.text
        else:
            run.wait_for(f"step {stop}/")
            run.send()
            assert run.end() == 75, run.text
        assert (f"going on from step {reached}" in run.text) == (reached > 0)
        last = steps_kept(workdir)[-1]
        assert last > reached
        mesh = json.loads((workdir / "manifest.json").read_text())["mesh"]
        assert np.prod(list(mesh.values())) == devices
        reached = last
    one, many = figures(whole), figures(workdir)
    assert one.keys() == many.keys()
    for key in one:
        if key[1] == "loss" or key[1].startswith("loss/"):
            assert many[key] == pytest.approx(one[key], rel=1e-5), key
    assert (workdir / "samples.jsonl").read_bytes() == (whole / "samples.jsonl").read_bytes()
    left, right = stored_arrays(whole), stored_arrays(workdir)
    assert left.keys() == right.keys()
    for name in left:
        np.testing.assert_allclose(right[name], left[name], rtol=1e-3, atol=2e-5, err_msg=name)


# ------------------------------------------------------------------------------- another run, 15


def test_fault_15_a_changed_config_is_refused_by_its_fields(start, whole, tmp_path):
    workdir = Path(shutil.copytree(whole, tmp_path / "run"))
    before = {p: p.read_bytes() for p in sorted(workdir.rglob("*.json*"))}
    run = start(workdir, "--config.model.d_model=32", "--config.data.rows=3", "--config.seed=9")
    assert run.end() == 1, run.text
    (said,) = [line for line in run.lines if line.startswith("error: ")]
    for change in (
        "seed = 3, this config says 9",
        "data.rows = 2, this config says 3",
        "model.d_model = 16, this config says 32",
    ):
        assert change in said
    assert "Traceback" not in run.text
    assert {p: p.read_bytes() for p in sorted(workdir.rglob("*.json*"))} == before


def test_fault_15_other_data_are_refused_by_their_source(start, whole, tmp_path):
    workdir = Path(shutil.copytree(whole, tmp_path / "run"))
    manifest = json.loads((workdir / "manifest.json").read_text())
    manifest["datasets"] = dict.fromkeys(manifest["datasets"], "0" * 16)
    (workdir / "manifest.json").write_text(json.dumps(manifest))
    run = start(workdir)
    assert run.end() == 1, run.text
    assert "phantoms/tiny with content hash 0000000000000000" in run.lines[-1]


# ---------------------------------------------------------------------------- two writers, 35


def test_fault_35_a_second_writer_is_refused_and_harms_nothing(start, tmp_path):
    workdir = tmp_path / "run"
    first = start(workdir, "--config.num_steps=4000", fault="slow_steps")
    first.wait_for("step 1/")
    second = start(workdir, "--config.num_steps=4000")
    assert second.end() == 1
    assert len(second.lines) == 1
    assert f"--workdir {workdir} is in use by another process" in second.lines[0]
    reached = len(first.lines)
    while len(first.lines) < reached + 2:  # it goes on
        assert first.process.poll() is None
        time.sleep(0.1)
    first.send()
    assert first.end() == 75, first.text


def test_the_devices_of_the_tests():
    assert len(jax.devices()) == 8
