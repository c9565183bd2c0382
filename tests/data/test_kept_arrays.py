"""Tables of arrays in files: what is kept comes back whole, or not at all."""

from __future__ import annotations

import errno
import math
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from multimed_jax.data.kept_arrays import KeptArrays, KeptFolder
from multimed_jax.types import UserError

ROWS = 50


def arrays(row: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(row)
    return {
        "levels": rng.integers(0, 256, (row % 5 + 1, 7, 3), dtype=np.uint8),
        "none": np.zeros((0, 3), np.float32),
        "one": np.float64(row) * np.ones(()),
    }


def table(folder: Path, gib: float = 1.0, rows: int = ROWS) -> KeptArrays:
    return KeptArrays(KeptFolder(str(folder), gib), "split/table", rows)


def check(found, row: int) -> None:
    kind, values = found
    wanted = arrays(row)
    assert kind == f"kind {row % 2}" and list(values) == list(wanted)
    for name, value in values.items():
        assert value.dtype == wanted[name].dtype and value.shape == wanted[name].shape
        np.testing.assert_array_equal(value, wanted[name])
        assert not value.flags.writeable and value.flags.aligned


def put(kept: KeptArrays, row: int) -> None:
    kept.put(row, f"kind {row % 2}", arrays(row))


def test_what_is_put_is_there_for_this_and_later_openings(tmp_path):
    first, beside = table(tmp_path), table(tmp_path)
    for row in (3, 0, 49):
        assert first.get(row) is None
        put(first, row)
    for kept in (first, beside, table(tmp_path)):
        for row in (49, 3, 0):
            check(kept.get(row), row)
        assert kept.get(1) is None


def test_threads_and_openings_keep_each_row_once(tmp_path):
    tables = [table(tmp_path) for _ in range(4)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: put(tables[i % 4], i // 8 % ROWS), range(8 * ROWS)))
    for row in range(ROWS):
        check(tables[0].get(row), row)
    index = np.fromfile(tmp_path / "split/table/index", "<u8").reshape(ROWS, 2)
    lengths = index[:, 1] & 0xFFFFFFFF
    size = (tmp_path / "split/table/data").stat().st_size
    assert len(set(index[:, 0])) == ROWS and lengths.sum() == size
    assert int.from_bytes((tmp_path / "used").read_bytes(), "little") == size


def test_arrays_of_objects_are_not_kept(tmp_path):
    kept = table(tmp_path)
    kept.put(0, "kind", {"words": np.array(["a", None], object)})
    assert kept.get(0) is None


@pytest.mark.parametrize("damage", ["cut", "changed", "index"])
def test_damaged_entries_count_as_not_kept_and_are_kept_anew(tmp_path, damage):
    """As a machine leaves them that lost power before all pages were on disk."""
    kept = table(tmp_path)
    for row in range(5):
        put(kept, row)
    data, index = tmp_path / "split/table/data", tmp_path / "split/table/index"
    content = bytearray(data.read_bytes())
    if damage == "cut":
        data.write_bytes(content[:-40])
    elif damage == "changed":
        content[-200] ^= 1
        data.write_bytes(content)
    else:
        places = bytearray(index.read_bytes())
        places[4 * 16 : 5 * 16] = b"\xff" * 16
        index.write_bytes(places)
    again = table(tmp_path)
    assert again.get(4) is None
    check(again.get(3), 3)
    put(again, 4)
    check(again.get(4), 4)
    check(table(tmp_path).get(4), 4)


def test_the_limit_holds_for_all_tables_together(tmp_path):
    limit = 2000 / 2**30
    folder = KeptFolder(str(tmp_path), limit)
    for name in ("a", "b"):
        kept = KeptArrays(folder, name, ROWS)
        for row in range(ROWS):
            put(kept, row)
    sizes = [path.stat().st_size for path in tmp_path.glob("*/data")]
    assert 1000 < sum(sizes) <= 2000
    wider = KeptArrays(KeptFolder(str(tmp_path), 1.0), "b", ROWS)
    put(wider, 49)
    check(wider.get(49), 49)


def test_an_infinite_limit_is_none(tmp_path):
    table = KeptArrays(KeptFolder(str(tmp_path), math.inf), "a", ROWS)
    table.put(0, "parts", {"x": np.arange(3)})
    found = table.get(0)
    assert found is not None and found[1]["x"].tolist() == [0, 1, 2]


def test_a_full_disk_is_one_sentence_and_leaves_no_entry(tmp_path, monkeypatch):
    kept, real = table(tmp_path), os.pwrite

    def pwrite(file, content, offset):
        if len(content) > 16:
            real(file, content[: len(content) // 2], offset)
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(file, content, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(UserError, match="is on a full disk; free some room, lower"):
        put(kept, 0)
    monkeypatch.undo()
    assert kept.get(0) is None and (tmp_path / "split/table/data").stat().st_size == 0
    put(kept, 0)
    check(table(tmp_path).get(0), 0)


def test_a_folder_that_cannot_be_used_and_other_rows_are_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file' cannot be used .*accepted: a folder"):
        KeptFolder(str(tmp_path / "file"), 1.0)
    table(tmp_path)
    with pytest.raises(UserError, match="of 50 rows where its data have 51; delete it"):
        table(tmp_path, rows=51)


FILLING = """
import sys
from pathlib import Path
from tests.data.test_kept_arrays import put, table
kept = table(Path(sys.argv[1]), rows=100_000)
print("filling", flush=True)
for row in range(100_000):
    put(kept, row)
"""


def test_a_killed_process_leaves_whole_entries_and_no_lock(tmp_path):
    command = [sys.executable, "-c", FILLING, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "filling\n"
        time.sleep(0.3)
        process.send_signal(signal.SIGKILL)
    kept = table(tmp_path, rows=100_000)
    found = [row for row in range(100_000) if kept.get(row) is not None]
    assert 10 < len(found) < 100_000
    for row in found[-20:]:
        check(kept.get(row), row)
    put(kept, 99_999)
    check(kept.get(99_999), 99_999)
