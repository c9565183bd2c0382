"""Shards of a split, by size: how many there are, and which records each holds.

The records of a split lie in the order of the hash of their ids, as tfds orders them; a shard is a
range of that order. tfds 4.9 lacks two things: its writer keeps a gibibyte of records in memory,
then needs TensorFlow to go on, and its number of shards does not depend on `max_shard_size`.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import Any

import tensorflow_datasets as tfds
from array_record.python import array_record_module  # type: ignore[attr-defined]  # compiled
from etils import epath
from tensorflow_datasets.core import example_serializer, utils, writer
from tensorflow_datasets.core.utils import shard_utils

from multimed_jax.types import UserError
from tfds_builders.core.runs import Row, RunWriter, Sorted

Example = dict[str, Any]

# An open reader of array_record keeps 8 bytes of every chunk of its shard: 76 MiB for 10^7 chunks
# of one record. To read one record its chunk is decoded whole, which costs microseconds where
# records are small; larger ones, such as most images, stay alone.
SMALL_RECORD_BYTES = 2048
SMALL_RECORDS_A_CHUNK = 16


def records_a_chunk(num_records: int, num_bytes: int) -> int:
    """How many records of a split lie in one chunk of array_record: by their mean size alone.

    Both numbers are of the whole split, so that every shard, and every way to build it, agrees.
    """
    return SMALL_RECORDS_A_CHUNK if num_bytes < SMALL_RECORD_BYTES * num_records else 1


@dataclasses.dataclass(frozen=True)
class Output:
    """Where and how records are written; a worker of a Beam build gets a copy.

    Attributes:
        features: of the records.
        templates: of each split, the names of its shards.
        example_writer: writes the file format of the dataset.
        shard_config: what the flags say of the number and size of shards.
    """

    features: Any
    templates: Mapping[str, Any]
    example_writer: Any
    shard_config: shard_utils.ShardConfig

    @classmethod
    def of(cls, builder: Any, splits: Iterable[str], download_config: Any) -> Output:
        """That of a tfds builder."""
        return cls(
            builder.info.features,
            {split: builder._get_filename_template(split_name=split) for split in splits},
            builder._example_writer(),
            download_config.get_shard_config(),
        )

    @property
    def folder(self) -> epath.Path:
        """Of the runs, within the folder that the finished dataset will not have."""
        return epath.Path(next(iter(self.templates.values())).data_dir) / "runs"

    def encoder(self) -> Callable[[str, Example], bytes]:
        """A function of a record's name and the record, which gives the bytes to store."""
        serializer = example_serializer.ExampleSerializer(self.features.get_serialized_info())

        def encode(name: str, record: Example) -> bytes:
            try:
                example = serializer.get_tf_example(self.features.encode_example(record))
                # Else the order of keys differs from process to process, and with it the files.
                return example.SerializeToString(deterministic=True)
            except Exception as error:
                # tfds would print the whole record.
                raise ValueError(f"record {name!r} does not fit its features: {error}") from error

        return encode

    def num_shards(self, split: str, num_records: int, num_bytes: int) -> int:
        """How many shards the records of a split fill.

        Raises:
            UserError: for a split without records, or with fewer than `--num_shards`.
        """
        config = self.shard_config
        if not num_records:
            raise UserError(f"the split {split!r} has no records")
        if config.num_shards:
            if config.num_shards > num_records:
                raise UserError(
                    f"the split {split!r} has {num_records} records, too few for --num_shards "
                    f"{config.num_shards}; accepted: 1 to {num_records}"
                )
            return config.num_shards
        whole = num_bytes + num_records * config.overhead
        # Records differ in size, so equal numbers of them do not fill shards exactly alike.
        fewest = math.ceil(whole / (0.9 * config.max_shard_size))
        # Of tfds: the largest power of two with shards of at least 64 MiB, up to 1,024.
        usual = config.get_number_shards(num_bytes, num_records)
        return min(num_records, max(usual, fewest))

    def write_shard(self, split: str, index: int, rows: Sorted) -> None:
        """Writes one shard, under another name until it is whole."""
        num_shards = self.num_shards(split, rows.num_records, rows.num_bytes)
        ends = [0, *shard_utils.get_shard_boundaries(rows.num_records, num_shards)]
        path = epath.Path(
            self.templates[split].sharded_filepath(shard_index=index, num_shards=num_shards)
        )
        draft = path.parent / f"{uuid.uuid4().hex}.shard"
        shard = rows.read(ends[index], ends[index + 1])
        if self.templates[split].filetype_suffix == "array_record":
            # tfds's writer knows chunks of one record only.
            positions = _write_chunks(
                draft, shard, records_a_chunk(rows.num_records, rows.num_bytes)
            )
        else:
            positions = self.example_writer.write(draft, shard)
        draft.replace(path)
        if positions:  # formats that need an index to be read at random
            writer._write_index_file(f"{path}_index.json", positions)

    def split_info(self, split: str, num_records: int, num_bytes: int) -> tfds.core.SplitInfo:
        """What tfds keeps of a written split."""
        num_shards = self.num_shards(split, num_records, num_bytes)
        ends = [0, *shard_utils.get_shard_boundaries(num_records, num_shards)]
        return tfds.core.SplitInfo(
            name=split,
            shard_lengths=[b - a for a, b in itertools.pairwise(ends)],
            num_bytes=num_bytes,
            filename_template=self.templates[split],
        )


def _write_chunks(path: epath.Path, rows: Iterable[Row], group: int) -> None:
    chunks = array_record_module.ArrayRecordWriter(str(path), f"group_size:{group}")
    for _, record in rows:
        chunks.write(record)
    chunks.close()


def write_splits(
    generators: Mapping[str, Iterable[tuple[str, Example]]],
    output: Output,
    max_records: int | None,
) -> list[tfds.core.SplitInfo]:
    """Writes all splits in this process, one after the other.

    Args:
        generators: of each split, names and records.
        output: where they go.
        max_records: of each split only so many; None takes all.
    """
    encode = output.encoder()
    output.folder.mkdir(parents=True, exist_ok=True)
    infos = []
    for split, records in generators.items():
        taken = RunWriter(output.folder, salt=split)
        for name, record in _shown(itertools.islice(records, max_records), split):
            taken.add(name, encode(name, record))
        if isinstance(records, Generator):
            records.close()  # where `max_records` ended it, it still counts what it gave
        rows = Sorted(taken.runs(), taken.table)
        for index in range(output.num_shards(split, rows.num_records, rows.num_bytes)):
            output.write_shard(split, index, rows)
        infos.append(output.split_info(split, rows.num_records, rows.num_bytes))
        del taken, rows
        output.folder.rmtree()
        output.folder.mkdir()
    output.folder.rmtree()
    return infos


def _shown(records: Iterable[Any], split: str) -> Iterator[Any]:
    return iter(
        utils.tqdm(
            records, desc=f"Generating {split}...", unit=" records", leave=False, mininterval=1.0
        )
    )
