"""VinDr-CXR: majority of three readers, DICOM films against pydicom, official split."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from multimed_jax.types import UserError
from tests.tfds_builders.built import metadata_of
from tests.tfds_builders.dicoms import make_ct, save
from tests.tfds_builders.images import write
from tests.tfds_builders.sources import build_accepted, by_sample, index
from tfds_builders.vindr_cxr.vindr_cxr_dataset_builder import LABELS, Builder, majority

TRAIN, TEST = 24, 6
EFFUSION, NONE = LABELS.index("Pleural effusion"), LABELS.index("No finding")


def film(seed: int, **changes) -> pydicom.Dataset:
    stored = np.random.default_rng(seed).integers(100, 3000, (6, 8)).astype(np.uint16)
    tags = {"Modality": "DX", "BitsStored": 12, "HighBit": 11, "ImagerPixelSpacing": [0.2, 0.1]}
    return make_ct(stored, PixelSpacing=None, **{**tags, **changes})


def votes_of(i: int, reader: int) -> list[int]:
    """Effusion by two of three readers in every third image, by one in the next ones."""
    has = reader < (2, 1, 0)[i % 3]
    return [int(has) if k == EFFUSION else int(not has) if k == NONE else 0 for k in range(28)]


def make_source(folder: Path) -> Path:
    """24 training images of three rows each, six test images of one row."""
    train, test = ["image_id,rad_id," + ",".join(LABELS)], ["image_id," + ",".join(LABELS)]
    test[0] = test[0].replace("Other diseases", "Other disease")
    for i in range(TRAIN):
        photometric = "MONOCHROME1" if i % 2 else "MONOCHROME2"
        save(film(i, PhotometricInterpretation=photometric), folder / f"train/t{i:02d}.dicom")
        for r in range(3):
            train.append(f"t{i:02d},R{r + i % 5}," + ",".join(map(str, votes_of(i, r))))
    for i in range(TEST):
        save(film(100 + i), folder / f"test/e{i}.dicom")
        test.append(f"e{i}," + ",".join(map(str, votes_of(i, 0))))
    write(folder / "annotations/image_labels_train.csv", "\n".join(train).encode())
    write(folder / "annotations/image_labels_test.csv", "\n".join(test).encode())
    return folder


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return make_source(tmp_path_factory.mktemp("vindr"))


def test_majority():
    rows = np.zeros((3, 28), np.int32)
    rows[:2, 3] = rows[0, 5] = rows[:, 7] = 1
    found = majority(list(rows), "a", 3, Path("t.csv"))
    assert np.flatnonzero(found).tolist() == [3, 7]
    with pytest.raises(UserError, match=r"2 row\(s\) for the image 'a'; accepted: 3"):
        majority(list(rows[:2]), "a", 3, Path("t.csv"))


def test_official(published, tmp_path):
    source = shutil.copytree(published, tmp_path / "source")
    save(film(5, BurnedInAnnotation="YES"), source / "train/t05.dicom")
    built = build_accepted(Builder, source, tmp_path / "data", "official")
    found = by_sample(built)
    assert len(found) == TRAIN + TEST - 1
    for name, (split, record) in found.items():
        side, stem = name.split("/")
        i = int(stem[1:])
        assert (split == "test") == (side == "test")
        labels = record["targets"]["radiographic"]
        positive = i % 3 == 0 if side == "train" else i % 3 != 2
        assert np.flatnonzero(labels).tolist() == [EFFUSION if positive else NONE]
        header = pydicom.dcmread(source / f"{name}.dicom")
        stored = header.pixel_array.astype(float)
        if header.PhotometricInterpretation == "MONOCHROME1":
            stored = -stored
        expected = (stored - stored.min()) / np.ptp(stored)
        levels = np.asarray(Image.open(io.BytesIO(record["xray"]["encoded"])))
        np.testing.assert_allclose(levels / 65535, expected, atol=1e-5)
        np.testing.assert_allclose(record["xray"]["spacing_mm"], [0.2, 0.1], rtol=1e-6)
        assert (record["sex"], record["age_years"]) == (b"female", 63)
    items = metadata_of(built)["quarantine"]["items"]
    assert [item["sample_id"] for item in items] == ["train/t05"]
    assert items[0]["reason"].startswith("has burned-in annotation")
    written = b"".join(p.read_bytes() for p in (tmp_path / "data").rglob("*") if p.is_file())
    assert b"Doe" not in written


def test_an_image_in_both_tables_ends_the_build(published, tmp_path):
    source = shutil.copytree(published, tmp_path / "source")
    table = source / "annotations/image_labels_test.csv"
    table.write_text(table.read_text().replace("e0,", "t00,"))
    save(film(500), source / "test/t00.dicom")
    with pytest.raises(UserError, match="more than one split: image-t00 in test and train"):
        build_accepted(Builder, source, tmp_path / "data", "official")


@pytest.mark.parametrize(
    ("table", "old", "new", "match"),
    [
        ("train", "t03,R3,", "t04,R9,", r"has 4 row\(s\) for the image 't04'; accepted: 3"),
        ("train", "t00,R1,", "t00,R0,", "two rows of the image 't00' by one reader"),
        ("train", "t00,R0,0", "t00,R0,2", "the aortic enlargement '2'; accepted: 0, 1"),
        ("test", "Tuberculosis", "TB", "no column 'tuberculosis'"),
        ("test", "image_id", "image", "no column 'image_id'"),
    ],
)
def test_mistakes_in_a_table(published, tmp_path, table, old, new, match):
    source = shutil.copytree(published, tmp_path / "source")
    path = source / f"annotations/image_labels_{table}.csv"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(UserError, match=match):
        index(Builder, source, tmp_path / "data")
