"""Shards by size, whatever the number of records; and what a record that does not fit says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python import array_record_module  # type: ignore[attr-defined]
from tensorflow_datasets.core.utils import shard_utils

from multimed_jax.config import SourceConfig
from multimed_jax.data.sources import open_source
from multimed_jax.types import UserError
from tests.tfds_builders.built import metadata_of
from tfds_builders.core.records import record_digest
from tfds_builders.core.shards import Output, records_a_chunk
from tfds_builders.core.splits import SPLITS
from tfds_builders.phantoms.phantoms_dataset_builder import Builder


def build(data_dir, **flags):
    builder = Builder(data_dir=data_dir, config="dna_600")
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(**flags))
    return tfds.builder_from_directory(builder.data_dir)


def digests(built):
    return {split: [record_digest(row) for row in built.as_data_source(split)] for split in SPLITS}


def test_no_shard_is_larger_than_the_flag_says(tmp_path):
    limit = 20_000
    whole = build(tmp_path / "whole")
    cut = build(tmp_path / "cut", max_shard_size=limit)
    assert [whole.info.splits[split].num_shards for split in SPLITS] == [1, 1, 1]
    for split in SPLITS:
        lengths = cut.info.splits[split].shard_lengths
        mean = cut.info.splits[split].num_bytes / sum(lengths)
        assert max(lengths) * mean <= limit < sum(lengths) * mean
        assert min(lengths) * mean > limit / 2  # and none is needlessly small
    assert digests(cut) == digests(whole)  # the same records at the same rows
    assert metadata_of(cut)["content_hash"] == metadata_of(whole)["content_hash"]
    assert not list((tmp_path / "cut").rglob("*.run"))


def test_the_number_of_shards():
    def number(num_records, num_bytes, **flags):
        config = shard_utils.ShardConfig(**flags)
        return Output(None, {}, None, config).num_shards("train", num_records, num_bytes)

    assert number(10**6, 10**9) == 8  # as tfds: the largest power of two from 64 MiB on
    assert number(10**6, 10**9, max_shard_size=10**7) == 113  # 1.016 GB, filled to nine tenths
    assert number(3, 10**9, max_shard_size=10**7) == 3
    assert number(10, 100, num_shards=4) == 4
    with pytest.raises(UserError, match=r"--num_shards 11; accepted: 1 to 10"):
        number(10, 100, num_shards=11)
    with pytest.raises(UserError, match="'train' has no records"):
        number(0, 0)


def test_small_records_share_chunks_and_large_ones_do_not():
    assert records_a_chunk(10**7, 422 * 10**7) == 16
    assert records_a_chunk(1000, 2047 * 1000) == 16
    assert records_a_chunk(1000, 2048 * 1000) == records_a_chunk(10, 10**7) == 1


def test_chunks_follow_the_whole_split(tmp_path):
    """A shard whose own records are smaller or larger on the mean has the chunks of the others."""
    built: Any = build(tmp_path, num_shards=3)
    options = set()
    for shard in Path(built.data_dir).glob("*.array_record-*"):
        reader = array_record_module.ArrayRecordReader(str(shard))
        options.add(reader.writer_options_string().split(",")[0])
    assert options == {"group_size:16"}
    for split in SPLITS:
        ours = open_source(SourceConfig("phantoms/dna_600", 1.0), str(tmp_path), split)
        theirs = built.as_data_source(split)
        assert len(ours) == len(theirs)
        rows = np.random.default_rng(0).permutation(len(ours)).tolist()
        assert all(record_digest(ours[r]) == record_digest(theirs[r]) for r in rows)


def test_a_record_that_does_not_fit_is_named_and_not_shown():
    features = tfds.features.FeaturesDict({"eeg": tfds.features.Tensor(shape=(2,), dtype=np.int32)})
    encode = Output(features, {}, None, shard_utils.ShardConfig()).encoder()
    assert encode("r1", {"eeg": np.arange(2, dtype=np.int32)})
    with pytest.raises(ValueError, match="record 'r7' does not fit its features") as caught:
        encode("r7", {"eeg": np.full(3, 424_242, np.int32)})
    assert "424242" not in str(caught.value)
