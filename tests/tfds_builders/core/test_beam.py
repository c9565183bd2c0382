"""Beam builds: the datasets of plain builds, on any number of workers and after any repetition."""

from __future__ import annotations

import importlib.util
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tensorflow_datasets as tfds

from multimed_jax.types import UserError
from tests.tfds_builders.built import metadata_of
from tfds_builders.__main__ import main
from tfds_builders.core import runs, written
from tfds_builders.core.ledger import Ledger
from tfds_builders.core.planning import Names
from tfds_builders.core.records import record_digest
from tfds_builders.core.shards import Output
from tfds_builders.core.splits import SPLITS
from tfds_builders.core.streamed import StreamedWork
from tfds_builders.core.tally import Completer, NoStatistics, Tally
from tfds_builders.phantoms import phantoms_dataset_builder as phantoms

REPOSITORY = Path(__file__).resolve().parents[3]
CONFIG = "dna_700"
needs_beam = pytest.mark.skipif(
    importlib.util.find_spec("apache_beam") is None, reason="apache_beam (extra `beam`)"
)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven blocks, and several runs of each."""
    monkeypatch.setattr(phantoms, "_BLOCK", 100)
    monkeypatch.setattr(runs, "RUN_BYTES", 8_000)
    monkeypatch.setattr(runs, "CHUNK_BYTES", 8_000)


def build(data_dir: Path, config: str = CONFIG, **flags: Any) -> dict[str, Any]:
    """Builds phantoms, and everything that another build of them has to agree on."""
    builder = phantoms.Builder(data_dir=data_dir, config=config)
    download_config = tfds.download.DownloadConfig(max_shard_size=50_000, **flags)
    builder.download_and_prepare(download_config=download_config)
    return content(Path(builder.data_dir))


def content(folder: Path) -> dict[str, Any]:
    built: Any = tfds.builder_from_directory(folder)
    return {
        "metadata": metadata_of(built),
        "rows": {s: [record_digest(r) for r in built.as_data_source(s)] for s in SPLITS},
        "shards": {s: built.info.splits[s].shard_lengths for s in SPLITS},
        "bytes": {s: built.info.splits[s].num_bytes for s in SPLITS},
        "files": {
            path.name: path.read_bytes() if ".array_record" in path.name else b""
            for path in sorted(folder.iterdir())
        },
    }


@pytest.fixture
def plain(tmp_path: Path) -> dict[str, Any]:
    return build(tmp_path / "plain")


# ------------------------------------------------------------------- what workers do, by hand


def output_in(folder: Path, builder: Any) -> Output:
    """Where a build in this folder would write."""
    output = Output.of(builder, SPLITS, tfds.download.DownloadConfig(max_shard_size=50_000))
    output = Output(
        output.features,
        {split: name.replace(data_dir=folder) for split, name in output.templates.items()},
        output.example_writer,
        output.shard_config,
    )
    output.folder.mkdir(parents=True)
    return output


def finish(work: Any, parts: list[written.Written], builder: Any, folder: Path) -> dict[str, Any]:
    """Writes the shards of what blocks left, and opens them."""
    merged = written.merge([written.merge(parts[:2]), written.merge([]), written.merge(parts[2:])])
    for shard in [*written.shards(work.output, SPLITS, merged), ("train", 0)]:
        written.write_shard(work.output, shard, merged)
    infos = [
        work.output.split_info(s, merged.rows(s).num_records, merged.rows(s).num_bytes)
        for s in SPLITS
    ]
    builder.info.set_splits(tfds.core.SplitDict(infos))
    builder.info.write_to_directory(folder)
    return content(folder)


def test_blocks_in_any_order_and_twice_give_the_shards_of_a_plain_build(tmp_path, plain):
    (tmp_path / "job").mkdir()
    builder: Any = phantoms.Builder(data_dir=tmp_path / "job", config=CONFIG)
    tally = Tally(Ledger(builder.class_names(), builder.target_kinds()), NoStatistics())
    complete = Completer("study", Names())
    output = output_in(tmp_path / "job", builder)
    work = StreamedWork(builder.stream_splits(), complete, tally.empty(), output)
    blocks = list(work.tasks)
    assert len(blocks) == 21
    random.Random(0).shuffle(blocks)
    work.write_block(blocks[0])  # a worker that is lost before it reports
    found = finish(work, [work.write_block(b) for b in blocks], builder, tmp_path / "job")
    for key in ("rows", "bytes", "shards"):
        assert found[key] == plain[key]
    assert len(plain["shards"]["train"]) > 3
    written.include_tallies(output, work.counted, tally)
    assert tally.ledger.content_hash() == plain["metadata"]["content_hash"]


def test_ledgers_of_blocks_add_up():
    rng = np.random.default_rng(0)
    names = {"grade": ("a", "b"), "level": ("x",), "finding": ("p", "q")}
    kinds: Any = {"level": "values", "finding": "labels"}
    whole = Ledger(names, kinds)
    parts = [whole.empty() for _ in range(3)]
    for i in range(60):
        targets = {
            "grade": int(rng.integers(-1, 2)),
            "level": np.array([i / 4 if i % 7 else np.nan], np.float32),
            "finding": rng.integers(-1, 2, 2).astype(np.int32),
        }
        record = {"sample_id": str(i), "targets": targets}
        for ledger in (whole, parts[i % 3]):
            ledger.add(SPLITS[i % 2], record)
    together = whole.empty()
    for part in reversed(parts):
        together.include(part.state())
    assert together.content_hash() == whole.content_hash() != parts[0].content_hash()
    assert together.class_counts == whole.class_counts
    assert together.target_stats == whole.target_stats  # quarters add up exactly
    assert together.num_records == Counter(train=30, validation=30, test=0)


# ------------------------------------------------------------------------------- pipelines


@needs_beam
def test_a_pipeline_writes_what_a_plain_build_writes(tmp_path, plain):
    assert build(tmp_path / "beam", beam_runner="DirectRunner") == plain
    assert not list((tmp_path / "beam").rglob("*.run"))


@needs_beam
def test_other_records_are_another_dataset(tmp_path, plain):
    other = build(tmp_path / "other", config="dna_600", beam_runner="DirectRunner")
    assert other["metadata"]["content_hash"] != plain["metadata"]["content_hash"]


@needs_beam
def test_a_sentence_of_a_worker_is_the_error(tmp_path):
    with pytest.raises(UserError, match=r"too few for --num_shards 600; accepted: 1 to \d+$"):
        build(tmp_path, beam_runner="DirectRunner", num_shards=600)
    assert not list(tmp_path.rglob("*.run"))


def fail_on_a_full_disk(work: Any, block: Any) -> None:
    raise OSError(28, "No space left on device")


@needs_beam
def test_a_full_disk_in_a_worker_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(StreamedWork, "write_block", fail_on_a_full_disk)
    with pytest.raises((UserError, OSError), match="No space left on device"):
        build(tmp_path, beam_runner="DirectRunner")
    assert not (tmp_path / "phantoms" / CONFIG / "2.0.0").exists()


def command(data_dir: Path, config: str, *more: str) -> list[str]:
    start = [sys.executable, "-m", "tfds_builders", "build", "phantoms", "--config", config]
    return [*start, "--data_dir", str(data_dir), *more]


WORKERS = "--beam_pipeline_options=direct_num_workers=2,direct_running_mode=multi_processing"


@pytest.mark.slow  # starts processes
@needs_beam
def test_a_killed_pipeline_leaves_no_version_and_runs_again_to_the_same_hash(tmp_path):
    config, version = "dna_60000", Path("phantoms") / "dna_60000" / "2.0.0"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(
        command(tmp_path / "data", config, WORKERS),
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and not list((tmp_path / "data").rglob("*.run")):
        time.sleep(0.05)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert children and process.returncode == -signal.SIGKILL  # it did not end before
    assert not (tmp_path / "data" / version).exists()
    assert list((tmp_path / "data" / version.parent).glob("*incomplete*"))
    _, alive = psutil.wait_procs(children, timeout=120)
    assert not alive  # workers do not outlive their driver
    for folder, flags in (("data", (WORKERS,)), ("whole", ())):
        done = subprocess.run(
            command(tmp_path / folder, config, *flags),
            cwd=REPOSITORY,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    again, whole = (content(tmp_path / folder / version) for folder in ("data", "whole"))
    assert again == whole


# --------------------------------------------------------------------------------- refusals


def test_without_beam_the_extra_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    argv = ["build", "phantoms", "--config", CONFIG, "--data_dir", str(tmp_path)]
    assert main([*argv, "--beam_runner", "DirectRunner"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "pip install 'multimed-jax[beam]'" in said
    assert not list(tmp_path.iterdir())


@needs_beam
@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--beam_runner", "NoRunner"], "Beam has no runner 'NoRunner'"),
        (["--beam_runner=A", "--beam_pipeline_options=runner=B"], "both name a runner"),
        (["--beam_pipeline_options=direct_num_worker=2"], "no option 'direct_num_worker=2'"),
        (["--beam_pipeline_options=direct_running_mode=fast"], "invalid choice: 'fast'"),
        (["--beam_runner=DirectRunner", "--max_examples_per_split=3"], "does not go with Beam"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path, capsys, flags, said):
    argv = ["build", "phantoms", "--config", CONFIG, "--data_dir", str(tmp_path)]
    assert main([*argv, *flags]) == 1
    error = capsys.readouterr().err.strip().splitlines()
    assert error[-1].startswith("error: ") and said in error[-1]
    assert not list(tmp_path.rglob("*.array_record*"))
