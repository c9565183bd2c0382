"""The benchmark of many records: its sets are what it says, and goals are compared as written."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks import record_set, records
from multimed_jax.config import SourceConfig
from multimed_jax.data.sources import open_source

BASE, TIMES = 30, 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("records")
    made = records.make_sets(folder, BASE * TIMES, BASE, copies=False, group=0)
    assert made["large_records"] == BASE * TIMES and made["first_open_ms"] > 0
    return folder


def version(folder: Path, name: str) -> Path:
    return folder / name / record_set.NAME / "1.0.0"


def opened(folder: Path, name: str):
    return open_source(SourceConfig(record_set.NAME, 1.0), str(folder / name), record_set.SPLIT)


def test_the_larger_set_is_the_smaller_over_and_over(folder):
    small, large = opened(folder, "small"), opened(folder, "large")
    assert len(small) == BASE and len(large) == BASE * TIMES
    names = [small[row]["sample_id"] for row in range(BASE)]
    assert len(set(names)) == BASE
    assert [large[row]["sample_id"] for row in range(BASE * TIMES)] == names * TIMES
    assert {len(small[row]["genomics"]["sequence"]) for row in range(BASE)} == {record_set.BASES}
    shards = [p for p in version(folder, "large").iterdir() if ".array_record-" in p.name]
    assert len(shards) == TIMES and len({p.stat().st_ino for p in shards}) == 1


def test_copies_are_files_of_their_own(folder, tmp_path):
    made = record_set.widen(version(folder, "small"), tmp_path / "large", 2, copies=True)
    shards = [p for p in made.iterdir() if ".array_record-" in p.name]
    assert len({p.stat().st_ino for p in shards}) == 2
    assert len({p.read_bytes() for p in shards}) == 1
    assert len(opened(tmp_path, "large")) == 2 * BASE


def test_grouped_records_are_the_same_in_the_same_order(folder, tmp_path):
    shutil.copytree(folder / "small", tmp_path / "small")
    record_set.regroup(version(tmp_path, "small"), 16)
    before, after = opened(folder, "small"), opened(tmp_path, "small")
    size = {
        p: sum(f.stat().st_size for f in version(p, "small").iterdir()) for p in (folder, tmp_path)
    }
    assert size[tmp_path] <= size[folder]
    for row in range(BASE):
        assert before[row]["sample_id"] == after[row]["sample_id"]


def test_a_set_is_measured_as_the_trainer_opens_it(folder):
    found = records.measure_set(folder / "large", folder / "warm", reads=20, seed=0)
    assert found["records"] == BASE * TIMES and found["state_bytes"] == 16
    parts = found["source_ms"] + found["sizes_ms"] + found["layout_and_loader_ms"]
    assert found["open_ms"] == pytest.approx(parts, abs=0.01)
    assert found["largest_read_ms"] >= found["first_read_ms"] > 0


def test_goals_are_of_medians_and_the_ratio_of_the_best():
    def turn(open_ms, read_ms, rss_mib):
        return {
            "open_ms": open_ms,
            "open_cpu_ms": open_ms,
            "read_ms": read_ms,
            "read_cpu_ms": read_ms,
            "rss_mib": rss_mib,
            "state_bytes": 16.0,
        }

    found = records.summary(
        {
            "small": [turn(1, 0.2, 5), turn(1, 0.1, 5), turn(1, 0.3, 5)],
            "large": [turn(51, 0.12, 30), turn(49, 9.0, 24), turn(60, 0.2, 26)],
        }
    )
    goals = found["goals"]
    assert goals["open_ms"] == {"measured": 51, "at_most": 50.0, "met": False}
    assert goals["growth_mib"]["measured"] == 26 - 5 and not goals["growth_mib"]["met"]
    assert goals["read_ratio"]["measured"] == 1.2 and not goals["read_ratio"]["met"]
    assert goals["read_ms"] == {"measured": 0.2, "at_most": 2.0, "met": True}
    assert goals["state_bytes"]["met"]
    assert found["best"]["large"]["read_ms"] == 0.12 and found["read_cpu_ratio"] == 1.2


def test_sizes_of_the_larger_set_are_those_of_the_smaller(folder):
    def sizes(name: str) -> Path:
        (found,) = (folder / name / record_set.NAME).glob("sizes-*/train")
        return found

    for name in ("tokens", "has_target", "group", "windows"):
        once, many = (np.load(sizes(n) / f"{name}.npy") for n in ("small", "large"))
        np.testing.assert_array_equal(many, np.concatenate([once] * TIMES))
