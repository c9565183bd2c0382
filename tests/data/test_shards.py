"""Records of shards: their order, ranges of them, many threads, and shards opened late."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from array_record.python import array_record_module  # type: ignore[attr-defined]

from multimed_jax.data.shards import ShardedRecords


@dataclasses.dataclass
class Instruction:
    filename: str
    skip: int
    take: int


def write(path: Path, contents: list[bytes], group: int = 1) -> str:
    writer = array_record_module.ArrayRecordWriter(str(path), f"group_size:{group}")
    for content in contents:
        writer.write(content)
    writer.close()
    return str(path)


def contents(shard: int, n: int) -> list[bytes]:
    return [f"{shard}-{i}".encode() * (i % 7 + 1) for i in range(n)]


@pytest.fixture
def records(tmp_path) -> tuple[ShardedRecords, list[bytes]]:
    numbers = {0: 40, 1: 1, 2: 33}
    files = [
        write(tmp_path / f"s{s}", contents(s, n), group=1 + 15 * (s == 2))
        for s, n in numbers.items()
    ]
    shards = [Instruction(file, 0, n) for file, n in zip(files, numbers.values(), strict=True)]
    shards.append(Instruction(files[0], 10, 5))
    wanted = [c for s, n in numbers.items() for c in contents(s, n)]
    return ShardedRecords(shards, lambda stored: {"x": stored}), wanted + contents(0, 40)[10:15]


def test_rows_go_through_the_shards_in_order(records):
    found, wanted = records
    assert len(found) == len(wanted) == 79
    assert [found[row]["x"] for row in range(79)] == wanted
    assert [found.stored(row) for row in (78, 0, 40, 41)] == [wanted[r] for r in (78, 0, 40, 41)]


@pytest.mark.parametrize("row", [-1, 79, 10**9])
def test_rows_outside_are_refused(records, row):
    with pytest.raises(IndexError, match="of 79"):
        records[0][row]


def test_shards_are_opened_when_they_are_read(tmp_path):
    there = write(tmp_path / "there", contents(0, 3))
    shards = [Instruction(there, 0, 3), Instruction(str(tmp_path / "gone"), 0, 4)]
    found = ShardedRecords(shards, lambda stored: {"x": stored})
    assert len(found) == 7 and found[2]["x"] == contents(0, 3)[2]
    for _ in range(2):
        with pytest.raises(ValueError, match="gone holds 0 records of the 4"):
            found[3]


def test_threads_share_readers(records):
    found, wanted = records
    rows = [row for _ in range(100) for row in range(79)]
    with ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(lambda row: found[row]["x"], rows))
    assert seen == wanted * 100
