"""Several processes are one run: the same figures, stopped together, ended together."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from multimed_jax.data.sample_log import read_samples
from multimed_jax.results import ResultRow, read_rows
from tests.end_to_end.conftest import ROOT, command, environment
from tests.end_to_end.test_run import losses
from tests.launch.test_meeting import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

PAIR = "tests/end_to_end/pair.py"


def flags(data: Path, workdir: Path) -> list[str]:
    return ["--config", PAIR, f"--config.data_dir={data}", "--workdir", str(workdir)]


def local(
    count: int, devices: int, *arguments: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Runs `launch/local.sh`."""
    return subprocess.run(
        ["launch/local.sh", str(count), str(devices), "--", *arguments],
        cwd=ROOT,
        env=environment() | {"PYTHON": sys.executable} | variables,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


@contextlib.contextmanager
def two_processes(
    *arguments: str, of_second: tuple[str, ...] = (), silence_s: float = 60.0
) -> Iterator[list[subprocess.Popen[str]]]:
    """Two processes of a device each, started as a launcher does."""
    job = {
        "MULTIMED_NUM_PROCESSES": "2",
        "MULTIMED_COORDINATOR": f"127.0.0.1:{free_port()}",
        "MULTIMED_SILENCE_S": str(silence_s),
        "MULTIMED_START_TIMEOUT_S": "200",
    }
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "multimed_jax.main", *arguments, *(of_second if index else ())],
            cwd=ROOT,
            env=environment() | job | {"MULTIMED_PROCESS": str(index)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


def wait_for_line(process: subprocess.Popen[str], beginning: str) -> str:
    """Reads stderr up to a line that begins so; returns what was read."""
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if line.startswith(beginning):
            return "".join(seen)
    raise AssertionError(f"no line {beginning!r} in:\n{''.join(seen)}")


def errors(said: str) -> list[str]:
    return [line for line in said.splitlines() if line.startswith("error:")]


@pytest.fixture(scope="module")
def alone(tiny_data, tmp_path_factory) -> Path:
    """One process, one device."""
    workdir = tmp_path_factory.mktemp("run") / "alone"
    done = command("multimed_jax.main", *flags(tiny_data, workdir))
    assert done.returncode == 0, done.stderr
    return workdir


def figures(workdir: Path) -> dict[tuple, ResultRow]:
    """The rows of a run by all that names them but the hash of its config, which has the mesh."""
    rows = read_rows(workdir / "results.jsonl")
    return {dataclasses.replace(row, config_hash="").identity: row for row in rows}


def assert_same_run(found: Path, expected: Path) -> None:
    """Losses, order of the records and figures are those of one process."""
    ours, theirs = losses(found), losses(expected)
    assert sorted(ours) == sorted(theirs)
    for step, loss in theirs.items():
        assert ours[step] == pytest.approx(loss, rel=1e-5)
    assert read_samples(found) == read_samples(expected)
    rows, others = figures(found), figures(expected)
    assert rows.keys() == others.keys()
    for identity, row in rows.items():
        other = others[identity]
        assert (row.n, row.groups) == (other.n, other.groups)
        assert row.value == pytest.approx(other.value, abs=1e-6)
        assert row.baseline == pytest.approx(other.baseline, abs=1e-6)


def test_two_processes_of_two_devices_are_one_run(alone, tiny_data, tmp_path):
    workdir = tmp_path / "two"
    done = local(2, 2, *flags(tiny_data, workdir))
    assert done.returncode == 0, done.stderr
    assert_same_run(workdir, alone)
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    expected = [json.loads(x) for x in (alone / "metrics.jsonl").read_text().splitlines()]

    def fills(rows: list[dict]) -> dict:
        found = {(row["step"], row["name"]): row["value"] for row in rows}
        return {key: value for key, value in found.items() if key[1].startswith("fill/")}

    # Each process fills its own packs; what is logged is that of all.
    assert fills(lines) == pytest.approx(fills(expected), rel=1e-6)
    assert {line["value"] for line in lines if line["name"] == "compilations"} == {1.0}
    assert done.stdout.count("phantoms/tiny  disease") == 2, "the table is printed once"
    beats = [json.loads(p.read_text()) for p in sorted((workdir / "heartbeats").glob("*.json"))]
    assert [(b["process"], b["processes"], b["step"]) for b in beats] == [(0, 2, 40), (1, 2, 40)]
    assert list((workdir / "tensorboard").glob("events*"))


def test_a_signal_to_one_process_stops_all_and_one_process_goes_on(alone, tiny_data, tmp_path):
    """SIGTERM to process 1 alone: both save the same step; two processes become one."""
    workdir = tmp_path / "stopped"
    with two_processes(*flags(tiny_data, workdir)) as (first, second):
        wait_for_line(first, "step 2/")
        second.send_signal(signal.SIGTERM)
        said = [process.communicate(timeout=300) for process in (first, second)]
        assert [first.returncode, second.returncode] == [75, 75], said
    assert not any("Traceback" in text or errors(text) for pair in said for text in pair)
    assert said[0][0].count("stopped by a signal") == 1 and "stopped" not in said[1][0]
    stopped_at = max(losses(workdir))
    assert 2 <= stopped_at < 40
    assert not (workdir / "results.jsonl").exists()
    again = command("multimed_jax.main", *flags(tiny_data, workdir))
    assert again.returncode == 0, again.stderr
    assert f"going on from step {stopped_at}" in again.stderr
    assert_same_run(workdir, alone)


def test_a_killed_process_ends_the_other_with_one_sentence(tiny_data, tmp_path):
    with two_processes(*flags(tiny_data, tmp_path / "killed"), silence_s=30.0) as (first, second):
        wait_for_line(first, "step 2/")
        os.kill(second.pid, signal.SIGKILL)
        killed = time.monotonic()
        _, said = first.communicate(timeout=60)
        took = time.monotonic() - killed
    assert first.returncode == 1 and took < 30
    assert errors(said) == [
        "error: process 1 of 2 has ended without a word: killed, or out of memory; its own log "
        "says more; process 0 of 2 ends with it"
    ]
    assert "Traceback" not in said


def test_a_process_that_stands_still_ends_the_other_after_the_limit(tiny_data, tmp_path):
    with two_processes(*flags(tiny_data, tmp_path / "late"), silence_s=10.0) as (first, second):
        wait_for_line(first, "step 2/")
        second.send_signal(signal.SIGSTOP)
        stopped = time.monotonic()
        _, said = first.communicate(timeout=120)
        took = time.monotonic() - stopped
    assert first.returncode == 1 and 8 < took < 60
    (sentence,) = errors(said)
    assert sentence.startswith("error: process 1 of 2 has not been heard of for ")


def test_processes_that_differ_do_not_begin(tiny_data, tmp_path):
    workdir = tmp_path / "differ"
    second = ("--config.model.d_model=32",)
    with two_processes(*flags(tiny_data, workdir), of_second=second) as started:
        for index, process in enumerate(started):
            _, said = process.communicate(timeout=280)
            assert process.returncode == 1
            assert said.strip() == (
                "error: process 1 of 2 differs from process 0: "
                "config.model.d_model is 32 instead of 16"
            ), index
    assert not (workdir / "manifest.json").exists()


def test_other_data_on_the_second_host_are_noticed(tiny_data, tmp_path):
    copy = tmp_path / "data"
    shutil.copytree(tiny_data, copy)
    (metadata,) = (copy / "phantoms" / "tiny").glob("*/metadata.json")
    values = json.loads(metadata.read_text())
    true, values["content_hash"] = values["content_hash"], "0" * 64
    metadata.write_text(json.dumps(values))
    second = (f"--config.data_dir={copy}",)
    with two_processes(*flags(tiny_data, tmp_path / "x"), of_second=second) as started:
        said = [process.communicate(timeout=280)[1] for process in started]
        assert [process.returncode for process in started] == [1, 1]
    for index, text in enumerate(said):
        (sentence,) = errors(text)
        assert f"process {index} of 2" in sentence
        assert (
            "process 1 of 2 differs from process 0: content of phantoms/tiny is "
            f"{'0' * 64} instead of {true}"
        ) in sentence


def test_two_processes_measure_a_run_again(alone, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(alone, copy)
    (copy / "results.jsonl").unlink()
    done = local(2, 2, "--checkpoint", str(copy), MULTIMED_MODULE="multimed_jax.evaluate")
    assert done.returncode == 0, done.stderr
    rows = {row.identity: row for row in read_rows(copy / "results.jsonl")}
    assert rows == {row.identity: row for row in read_rows(alone / "results.jsonl")}


@pytest.mark.parametrize(
    "mesh",
    [("--config.mesh.data=1", "--config.mesh.fsdp=4"), ("--config.mesh.tensor=2",)],
    ids=["fsdp", "tensor"],
)
def test_other_meshes_across_processes(alone, tiny_data, tmp_path, mesh):
    """Parameters cut over both processes are saved and measured whole."""
    done = local(2, 2, *flags(tiny_data, tmp_path / "run"), *mesh)
    assert done.returncode == 0, done.stderr
    assert_same_run(tmp_path / "run", alone)


def test_an_error_of_one_process_is_told_to_all(tiny_data, tmp_path):
    """The data are elsewhere on the second host, and not there."""
    nowhere = f"--config.data_dir={tmp_path}/nowhere"
    with two_processes(*flags(tiny_data, tmp_path / "x"), of_second=(nowhere,)) as started:
        said = [process.communicate(timeout=280)[1] for process in started]
        assert [process.returncode for process in started] == [1, 1]
    assert len(errors(said[0])) == len(errors(said[1])) == 1
    assert "error: process 1 of 2 stopped: " in said[0] and "nowhere" in said[0]
    assert "error: process 1 of 2: " in said[1]
    assert "Traceback" not in said[0] + said[1]
