"""BACH: TIFF photographs as PNG, blocks of numbers, patients by a table, mistakes."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multimed_jax.types import UserError
from tests.tfds_builders.built import metadata_of
from tests.tfds_builders.images import write
from tests.tfds_builders.sources import build_accepted, by_sample, index, pixels, write_picture
from tfds_builders.bach.bach_dataset_builder import Builder

PREFIXES = {"Normal": "n", "Benign": "b", "InSitu": "is", "Invasive": "iv"}


def make_source(folder: Path) -> Path:
    """Forty photographs of each class in five blocks; patients of half of them."""
    lines = ["file,patient"]
    for c, (name, prefix) in enumerate(PREFIXES.items()):
        for i in range(1, 41):
            file = f"{prefix}{i:03d}.tif"
            path = folder / "ICIAR2018_BACH_Challenge/Photos" / name / file
            write_picture(path, 100 * c + i, 3)
            if i <= 20:
                lines.append(f"{file},{10 * c + i // 3}")
    write(folder / "patients.csv", "\n".join(lines).encode())
    return folder


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return make_source(tmp_path_factory.mktemp("bach"))


def test_blocks(published, tmp_path):
    source = shutil.copytree(published, tmp_path / "source")
    photos = source / "ICIAR2018_BACH_Challenge/Photos"
    (photos / "Benign/b007.tif").write_bytes(b"II*\0none")
    shutil.copy(photos / "Normal/n003.tif", photos / "Normal/n035.tif")
    built = build_accepted(Builder, source, tmp_path / "data", "blocks")
    found = by_sample(built)
    assert len(found) == 160 - 1
    for name, (_, record) in found.items():
        prefix, number = name[:-3], int(name[-3:])
        c = list(PREFIXES.values()).index(prefix)
        assert record["targets"]["breast"] == c
        folder = list(PREFIXES)[c]
        seed = 3 if name == "n035" else 100 * c + number
        decoded = np.asarray(Image.open(io.BytesIO(record["pathology"]["tiles"][0])))
        np.testing.assert_array_equal(decoded, pixels(seed, 3))
        assert record["pathology"]["microns_per_pixel"] == np.float32(0.42)
        # A copy joins the block of its first twin and unites no blocks.
        block = 0 if name == "n035" else number // 10 * 10
        assert record["group_id"].decode() == f"{folder}{block}"
    metadata = metadata_of(built)
    assert [item["sample_id"] for item in metadata["quarantine"]["items"]] == ["b007"]
    counts = metadata["class_counts"]
    # Four blocks of a class are too few for three splits; of the ten there are, each gets some.
    assert min(counts["train"]["breast"]) > 20 and min(counts["validation"]["breast"]) > 0
    assert sum(sum(of_split["breast"]) for of_split in counts.values()) == 159


def test_patients(published, tmp_path):
    built = build_accepted(Builder, published, tmp_path / "data", "patients")
    found = by_sample(built)
    assert len(found) == 80
    for name, (_, record) in found.items():
        c, number = list(PREFIXES.values()).index(name[:-3]), int(name[-3:])
        assert record["group_id"].decode() == f"patient{10 * c + number // 3}"
    reason = "photograph without a patient in the list"
    assert metadata_of(built)["left_out"] == {reason: 80}


def test_mistakes(published, tmp_path):
    source = shutil.copytree(published, tmp_path / "source")
    photos = source / "ICIAR2018_BACH_Challenge/Photos"
    table = source / "patients.csv"
    table.write_text("file,case\nn001.tif,1")
    with pytest.raises(UserError, match="no column 'patient'"):
        index(Builder, source, tmp_path / "data", "patients")
    table.write_text("file,patient")
    with pytest.raises(UserError, match="lists no photograph"):
        index(Builder, source, tmp_path / "data", "patients")
    write_picture(photos / "Normal/iv001.tif", 1, 3)
    with pytest.raises(UserError, match="'iv001' in the folder 'Normal' is unknown; expected n<n>"):
        index(Builder, source, tmp_path / "data")
    (photos / "InSitu").rename(photos / "Other")
    with pytest.raises(UserError, match="no subfolder 'InSitu'"):
        index(Builder, source, tmp_path / "data")
