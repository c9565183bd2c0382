"""Whole commands on tiny phantoms: exact resume, meshes, evaluation again, bad input."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from multimed_jax.results import read_rows
from tests.end_to_end.conftest import ROOT, TINY, command, environment, train

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(tiny_data, tmp_path_factory) -> Path:
    """A run that nothing interrupted."""
    workdir = tmp_path_factory.mktemp("run") / "whole"
    done = train(tiny_data, workdir)
    assert done.returncode == 0, done.stderr
    return workdir


def final_arrays(workdir: Path, tiny_data: Path) -> list[np.ndarray]:
    """All arrays of the last checkpoint, restored by the package in a process of its own."""
    script = (
        "import sys, numpy as np, jax; from pathlib import Path;"
        "from multimed_jax.restore import restore_run;"
        "run, state = restore_run(Path(sys.argv[1]));"
        "np.savez(sys.argv[2], *[np.asarray(x) for x in jax.tree.leaves(state)])"
    )
    out = workdir / "final.npz"
    subprocess.run(
        [sys.executable, "-c", script, str(workdir), str(out)],
        cwd=ROOT,
        env=environment(),
        check=True,
        timeout=200,
    )
    with np.load(out) as found:
        return [found[name] for name in found.files]


def losses(workdir: Path) -> dict[int, float]:
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return {row["step"]: row["value"] for row in rows if row["name"] == "loss"}


def test_results_and_curves_are_written(finished):
    rows = read_rows(finished / "results.jsonl")
    assert {row.task for row in rows} == {"tumor", "disease", "motor", "cell_type"}
    assert all(row.n > 0 and row.baseline_name for row in rows)
    assert sorted(losses(finished)) == list(range(1, 41))
    lines = [json.loads(x) for x in (finished / "metrics.jsonl").read_text().splitlines()]
    compilations = {x["value"] for x in lines if x["name"] == "compilations"}
    assert compilations == {1.0}, "the step was compiled again"
    assert list((finished / "tensorboard").glob("events*"))


def test_sigterm_and_rerun_is_bitwise_equal(finished, tiny_data, tmp_path):
    """Stopped half-way by SIGTERM (exit code 75) and run again: every array is the same."""
    workdir = tmp_path / "stopped"
    arguments = ["--config", TINY, f"--config.data_dir={tiny_data}", "--workdir", str(workdir)]
    process = subprocess.Popen(
        [sys.executable, "-m", "multimed_jax.main", *arguments],
        cwd=ROOT,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if line.startswith("step 10/"):
            process.send_signal(signal.SIGTERM)
            break
    rest = process.stderr.read()
    assert process.wait(timeout=120) == 75, "".join(seen) + rest
    assert "Traceback" not in rest
    stopped_at = max(losses(workdir))
    assert 10 <= stopped_at < 40
    assert not (workdir / "results.jsonl").exists()
    again = train(tiny_data, workdir)
    assert again.returncode == 0, again.stderr
    assert f"going on from step {stopped_at}" in again.stderr
    assert losses(workdir) == losses(finished)
    for a, b in zip(
        final_arrays(finished, tiny_data), final_arrays(workdir, tiny_data), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_eight_devices_give_the_losses_of_one(finished, tiny_data, tmp_path):
    done = train(tiny_data, tmp_path / "eight", devices=8)
    assert done.returncode == 0, done.stderr
    one, eight = losses(finished), losses(tmp_path / "eight")
    for step in range(1, 21):
        assert eight[step] == pytest.approx(one[step], rel=1e-5)


def test_evaluate_reproduces_the_rows(finished, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    before = sorted((copy / "results.jsonl").read_text().splitlines())
    os.unlink(copy / "results.jsonl")
    done = command("multimed_jax.evaluate", "--checkpoint", copy)
    assert done.returncode == 0, done.stderr
    assert sorted((copy / "results.jsonl").read_text().splitlines()) == before
    again = command("multimed_jax.evaluate", "--checkpoint", copy)
    assert again.returncode == 0
    assert sorted((copy / "results.jsonl").read_text().splitlines()) == before


def test_predict_writes_every_record(finished, tmp_path):
    out = tmp_path / "predictions.csv"
    done = command("multimed_jax.predict", "--checkpoint", finished, "--out", out)
    assert done.returncode == 0, done.stderr
    rows = read_rows(finished / "results.jsonl")
    n = {row.task: row.n for row in rows if row.protocol == "full"}
    assert len(out.read_text().splitlines()) == 1 + sum(n.values())


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--config.num_stepz=3"], "has no key 'num_stepz'"),
        (["--config.data_dir=/nowhere"], "/nowhere"),
        (["--config.model.fusion=sideways"], "'sideways'"),
        (["--config.model.num_heads=3"], "num_heads"),
        (["--config.mesh.data=3"], "data=3"),
        (["--config.data.row_width=8"], "row_width"),
    ],
)
def test_bad_flags_end_in_one_sentence(tiny_data, tmp_path, flags, sentence):
    done = train(tiny_data, tmp_path / "bad", *flags)
    assert done.returncode not in (0, 75)
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_another_config_in_the_same_folder_is_refused(finished, tiny_data):
    done = train(tiny_data, finished, "--config.model.d_model=32")
    assert done.returncode not in (0, 75)
    assert "d_model" in done.stderr and "16" in done.stderr and "32" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("module", ["multimed_jax.evaluate", "multimed_jax.report"])
def test_a_folder_without_a_run(module, tmp_path):
    flag = ["--checkpoint"] if module.endswith("evaluate") else []
    done = command(module, *flag, tmp_path)
    assert done.returncode not in (0, 75)
    assert str(tmp_path) in done.stderr
    assert "Traceback" not in done.stderr
