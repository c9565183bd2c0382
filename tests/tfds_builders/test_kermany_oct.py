"""Kermany OCT: published names, the two configs, the real subset."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from multimed_jax.types import UserError
from tests.tfds_builders.built import build, metadata_of, read
from tests.tfds_builders.images import jpeg, jpeg_size, smooth_image, write
from tfds_builders.kermany_oct.kermany_oct_dataset_builder import CLASSES, Builder, patient_of

FOLDERS = ("CNV", "DME", "DRUSEN", "NORMAL")


def make_source(folder: Path) -> Path:
    """Four patients of each class in train, one of them in test, too; one more in test and val."""
    root = folder / "OCT2017"
    for c, label in enumerate(FOLDERS):
        for p in range(4):
            for n in (1, 2):
                image = jpeg(smooth_image(1000 * c + 10 * p + n))
                write(root / f"train/{label}/{label}-{c}{p}-{n}.jpeg", image)
        write(root / f"test/{label}/{label}-{c}0-3.jpeg", jpeg(smooth_image(5000 + c)))
        write(root / f"test/{label}/{label}-{c}8-1.jpeg", jpeg(smooth_image(6000 + c)))
        write(root / f"val/{label}/{label}-{c}9-1.jpeg", jpeg(smooth_image(7000 + c)))
    write(root / "train/CNV/.DS_Store", b"x")
    return folder


def test_patient_of():
    assert patient_of("CNV-6294785-2", "CNV") == "6294785"
    with pytest.raises(UserError, match="'CNV-6294785' holds no patient; expected <CLASS>"):
        patient_of("CNV-6294785", "CNV")
    with pytest.raises(UserError, match="'CNV-1-2' and its folder 'DME' name different classes"):
        patient_of("CNV-1-2", "DME")


def test_original_keeps_patients_whole(tmp_path):
    source = make_source(tmp_path / "source")
    built = build(Builder, source, tmp_path / "data", "original")
    homes, labels = {}, Counter()
    for split, record in read(built):
        name = record["sample_id"].decode()
        labels[record["targets"]["disease"]] += 1
        assert name.split("/")[1] == FOLDERS[record["targets"]["disease"]]
        encoded = (source / "OCT2017" / name).read_bytes()
        assert record["oct"]["encoded"] == encoded
        assert jpeg_size(encoded) == (record["oct"]["height"], record["oct"]["width"])
        homes.setdefault(record["group_id"], set()).add(split)
    assert labels == {c: 11 for c in range(4)}
    assert len(homes) == 24
    assert all(len(where) == 1 for where in homes.values())
    assert metadata_of(built)["class_names"] == {"disease": list(CLASSES)}


def test_official_leaves_out_training_scans_of_tested_patients(tmp_path):
    source = make_source(tmp_path / "source")
    built = build(Builder, source, tmp_path / "data", "official")
    where = {record["sample_id"].decode(): split for split, record in read(built)}
    tested = {name for name, split in where.items() if split == "test"}
    assert tested == {name for name in where if name.startswith("test/")}
    assert len(tested) == 8
    assert len(where) == 8 + 4 * 6 + 4
    reason = "scan for training of a patient of the published test folder"
    assert metadata_of(built)["left_out"] == {reason: 8}
    assert metadata_of(built)["split_mode"] == "official"


def test_any_of_the_folders_will_do(tmp_path):
    source = make_source(tmp_path / "source")
    for side in ("train", "test"):
        (source / "OCT2017" / side).rename(tmp_path / side)
    with pytest.raises(UserError, match="has no subfolder 'train'; expected: train, test"):
        build(Builder, source, tmp_path / "a", "official")
    built = build(Builder, source / "OCT2017", tmp_path / "b", "original")
    assert sum(1 for _ in read(built)) == 4
    (source / "OCT2017/val").rename(source / "OCT2017/valid")
    with pytest.raises(UserError, match="none of the subfolders train, test, val"):
        build(Builder, source, tmp_path / "c", "original")


def test_equal_scans_of_two_numbers_are_one_patient(tmp_path):
    source = make_source(tmp_path / "source")
    twin = (source / "OCT2017/train/CNV/CNV-00-1.jpeg").read_bytes()
    write(source / "OCT2017/train/NORMAL/NORMAL-77-1.jpeg", twin)
    built = build(Builder, source, tmp_path / "data", "original")
    groups = {
        record["sample_id"].decode(): (split, record["group_id"]) for split, record in read(built)
    }
    assert groups["train/NORMAL/NORMAL-77-1.jpeg"] == groups["train/CNV/CNV-00-2.jpeg"]


def test_a_damaged_scan_is_quarantined(tmp_path):
    source = make_source(tmp_path / "source")
    path = source / "OCT2017/train/DME/DME-11-1.jpeg"
    path.write_bytes(path.read_bytes()[:200])
    built = build(Builder, source, tmp_path / "data", "original")
    items = metadata_of(built)["quarantine"]["items"]
    assert [item["sample_id"] for item in items] == ["train/DME/DME-11-1.jpeg"]


def test_real_subset(shared_data, tmp_path):
    raw = shared_data / "kermany_oct_val"
    built = build(Builder, raw, tmp_path / "data", "original")
    labels, patients, homes = Counter(), {}, {}
    for split, record in read(built):
        label = FOLDERS[record["targets"]["disease"]]
        labels[label] += 1
        patients.setdefault(label, set()).add(record["group_id"])
        homes.setdefault(record["group_id"], set()).add(split)
        encoded = (raw / "OCT2017" / record["sample_id"].decode()).read_bytes()
        assert record["oct"]["encoded"] == encoded
        assert jpeg_size(encoded) == (record["oct"]["height"], record["oct"]["width"])
        assert record["oct"]["height"] == 496
    assert labels == {name: 4 for name in FOLDERS}
    assert {name: len(ids) for name, ids in patients.items()} == {
        "CNV": 3,
        "DME": 2,
        "DRUSEN": 3,
        "NORMAL": 3,
    }
    assert all(len(where) == 1 for where in homes.values())
