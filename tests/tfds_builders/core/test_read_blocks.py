"""Sources that are read, built by blocks: the files of a plain build, and what ends a build."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds

from multimed_jax.types import UserError
from tests.tfds_builders.by_blocks import assert_alike, build_files, without_beam
from tests.tfds_builders.core.read_toy import ReadToy
from tests.tfds_builders.core.test_base import make_source
from tests.tfds_builders.core.toy_source import ToySource
from tests.tfds_builders.images import jpeg, smooth_image, write
from tfds_builders.core import fingerprints, reading
from tfds_builders.core.build_options import BuildOptions, build_options
from tfds_builders.core.quarantine import Quarantine
from tfds_builders.core.reading import Blocks


@pytest.fixture(autouse=True)
def blocks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    without_beam(monkeypatch)
    with build_options(BuildOptions(hash_key_file=tmp_path / "key")):
        yield


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """48 films of 12 patients, two of them unreadable, and two files of no patient."""
    folder = make_source(tmp_path / "source", per_patient=4)
    films = sorted(folder.glob("*.jpg"))
    for bad in (films[3], films[17]):
        bad.write_bytes(bad.read_bytes()[:200])
    for name in ("x-0.jpg", "x-1.jpg"):
        write(folder / name, b"")
    return folder


def metadata_in(files: dict[str, bytes]) -> dict[str, Any]:
    return json.loads(files["metadata.json"])


def test_the_files_are_those_of_a_plain_build(tmp_path, source):
    files = assert_alike(ReadToy, source, tmp_path)
    metadata = metadata_in(files)
    assert metadata["quarantine"]["count"] == 4
    assert set(metadata["left_out"]) == {"ninth film", "first film of a part"}
    assert metadata["class_names"]["disease"] == ["even", "odd"] and metadata["walked"] == 50
    assert sum(sum(n.values()) for n in metadata["parities"].values()) == 41
    assert metadata["target_stats"]["train"]["level"]["sum"][1] > 1e5
    assert len([name for name in files if "train.array_record" in name]) > 1
    assert not any(b"p01" in content for name, content in files.items() if "card" not in name)


@pytest.mark.parametrize(
    ("policy", "mode"),
    [
        ("merge_groups", "group"),
        ("share_group", "group"),
        ("share_group", "stratified"),
        ("leave_out", "official"),
    ],
)
def test_duplicates_are_treated_as_in_a_plain_build(tmp_path, source, policy, mode):
    copy = (source / "test-p00-0.jpg").read_bytes()
    write(source / "train-p50-900.jpg", copy)
    write(source / "train-p01-901.jpg", jpeg(smooth_image(1), quality=45))
    files = assert_alike(ReadToy, source, tmp_path, mode=mode, policy=policy)
    left_out = metadata_in(files)["left_out"]
    assert ("copy of a record in another split" in left_out) == (policy == "leave_out")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda s: write(s / "train-p50-900.jpg", (s / "test-p00-0.jpg").read_bytes()), "same con"),
        (lambda s: write(s / "train-p00-90.jpg", jpeg(smooth_image(9))), "in test and train"),
    ],
)
def test_leaks_end_the_build(tmp_path, change, match):
    source = make_source(tmp_path / "source")
    change(source)
    with pytest.raises(UserError, match=match):
        assert_alike(ToySource, source, tmp_path / "p", mode="official")
    flags = {"beam_runner": "DirectRunner"}
    with pytest.raises(UserError, match=match):
        build_files(ToySource, source, tmp_path / "b", None, {"mode": "official"}, **flags)
    assert not list(tmp_path.glob("b/toy_source/*"))


def test_fingerprints_take_part_in_the_audit_between_datasets(tmp_path, source):
    assert_alike(ReadToy, source, tmp_path)
    folder = tmp_path / "blocks" / "toy_source" / "1.0.0"
    found = fingerprints.load(folder)
    assert found is not None and len(found.records) == len(found.row) == 41
    splits = [split for _, _, split in found.records]
    assert splits == sorted(splits, key=["train", "validation", "test"].index)


def test_an_empty_source_and_a_damaged_one(tmp_path):
    (tmp_path / "empty").mkdir()
    damaged = make_source(tmp_path / "damaged")
    for path in sorted(damaged.glob("*.jpg"))[:2]:
        path.write_bytes(b"")
    for folder, match in (("empty", "no records found"), ("damaged", "2 of 24 records.*at most 5")):
        with pytest.raises(UserError, match=match):
            build_files(ToySource, tmp_path / folder, tmp_path / "d", beam_runner="DirectRunner")
    assert not list(tmp_path.glob("d/toy_source/*"))


# ------------------------------------------------------------------------------- changes


def change_between_passes(monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    from tfds_builders.core.build import Build

    planned = Build._plan

    def plan(self: Any, *args: Any) -> Any:
        made = planned(self, *args)
        change()
        return made

    monkeypatch.setattr(Build, "_plan", plan)


@pytest.mark.parametrize("runner", [None, "DirectRunner"])
@pytest.mark.parametrize("name", ["test-p00-0.jpg", "train-p05-11.jpg", "train-p11-23.jpg"])
def test_a_record_that_goes_is_one_sentence(tmp_path, monkeypatch, runner, name):
    source = make_source(tmp_path / "source")
    change_between_passes(monkeypatch, (source / name).unlink)
    flags = {} if runner is None else {"beam_runner": runner}
    with pytest.raises(UserError, match="the source changed while it was read: ") as error:
        build_files(ReadToy, source, tmp_path / "data", **flags)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("data/toy_source/*"))


@pytest.mark.parametrize("runner", [None, "DirectRunner"])
def test_a_record_that_no_longer_decodes_is_one_sentence(tmp_path, monkeypatch, runner):
    source = make_source(tmp_path / "source")
    change_between_passes(monkeypatch, lambda: write(source / "train-p05-11.jpg", b"x"))
    flags = {} if runner is None else {"beam_runner": runner}
    with pytest.raises(UserError, match="could be read at first and no longer"):
        build_files(ReadToy, source, tmp_path / "data", **flags)


def test_a_source_that_grows_between_walk_and_workers(tmp_path, monkeypatch):
    source = make_source(tmp_path / "source")
    made = reading.Source.of
    monkeypatch.setattr(
        reading.Source,
        "of",
        lambda *args: (write(source / "train-p99-99.jpg", jpeg(smooth_image(99))), made(*args))[1],
    )
    with pytest.raises(UserError, match="it has more than 22 records"):
        build_files(ReadToy, source, tmp_path / "data", beam_runner="DirectRunner")


# ----------------------------------------------------------------------- blocks and walks


@pytest.mark.parametrize("number", [0, 1, 63, 64, 65, 1_000, 40_000, 10**7])
def test_blocks_cover_the_source(monkeypatch, number):
    monkeypatch.setattr(reading, "BLOCK_ITEMS", 64)
    found = Blocks(number)
    ends = [found.bounds(k) for k in range(found.num_blocks)]
    assert ends[0][0] == 0 and ends[-1][1] == number
    assert all(a[1] == b[0] for a, b in zip(ends, ends[1:], strict=False))
    assert 1 <= found.num_blocks <= reading.MAX_BLOCKS
    sizes = [stop - start for start, stop in ends]
    assert max(sizes) - min(sizes) <= 1 and (max(sizes) <= 64 or number > 64 * 512)


def test_blocks_in_order_share_one_walk(tmp_path, monkeypatch):
    source = make_source(tmp_path / "source")
    without_beam(monkeypatch, block_items=2)
    monkeypatch.setattr("random.Random.shuffle", lambda self, tasks: None)
    walks = []
    read = ReadToy.read_source

    def counted(self: Any, manual_dir: Path, quarantine: Quarantine) -> Any:
        walks.append(1)
        return read(self, manual_dir, quarantine)

    monkeypatch.setattr(ReadToy, "read_source", counted)
    build_files(ReadToy, source, tmp_path / "data", beam_runner="DirectRunner")
    # The driver's; the index pass and the repeated block; the lost block, the writing pass. Class
    # names that come bit by bit cost each walk of the writing pass one more.
    assert len(walks) <= 1 + 2 + 4


def test_max_examples_count_what_they_give(tmp_path):
    source = make_source(tmp_path / "source")
    builder = ReadToy(data_dir=tmp_path / "data")
    config = tfds.download.DownloadConfig(manual_dir=str(source), max_examples_per_split=2)
    builder.download_and_prepare(download_config=config)
    metadata: Any = builder.info.metadata
    for counts in metadata["class_counts"].values():
        assert sum(counts["disease"]) == 2
    assert np.sum([list(n.values()) for n in metadata["parities"].values()]) == 6
