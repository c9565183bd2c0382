"""Builds by the functions of a Beam build without Beam, and the comparison with plain builds.

The blocks run in this process, out of order and some twice, as a runner may do.
"""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path
from typing import Any

import pytest
import tensorflow_datasets as tfds

from tfds_builders.core import beam, reading, written
from tfds_builders.core.tally import Tally

needs_beam = pytest.mark.skipif(
    importlib.util.find_spec("apache_beam") is None, reason="apache_beam (extra `beam`)"
)


def without_beam(monkeypatch: pytest.MonkeyPatch, block_items: int = 4, seed: int = 0) -> None:
    """From now on a pipeline is a loop; blocks are small."""
    rng = random.Random(seed)

    def shuffled(tasks: Any) -> list[Any]:
        mixed = list(tasks)
        rng.shuffle(mixed)
        return mixed

    def index(work: Any, download_config: Any) -> None:
        for task in [*shuffled(work.tasks), work.tasks[0]]:
            work.index_block(task)
        reading.close_walks()

    def write_splits(work: Any, tally: Tally, download_config: Any) -> list[Any]:
        work.write_block(work.tasks[-1])  # a worker that is lost before it reports
        merged = written.merge([work.write_block(task) for task in shuffled(work.tasks)])
        reading.close_walks()
        for shard in written.shards(work.output, work.splits, merged):
            written.write_shard(work.output, shard, merged)
        written.include_tallies(work.output, work.counted, tally)
        rows = {split: merged.rows(split) for split in work.splits}
        return [
            work.output.split_info(split, found.num_records, found.num_bytes)
            for split, found in rows.items()
        ]

    monkeypatch.setattr(beam, "index", index)
    monkeypatch.setattr(beam, "write_splits", write_splits)
    monkeypatch.setattr(beam, "check", lambda download_config: None)
    monkeypatch.setattr(reading, "BLOCK_ITEMS", block_items)


def build_files(
    builder_cls: Any,
    manual_dir: Path,
    data_dir: Path,
    config: Any = None,
    settings: dict[str, Any] | None = None,
    **flags: Any,
) -> dict[str, bytes]:
    """Every file of a dataset that is built here."""
    builder = builder_cls(data_dir=data_dir, config=config)
    for name, value in (settings or {}).items():
        setattr(builder, name, value)
    download_config = tfds.download.DownloadConfig(
        manual_dir=str(manual_dir), max_shard_size=20_000, **flags
    )
    builder.download_and_prepare(download_config=download_config)
    return {path.name: path.read_bytes() for path in sorted(Path(builder.data_dir).iterdir())}


def assert_alike(
    builder_cls: Any, source: Path, folder: Path, config: Any = None, **settings: Any
) -> dict[str, bytes]:
    """A plain build and one by blocks have the same files, to the byte."""
    plain = build_files(builder_cls, source, folder / "plain", config, settings)
    blocks = build_files(
        builder_cls, source, folder / "blocks", config, settings, beam_runner="DirectRunner"
    )
    assert list(blocks) == list(plain)
    for name, content in plain.items():
        assert blocks[name] == content, name
    return plain
