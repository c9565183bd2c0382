"""Pipelines of sources that are read: datasets of plain builds, and what ends them."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from multimed_jax.types import UserError
from tests.tfds_builders.by_blocks import build_files, needs_beam
from tests.tfds_builders.core.read_toy import ReadToy
from tests.tfds_builders.core.test_base import make_source
from tests.tfds_builders.images import jpeg, smooth_image, write
from tests.tfds_builders.test_kermany_chest_xray import make_original
from tfds_builders.core import read_blocks, reading, written
from tfds_builders.core.build_options import BuildOptions, build_options

REPOSITORY = Path(__file__).resolve().parents[3]
WORKERS = "--beam_pipeline_options=direct_num_workers=2,direct_running_mode=multi_processing"
pytestmark = needs_beam


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setattr(reading, "BLOCK_ITEMS", 5)
    with build_options(BuildOptions(hash_key_file=tmp_path / "key")):
        yield


def test_a_pipeline_writes_the_files_of_a_plain_build(tmp_path):
    source = make_source(tmp_path / "source", per_patient=4)
    write(source / "test-p00-3.jpg", b"")
    write(source / "x-0.jpg", b"")
    plain = build_files(ReadToy, source, tmp_path / "plain")
    assert build_files(ReadToy, source, tmp_path / "beam", beam_runner="DirectRunner") == plain
    assert not reading._OPEN and not list(tmp_path.rglob("*.json.part"))


def test_threads_of_one_process_keep_their_walks_apart(tmp_path):
    source = make_source(tmp_path / "source", per_patient=4)
    plain = build_files(ReadToy, source, tmp_path / "plain")
    options_of = importlib.import_module("apache_beam.options.pipeline_options")
    options = options_of.PipelineOptions(
        ["--direct_num_workers=2", "--direct_running_mode=multi_threading"]
    )
    found = build_files(
        ReadToy, source, tmp_path / "beam", beam_runner="DirectRunner", beam_options=options
    )
    assert found == plain


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda s: write(s / "train-p50-900.jpg", (s / "test-p00-0.jpg").read_bytes()), "same con"),
        (lambda s: [write(s / f"x-{i}.jpg", b"") for i in range(9)], "9 of 31 records cannot"),
    ],
)
def test_what_planning_refuses_is_one_sentence(tmp_path, change, match):
    source = make_source(tmp_path / "source")
    change(source)
    with pytest.raises(UserError, match=match):
        settings = {"mode": "official"}
        build_files(ReadToy, source, tmp_path / "data", None, settings, beam_runner="DirectRunner")
    assert not list(tmp_path.glob("data/toy_source/*"))


def test_a_source_that_changes_is_one_sentence(tmp_path, monkeypatch):
    source = make_source(tmp_path / "source")
    made = reading.Source.of

    def of(*args: Any) -> Any:
        (source / "train-p05-11.jpg").unlink()
        return made(*args)

    monkeypatch.setattr(reading.Source, "of", of)
    with pytest.raises(UserError, match=r"^the source changed while it was read: it has only 21"):
        build_files(ReadToy, source, tmp_path / "data", beam_runner="DirectRunner")
    assert not list(tmp_path.glob("data/toy_source/*"))


@pytest.mark.parametrize("name", ["index.json", "prints.npz", "tally.json"])
def test_a_full_disk_in_a_worker_is_one_sentence(tmp_path, monkeypatch, name):
    leave = written.leave

    def full(path: Any, content: bytes) -> None:
        if str(path).endswith(name):
            raise OSError(28, "No space left on device", str(path))
        leave(path, content)

    for module in (written, read_blocks):
        monkeypatch.setattr(module, "leave", full)
    source = make_source(tmp_path / "source")
    with pytest.raises((UserError, OSError), match="No space left on device"):
        build_files(ReadToy, source, tmp_path / "data", beam_runner="DirectRunner")
    assert not list(tmp_path.glob("data/toy_source/*"))


# ------------------------------------------------------------------------------ processes


def start(source: Path, data_dir: Path, *flags: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tfds_builders", "build", "kermany_chest_xray"]
    command += ["--config", "original", "--manual_dir", str(source), "--data_dir", str(data_dir)]
    return subprocess.Popen(
        [*command, *flags],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def films(source: Path, number: int) -> Path:
    """`make_original`, and further films of their own patients."""
    make_original(source)
    root = next(source.rglob("train"))
    for i in range(number):
        content = jpeg(smooth_image(1000 + i))
        write(root / "NORMAL" / f"NORMAL-{700_000 + i}-0001.jpeg", content)
    return source


@pytest.mark.slow  # starts processes
def test_a_killed_pipeline_leaves_no_version_and_runs_again_to_the_same_files(tmp_path):
    source = films(tmp_path / "source", 400)
    process = start(source, tmp_path / "data", WORKERS)
    while process.poll() is None and not list((tmp_path / "data").rglob("*.run")):
        time.sleep(0.02)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert children and process.returncode == -signal.SIGKILL  # it did not end before
    version = Path("kermany_chest_xray") / "original"
    assert not list((tmp_path / "data" / version).glob("[0-9]*.[0-9]"))
    assert list((tmp_path / "data" / version).glob("*incomplete*"))
    _, alive = psutil.wait_procs(children, timeout=120)
    assert not alive  # workers do not outlive their driver
    for folder, flags in (("data", (WORKERS,)), ("whole", ("--beam_runner", "DirectRunner"))):
        done = start(source, tmp_path / folder, *flags)
        _, said = done.communicate()
        assert done.returncode == 0, said
    again, whole = (
        {
            path.name: path.read_bytes()
            for path in next((tmp_path / folder / version).glob("[0-9]*.[0-9]")).iterdir()
        }
        for folder in ("data", "whole")
    )
    assert again == whole


@pytest.mark.slow  # starts processes
def test_a_sentence_of_a_worker_in_another_process_is_the_error(tmp_path):
    source = films(tmp_path / "source", 0)
    flags = (WORKERS, "--num_shards", "600")
    process = start(source, tmp_path / "data", *flags)
    _, said = process.communicate()
    assert process.returncode == 1
    assert said.strip().splitlines()[-1].startswith("error: the split 'train' has ")
    assert not list(tmp_path.rglob("*.run")) and not list(tmp_path.rglob("*.array_record*"))
