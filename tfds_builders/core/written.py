"""What the workers of a Beam build leave in its folder, and the shards that are made of it.

    <folder of the build>/runs/
        <unique>.run                     sorted records of a block and a split (`core.runs`)
        train-000012.tally.json          what a block counted of a split (`core.tally`)
        train-000012.prints.npz          its fingerprints, of a source that is read
        000012.index.json, .plan.json    see `core.read_blocks`

Runs have names of their own: only those that a block reports are read. The other files are named by
their block, and appear whole: a block that a runner repeats leaves the same content again.
"""

from __future__ import annotations

import dataclasses
import json
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from tfds_builders.core.runs import NUM_BUCKETS, FileRun, Sorted, Table
from tfds_builders.core.shards import Output
from tfds_builders.core.tally import Tally

Block = tuple[str, int]  # split, number


@dataclasses.dataclass(frozen=True)
class Written:
    """What some blocks left.

    Attributes:
        runs: of each split, the files.
        tables: of each split, rows and bytes by bucket.
    """

    runs: Mapping[str, tuple[str, ...]]
    tables: Mapping[str, Table]

    def rows(self, split: str) -> Sorted:
        """All records of a split."""
        if split not in self.tables:
            return Sorted([], np.zeros((NUM_BUCKETS, 2), np.int64))
        return Sorted([FileRun(path) for path in self.runs[split]], self.tables[split])


def merge(parts: Iterable[Written]) -> Written:
    """What all of them left together."""
    runs: dict[str, tuple[str, ...]] = {}
    tables: dict[str, Table] = {}
    for part in parts:
        for split, table in part.tables.items():
            runs[split] = (*runs.get(split, ()), *part.runs[split])
            tables[split] = tables.get(split, np.zeros((NUM_BUCKETS, 2), np.int64)) + table
    return Written(runs, tables)


def save(path: str, written: Written) -> None:
    """Leaves the numbers of records and of bytes of every split, for the driver."""
    rows = {split: written.rows(split) for split in written.tables}
    sizes = {split: (found.num_records, found.num_bytes) for split, found in rows.items()}
    epath.Path(path).write_text(json.dumps(sizes))


def shards(output: Output, splits: Sequence[str], written: Written) -> Iterator[tuple[str, int]]:
    """Split and index of every shard."""
    for split in splits:
        rows = written.rows(split)
        number = output.num_shards(split, rows.num_records, rows.num_bytes)
        yield from ((split, index) for index in range(number))


def write_shard(output: Output, shard: tuple[str, int], written: Written) -> None:
    """Writes one shard."""
    split, index = shard
    output.write_shard(split, index, written.rows(split))


# ------------------------------------------------------------------------------ small files


def leave(path: epath.Path, content: bytes) -> None:
    """Writes a file that another process reads: under another name until it is whole."""
    draft = path.parent / f"{uuid.uuid4().hex}.part"
    draft.write_bytes(content)
    draft.replace(path)


def leave_json(path: epath.Path, value: Any) -> None:
    """`leave` of JSON."""
    leave(path, json.dumps(value).encode())


def read_json(path: epath.Path) -> Any:
    """The value of a file that `leave_json` wrote."""
    return json.loads(path.read_bytes())


def leave_tally(output: Output, block: Block, tally: Tally) -> None:
    """Leaves what a block counted of a split."""
    leave_json(output.folder / f"{block[0]}-{block[1]:06d}.tally.json", tally.state())


def include_tallies(output: Output, blocks: Iterable[Block], tally: Tally) -> None:
    """Adds what blocks counted, in their order, to `tally`."""
    for split, number in blocks:
        tally.include(read_json(output.folder / f"{split}-{number:06d}.tally.json"))
