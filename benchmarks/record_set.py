"""Sets of many small records: one shard that a builder wrote, listed as often as it takes.

The shard holds `SHARD_RECORDS` DNA elements of 200 bases with a value each, written by the code of
the builders, and its sizes are counted as the trainer counts them. A larger set has that shard
under many names: by hard links (nothing is written, and the system's cache holds one shard for
all), or as copies (every byte is there, as in a real set of that size). Ids repeat from shard to
shard.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python import array_record_module

from benchmarks.made_source import MadeSource, made_card
from tfds_builders.core.base import StreamedSplit
from tfds_builders.core.features import genomics_features
from tfds_builders.core.records import SourceRecord

NAME = "dna_set"
BASES = 200
SHARD_RECORDS = 100_000
SPLIT = "train"


def elements(count: int, block: int) -> Iterator[SourceRecord]:
    """Random elements with random values, in one block."""
    del block
    rng = np.random.default_rng(0)
    letters = np.frombuffer(b"ACGT", np.uint8)
    for i in range(count):
        name = f"element-{i:06d}"
        sequence = letters[rng.integers(0, 4, BASES)].tobytes().decode()
        yield SourceRecord(
            sample_id=name,
            group_id=name,
            record={
                "genomics": {"sequence": sequence, "site": -1},
                "targets": {"expression": rng.standard_normal(1).astype(np.float32)},
            },
            stratum="",
        )


class DnaSet(MadeSource, skip_registration=True):
    """Generated DNA elements."""

    CARD = made_card(NAME, "DNA elements of a benchmark", "genomics", "expression", "sequence")

    count = SHARD_RECORDS

    def record_features(self) -> dict[str, Any]:
        return {"genomics": genomics_features()}

    def target_kinds(self) -> dict[str, Any]:
        return {"expression": "values"}

    def class_names(self) -> dict[str, tuple[str, ...]]:
        return {"expression": ("cell",)}

    def stream_splits(self) -> dict[str, StreamedSplit]:
        return {SPLIT: StreamedSplit(self.count, functools.partial(elements, self.count))}


def build_shard(data_dir: Path, records: int = SHARD_RECORDS) -> Path:
    """Builds the set of one shard; its version folder."""
    builder = type("DnaSet", (DnaSet,), {"count": records}, skip_registration=True)(
        data_dir=data_dir
    )
    builder.download_and_prepare()
    folder = Path(builder.data_dir)
    assert len(_shards(folder)) == 1, "one shard was expected"
    return folder


def widen(folder: Path, data_dir: Path, times: int, copies: bool) -> Path:
    """A set in another data_dir whose records are those of `folder`, `times` over.

    The sizes of the records that are there are written `times` over, too.
    """
    target = data_dir / folder.parent.name / folder.name
    target.mkdir(parents=True)
    (shard,) = _shards(folder)
    stem = shard.name.rsplit("-", 3)[0]
    for number in range(times):
        name = target / f"{stem}-{number:05d}-of-{times:05d}"
        if copies:
            shutil.copyfile(shard, name)
        else:
            os.link(shard, name)
    shutil.copy(folder / "features.json", target)
    about = json.loads((folder / "dataset_info.json").read_text())
    (split,) = about["splits"]
    split["shardLengths"] = split["shardLengths"] * times
    split["numBytes"] = str(int(split["numBytes"]) * times)
    (target / "dataset_info.json").write_text(json.dumps(about))
    for path in folder.iterdir():
        if path.name.startswith("metadata"):
            shutil.copy(path, target)
    for sizes in folder.parent.glob("sizes-*"):
        _tile(sizes / SPLIT, target.parent / sizes.name / SPLIT, times)
    return target


def regroup(folder: Path, group: int) -> None:
    """Writes the shards of a set again with `group` records a chunk; their order stays."""
    for shard in _shards(folder):
        reader = array_record_module.ArrayRecordReader(str(shard))
        writer = array_record_module.ArrayRecordWriter(f"{shard}.new", f"group_size:{group}")
        for stored in reader.read(0, reader.num_records()):
            writer.write(stored)
        writer.close()
        reader.close()
        os.replace(f"{shard}.new", shard)


def _shards(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if ".array_record-" in path.name)


def _tile(source: Path, target: Path, times: int) -> None:
    target.mkdir(parents=True)
    for name in ("tokens", "has_target", "group", "windows"):
        array = np.load(source / f"{name}.npy")
        np.save(target / f"{name}.npy", np.concatenate([array] * times))
