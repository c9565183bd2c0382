"""Sorted runs: the order of tfds, any range of it, and memory that does not grow."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from etils import epath
from tensorflow_datasets.core import shuffle

from tfds_builders.core import runs
from tfds_builders.core.runs import RunWriter, Sorted

SEED = 3


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs and chunks of a few dozen records."""
    monkeypatch.setattr(runs, "RUN_BYTES", 4_000)
    monkeypatch.setattr(runs, "CHUNK_BYTES", 3_000)


def make_records(number: int) -> dict[str, bytes]:
    rng = np.random.default_rng(SEED)
    return {f"record-{i}": rng.bytes(int(rng.integers(0, 120))) for i in range(number)}


def test_the_order_is_that_of_tfds_and_any_range_reads_apart(tmp_path, small):
    records = make_records(500)
    shuffler = shuffle.Shuffler(tmp_path, "train")
    writer = RunWriter(epath.Path(tmp_path), "train")
    for name, record in records.items():
        shuffler.add(name, record)
        writer.add(name, record)
    expected = [(int(key).to_bytes(16, "big"), record) for key, record in shuffler]
    in_memory = Sorted(writer.runs(), writer.table)
    assert 5 < len(list(tmp_path.glob("*.run"))) < 50  # and the last rows were never written
    assert list(in_memory.read(0, 500)) == expected
    assert (in_memory.num_records, in_memory.num_bytes) == (500, shuffler.size)
    table = writer.table.copy()
    files = [runs.FileRun(path) for path in reversed(writer.files())]
    on_disk = Sorted(files, table)
    for start, stop in ((0, 500), (0, 1), (499, 500), (17, 18), (33, 471), (250, 250)):
        assert list(on_disk.read(start, stop)) == expected[start:stop]


def test_two_records_of_one_name_end_the_build(tmp_path, small):
    writer = RunWriter(epath.Path(tmp_path), "train")
    for name, record in make_records(300).items():
        writer.add(name, record)
    writer.add("record-7", b"again")
    with pytest.raises(ValueError, match="share their sample_id"):
        list(Sorted(writer.runs(), writer.table).read(0, 301))


def test_memory_follows_the_run_not_the_number_of_records(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "RUN_BYTES", 1 << 20)
    monkeypatch.setattr(runs, "CHUNK_BYTES", 1 << 20)
    peaks = []
    for number in (4_000, 40_000):
        folder = epath.Path(tmp_path) / str(number)
        folder.mkdir()
        tracemalloc.start()
        writer = RunWriter(folder, "train")
        for i in range(number):
            writer.add(str(i), i.to_bytes(8, "big") * 64)
        assert sum(1 for _ in Sorted(writer.runs(), writer.table).read(0, number)) == number
        peaks.append(tracemalloc.get_traced_memory()[1] / 2**20)
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 1, peaks  # 21 MB of records, 2 MB and 21 MB
