"""Sidecars: what they hold, where they are written, and when they are refused."""

from __future__ import annotations

import dataclasses
import hashlib
import threading

import numpy as np
import pytest

from multimed_jax.data.sizes import Sizes, load_sizes, read_target, spec_hash
from multimed_jax.layers.decode_errors import DecodeError
from multimed_jax.types import UserError
from tests.data.fakes import OTHER, TOY, A, B, FakeSource
from tests.toy import make_toy_task

LENGTHS = {"a": [3, 0, 5, 0, 2, 7, 1, 4, 6, 9], "b": [0, 2, 4, 0, 1, 1, 1, 1, 1, 1]}
LABELS = [0, 1, 2, 1, -1, 0, 0, 1, 2, 2]


def source(**changes) -> FakeSource:
    return FakeSource("one", LENGTHS, labels=LABELS, **changes)


def reversed_source() -> FakeSource:
    """The same records and content hash in another on-disk order."""
    out = source()
    forward = out.__getitem__
    records = [forward(row) for row in reversed(range(10))]

    class Reversed(FakeSource):
        def __getitem__(self, row, /):
            return records[row]

    return Reversed("one", LENGTHS, labels=LABELS)


def test_counts_targets_groups_and_skipped_rows(tmp_path):
    sizes = load_sizes(source(), (A, B), (TOY, OTHER), tmp_path)
    assert sizes.tokens.tolist() == [list(pair) for pair in zip(*LENGTHS.values(), strict=True)]
    assert sizes.has_target[:, 0].tolist() == [label >= 0 for label in LABELS]
    assert not sizes.has_target[:, 1].any()
    digest = hashlib.sha256(b"one-g4").digest()[:8]
    assert int(sizes.group[8]) == int.from_bytes(digest, "big") == int(sizes.group[9])
    # Row 3 has no token, row 4 has no target.
    assert sizes.rows is not None
    assert sizes.rows.tolist() == [0, 1, 2, 5, 6, 7, 8, 9]
    assert (sizes.num_drawable, sizes.num_skipped) == (8, 2)
    assert sizes.drawable_row(np.array([0, 3, 7])).tolist() == [0, 5, 9]


def test_a_configured_subset_of_modalities_and_source_tasks(tmp_path):
    sizes = load_sizes(source(), (B,), (TOY,), tmp_path)
    assert sizes.tokens[:, 0].tolist() == LENGTHS["b"]
    two = source(tasks=("toy", "other"))
    two.tasks = ("other",)  # what SourceConfig.tasks does
    sizes = load_sizes(two, (A,), (TOY, OTHER), tmp_path / "two")
    assert not sizes.has_target[:, 0].any() and sizes.has_target[0, 1]


def test_all_drawable_spends_no_memory(tmp_path):
    sizes = load_sizes(FakeSource("one", {"a": [1, 2, 3]}), (A,), (TOY,), tmp_path)
    assert sizes.rows is None and sizes.num_drawable == 3 and sizes.num_skipped == 0
    assert isinstance(sizes.tokens, np.memmap)


def test_the_second_time_only_a_few_records_are_read(tmp_path):
    lengths = {"a": [1 + i % 5 for i in range(50)]}
    load_sizes(FakeSource("one", lengths), (A,), (TOY,), tmp_path)
    read = []

    class Counting(FakeSource):
        def __getitem__(self, row, /):
            read.append(row)
            return super().__getitem__(row)

    load_sizes(Counting("one", lengths), (A,), (TOY,), tmp_path)
    assert len(read) == len(set(read)) == 8


def test_a_sidecar_in_other_order_is_refused(tmp_path):
    load_sizes(source(), (A, B), (TOY,), tmp_path)
    with pytest.raises(UserError, match=r"stale: row \d+ of 'one'"):
        load_sizes(reversed_source(), (A, B), (TOY,), tmp_path)


@pytest.mark.parametrize("labels", [[0, 0, 0, 0], None])
def test_other_order_is_found_where_all_counts_are_equal(tmp_path, labels):
    """Records of one shape differ in their group only; that is enough."""
    lengths = {"a": [4, 4, 4, 4]}
    load_sizes(FakeSource("one", lengths, labels=labels), (A,), (TOY,), tmp_path)

    class Swapped(FakeSource):
        def __getitem__(self, row, /):
            return super().__getitem__(3 - row)

    with pytest.raises(UserError, match="stale: row 0"):
        load_sizes(Swapped("one", lengths, labels=labels), (A,), (TOY,), tmp_path)


def test_counts_of_other_code_are_refused(tmp_path):
    """The same options, but `count` itself has changed; or a target that the record lost."""
    load_sizes(source(), (A, B), (TOY,), tmp_path)
    more = dataclasses.replace(A, count=lambda record, options: {"a.toy": 99})
    with pytest.raises(UserError, match="stale: row"):
        load_sizes(source(), (more, B), (TOY,), tmp_path)
    without = FakeSource("one", LENGTHS, labels=[-1] * 10)
    with pytest.raises(UserError, match="stale: row"):
        load_sizes(without, (A, B), (TOY,), tmp_path)


def test_a_sidecar_of_another_length_is_refused(tmp_path):
    load_sizes(FakeSource("one", {"a": [4, 4, 4, 4]}), (A,), (TOY,), tmp_path)
    with pytest.raises(UserError, match="of 4 records, 'one' has 3"):
        load_sizes(FakeSource("one", {"a": [4, 4, 4]}), (A,), (TOY,), tmp_path)


def test_a_damaged_sidecar_is_refused(tmp_path):
    load_sizes(source(), (A, B), (TOY,), tmp_path)
    (file,) = tmp_path.rglob("tokens.npy")
    file.write_bytes(file.read_bytes()[:140])
    with pytest.raises(UserError, match="cannot be read"):
        load_sizes(source(), (A, B), (TOY,), tmp_path)


def test_it_lies_beside_the_version_folder_and_tells_specs_apart(tmp_path):
    one = source()
    one.folder = folder = tmp_path / "data" / "one" / "1.0.0"
    folder.mkdir(parents=True)
    load_sizes(one, (A, B), (TOY,), tmp_path / "work")
    load_sizes(one, (A.with_options(width=4), B), (TOY,), tmp_path / "work2")
    found = sorted(p.name for p in folder.parent.iterdir())
    assert len(found) == 3 and found[0] == "1.0.0"
    prefix = f"sizes-{one.info.content_hash[:16]}-"
    assert all(name.startswith(prefix) for name in found[1:])
    assert sorted(p.name for p in (folder.parent / found[1] / "train").iterdir()) == [
        "group.npy",
        "has_target.npy",
        "summary-1",
        "tokens.npy",
        "windows.npy",
    ]
    assert not (tmp_path / "work").exists()


def test_a_read_only_dataset_gets_its_sizes_in_the_workdir(tmp_path):
    # A file stands where the folder would be: no user can make a folder below it.
    (tmp_path / "data").write_text("")
    one = source()
    one.folder = tmp_path / "data" / "one" / "1.0.0"
    sizes = load_sizes(one, (A, B), (TOY,), tmp_path / "work")
    assert len(sizes.tokens) == 10
    assert list((tmp_path / "work" / "sizes").glob("sizes-*/train/tokens.npy"))
    with pytest.raises(UserError, match="none of"):
        load_sizes(one, (A,), (TOY,), tmp_path / "data")


def test_spec_hash_covers_geometry_and_targets():
    hashes = {
        spec_hash((A, B), (TOY,)),
        spec_hash((B, A), (TOY,)),
        spec_hash((A,), (TOY,)),
        spec_hash((A.with_options(width=4), B), (TOY,)),
        spec_hash((A, B), (OTHER,)),
        spec_hash((A, B), (dataclasses.replace(TOY, target_dtype="float32"),)),
    }
    assert len(hashes) == 6


def test_other_processes_wait_for_process_0(tmp_path):
    with pytest.raises(UserError, match="process 1 waited"):
        load_sizes(source(), (A, B), (TOY,), tmp_path, process_index=1, timeout_s=0.3)
    found: list[Sizes] = []
    waiting = threading.Thread(
        target=lambda: found.append(
            load_sizes(source(), (A, B), (TOY,), tmp_path, process_index=1, timeout_s=20)
        )
    )
    waiting.start()
    first = load_sizes(source(), (A, B), (TOY,), tmp_path)
    waiting.join(20)
    np.testing.assert_array_equal(found[0].tokens, first.tokens)


def test_an_interrupted_pass_leaves_nothing(tmp_path):
    class Broken(FakeSource):
        def __getitem__(self, row, /):
            if row == 6:
                raise KeyboardInterrupt
            return super().__getitem__(row)

    with pytest.raises(KeyboardInterrupt):
        load_sizes(Broken("one", LENGTHS, labels=LABELS), (A,), (TOY,), tmp_path)
    assert not list(tmp_path.rglob("*.npy"))
    assert len(load_sizes(source(), (A,), (TOY,), tmp_path).tokens) == 10


def test_a_record_that_cannot_be_counted_is_skipped(tmp_path):
    def count(record, options):
        if record["sample_id"] == b"one-2":
            raise DecodeError("no header")
        return A.count(record, options)

    sizes = load_sizes(source(), (dataclasses.replace(A, count=count),), (TOY,), tmp_path)
    assert sizes.tokens[2].tolist() == [0] and sizes.tokens[5].tolist() == [7]


def test_a_label_outside_its_classes_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"record 1 of 'one' has class 3 .* 3 classes"):
        load_sizes(FakeSource("one", {"a": [1, 1]}, labels=[0, 3]), (A,), (TOY,), tmp_path)


def test_read_target():
    real = dataclasses.replace(make_toy_task("r"), target_dtype="float32", target_shape=(2,))
    assert read_target({"targets": {"toy": -1}}, TOY) is None
    assert read_target({"targets": {"toy": None}}, TOY) is None
    assert read_target({"targets": {}}, TOY) is None
    assert read_target({}, TOY) is None
    assert read_target({"targets": {"toy": 0}}, TOY) == 0
    assert read_target({"targets": {"r": [np.nan, np.nan]}}, real) is None
    found = read_target({"targets": {"r": [np.nan, 2.0]}}, real)
    assert found is not None and found.dtype == np.float32 and found[1] == 2
