"""Whole builds of a toy source: what is written, and what must end a build."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tensorflow_datasets as tfds

from multimed_jax.types import UserError
from tests.tfds_builders.built import metadata_of
from tests.tfds_builders.core.toy_source import ToySource
from tests.tfds_builders.images import jpeg, smooth_image, write
from tfds_builders.core.base import StreamedSplit
from tfds_builders.core.records import Datasheet, SourceRecord
from tfds_builders.core.splits import SPLITS

REPOSITORY = Path(__file__).resolve().parents[3]


def make_source(folder: Path, patients: int = 12, per_patient: int = 2) -> Path:
    for i in range(patients * per_patient):
        patient = i // per_patient
        official = "test" if patient % 4 == 0 else "train"
        write(folder / f"{official}-p{patient:02d}-{i}.jpg", jpeg(smooth_image(i)))
    return folder


def build(builder_cls, manual_dir: Path, data_dir: Path, **settings):
    builder = builder_cls(data_dir=data_dir)
    for name, value in settings.items():
        setattr(builder, name, value)
    config = tfds.download.DownloadConfig(manual_dir=str(manual_dir))
    builder.download_and_prepare(download_config=config)
    return tfds.builder_from_directory(builder.data_dir)


def rows(builder):
    for split in SPLITS:
        source = builder.as_data_source(split)
        for i in range(len(source)):
            yield split, source[i]


def test_records_groups_counts_and_card(tmp_path):
    source = make_source(tmp_path / "source")
    built = build(ToySource, source, tmp_path / "data")
    seen, homes, labels = {}, {}, {split: [0, 0] for split in SPLITS}
    for split, record in rows(built):
        name = record["sample_id"].decode()
        seen[name] = record
        homes.setdefault(record["group_id"].decode(), set()).add(split)
        labels[split][record["targets"]["disease"]] += 1
        assert record["xray"]["encoded"] == (source / name).read_bytes()
        assert record["unit"] == b"image"
    assert len(seen) == 24
    assert all(len(where) == 1 for where in homes.values())
    metadata = metadata_of(built)
    assert {s: c["disease"] for s, c in metadata["class_counts"].items()} == labels
    assert metadata["num_groups"] == {
        split: sum(split in where for where in homes.values()) for split in SPLITS
    }
    assert metadata["split_mode"] == "group"
    assert metadata["quarantine"] == {"count": 0, "rate": 0.0, "items": []}
    card = json.loads((Path(built.data_dir) / "dataset_card.json").read_text())
    assert card["conformsTo"] == "http://mlcommons.org/croissant/1.0"
    assert card["mm:counts"]["train"]["image"] == sum(labels["train"])
    assert card["mm:contentHash"] == metadata["content_hash"]
    assert set(card["mm:classCounts"]["test"]["disease"]) == {"even", "odd"}
    files = [part for part in card["distribution"] if part["@type"] == "cr:FileObject"]
    assert len(files) == 3


def test_content_hash_repeats_and_notices_one_byte(tmp_path):
    source = make_source(tmp_path / "source")
    first = metadata_of(build(ToySource, source, tmp_path / "a"))["content_hash"]
    again = metadata_of(build(ToySource, source, tmp_path / "b"))["content_hash"]
    assert first == again
    name = sorted(source.glob("*.jpg"))[5]
    name.write_bytes(name.read_bytes() + b"\0")
    assert metadata_of(build(ToySource, source, tmp_path / "c"))["content_hash"] != first


def test_a_truncated_file_is_quarantined(tmp_path):
    source = make_source(tmp_path / "source")
    bad = sorted(source.glob("*.jpg"))[3]
    bad.write_bytes(bad.read_bytes()[:200])
    built = build(ToySource, source, tmp_path / "data")
    quarantine = metadata_of(built)["quarantine"]
    assert quarantine["count"] == 1
    assert quarantine["items"][0]["sample_id"] == bad.name
    assert "decode" in quarantine["items"][0]["reason"]
    assert quarantine["rate"] == pytest.approx(1 / 24)
    assert bad.name not in {r["sample_id"].decode() for _, r in rows(built)}


def fails(builder_cls, source, data_dir, match, **settings):
    with pytest.raises(UserError, match=match):
        build(builder_cls, source, data_dir, **settings)
    assert not list(data_dir.glob("toy_source/*"))  # no version, finished or half-written


def test_too_many_unreadable_files_end_the_build(tmp_path):
    source = make_source(tmp_path / "source")
    for bad in sorted(source.glob("*.jpg"))[:2]:
        bad.write_bytes(b"")
    fails(ToySource, source, tmp_path / "data", r"2 of 24 records.*at most 5.0%.*test-p00-0.jpg")


def test_an_empty_source(tmp_path):
    (tmp_path / "source").mkdir()
    fails(
        ToySource, tmp_path / "source", tmp_path / "data", "no records found under .*expected lay"
    )


def test_a_missing_folder(tmp_path):
    fails(ToySource, tmp_path / "nowhere", tmp_path / "data", "nowhere does not exist")


def test_a_byte_copy_in_two_splits_is_listed(tmp_path):
    source = make_source(tmp_path / "source")
    copy = (source / "test-p00-0.jpg").read_bytes()
    write(source / "train-p50-900.jpg", copy)
    match = (
        r"1 duplicate.*test-p00-0.jpg \(test\) = train-p50-900.jpg \((train|validation), same con"
    )
    fails(ToySource, source, tmp_path / "data", match, mode="official")


def test_a_re_encoded_copy_in_two_splits_is_listed(tmp_path):
    source = make_source(tmp_path / "source")
    write(source / "train-p50-900.jpg", jpeg(smooth_image(0), quality=45))
    match = r"test-p00-0.jpg \(test\) = train-p50-900.jpg.*looks the same"
    fails(ToySource, source, tmp_path / "data", match, mode="official")


def test_a_patient_in_two_official_splits_is_listed(tmp_path):
    source = make_source(tmp_path / "source")
    write(source / "train-p00-900.jpg", jpeg(smooth_image(900)))
    fails(ToySource, source, tmp_path / "data", "p00 in test and train", mode="official")


def test_copies_of_one_patient_are_counted_not_refused(tmp_path):
    source = make_source(tmp_path / "source")
    write(source / "test-p00-900.jpg", (source / "test-p00-0.jpg").read_bytes())
    built = build(ToySource, source, tmp_path / "data")
    assert sum(metadata_of(built)["duplicates"].values()) == 1


@pytest.mark.parametrize("policy", ["merge_groups", "share_group"])
def test_policies_keep_twins_in_one_split(tmp_path, policy):
    source = make_source(tmp_path / "source", patients=12)
    for patient in range(0, 12, 2):  # copies between neighbouring patients
        other = sorted(source.glob(f"*-p{patient + 1:02d}-*.jpg"))[0]
        twin = sorted(source.glob(f"*-p{patient:02d}-*.jpg"))[0]
        other.write_bytes(twin.read_bytes())
    built = build(ToySource, source, tmp_path / "data", policy=policy)
    content, patients = {}, {}
    for split, record in rows(built):
        content.setdefault(record["xray"]["encoded"], set()).add(split)
        patient = record["sample_id"].decode().split("-")[1]
        patients.setdefault(patient, set()).add(record["group_id"])
    assert len(content) == 18
    assert all(len(where) == 1 for where in content.values())
    # Merging unites whole patients; sharing moves the copy alone.
    split_patients = [name for name, groups in patients.items() if len(groups) > 1]
    assert len(split_patients) == (0 if policy == "merge_groups" else 6)


def test_left_out_copies_are_counted(tmp_path):
    source = make_source(tmp_path / "source")
    write(source / "train-p50-900.jpg", (source / "test-p00-0.jpg").read_bytes())
    built = build(ToySource, source, tmp_path / "data", mode="official", policy="leave_out")
    names = {r["sample_id"].decode() for _, r in rows(built)}
    assert "test-p00-0.jpg" in names
    assert "train-p50-900.jpg" not in names
    assert metadata_of(built)["left_out"] == {"copy of a record in another split": 1}


def test_an_empty_answer_in_the_datasheet_ends_the_build(tmp_path):
    source = make_source(tmp_path / "source")
    sheet = Datasheet(*["A full answer to it."] * 7, unsuitable_use="No.")
    fails(ToySource, source, tmp_path / "data", "unsuitable_use.*'No.'", DATASHEET=sheet)


def test_streamed_splits_need_no_source(tmp_path):
    class Streamed(ToySource, skip_registration=True):
        NEEDS_MANUAL_DIR = False

        def stream_splits(self):
            def records(start):
                for i in range(start, start + 5):
                    value = {
                        "encoded": b"x",
                        "height": 1,
                        "width": 1,
                        "spacing_mm": [0.0, 0.0],
                    }
                    record = {"xray": value, "targets": {"disease": i % 2}}
                    yield SourceRecord(f"r{i}", f"g{i}", record, "")

            return {
                split: StreamedSplit(5, lambda _, start=5 * k: records(start))
                for k, split in enumerate(SPLITS)
            }

    builder = Streamed(data_dir=tmp_path)
    builder.download_and_prepare()
    metadata = metadata_of(tfds.builder_from_directory(builder.data_dir))
    assert metadata["num_groups"] == dict.fromkeys(SPLITS, 5)
    assert metadata["class_counts"]["train"]["disease"] == [3, 2]


_SLOW_BUILD = """
import sys, time
import tensorflow_datasets as tfds
from tests.tfds_builders.core.toy_source import ToySource
from tfds_builders.core.tally import NoStatistics

class Wait(NoStatistics):
    def add(self, split, record):
        print("writing", flush=True)
        time.sleep(0.2)

class Slow(ToySource, skip_registration=True):
    name = "toy_source"
    def statistics(self):
        return Wait()

builder = Slow(data_dir=sys.argv[2])
builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=sys.argv[1]))
"""


def test_a_killed_build_leaves_no_version_and_the_next_one_gives_the_same_hash(tmp_path):
    source = make_source(tmp_path / "source")
    expected = metadata_of(build(ToySource, source, tmp_path / "whole"))["content_hash"]
    data = tmp_path / "data"
    process = subprocess.Popen(
        [sys.executable, "-c", _SLOW_BUILD, str(source), str(data)],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("writing"):
            break
    time.sleep(0.5)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (data / "toy_source" / "1.0.0").exists()
    assert list((data / "toy_source").glob("*incomplete*"))  # it was killed while writing
    assert metadata_of(build(ToySource, source, data))["content_hash"] == expected
