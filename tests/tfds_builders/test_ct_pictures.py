"""cc_ccii and covidx_ct: grey levels as a lung window, slices and scans, lists, patients, leaks."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from multimed_jax.types import UserError
from tests.tfds_builders.built import metadata_of
from tests.tfds_builders.images import write
from tests.tfds_builders.sources import (
    build_accepted,
    by_sample,
    encoded,
    index,
    pixels,
    write_picture,
)
from tfds_builders.cc_ccii.cc_ccii_dataset_builder import Builder as CcCcii
from tfds_builders.core.picture_records import from_lung_window
from tfds_builders.covidx_ct.covidx_ct_dataset_builder import Builder as CovidxCt
from tfds_builders.covidx_ct.covidx_ct_dataset_builder import patient_of

FOLDERS = ("Normal", "CP", "NCP")
SLICES = (2, 9, 10)


def seed_of(c: int, p: int, k: int) -> int:
    return 1000 * c + 10 * p + k


def make_cc_ccii(folder: Path) -> Path:
    """Seven patients of each class with numbers that recur, a scan of three slices each."""
    for c, name in enumerate(FOLDERS):
        for p in range(7):
            for k, number in enumerate(SLICES):
                path = folder / name / str(p) / str(50 + p) / f"{number}.png"
                write_picture(path, seed_of(c, p, k))
    write(folder / "unzip_filenames.csv", b"zip_file,label,patient_id,scan_id,n_slice\n")
    return folder


def make_covidx_ct(folder: Path) -> Path:
    """Three lists of ten, four and four patients, two slices each."""
    people = ["patient id,source,country,sex,age,finding,verified finding,slice selection"]
    start = 0
    for side, number in (("train", 10), ("val", 4), ("test", 4)):
        lines = []
        for p in range(start, start + number):
            c = p % 3
            patient = f"{FOLDERS[c]}_{p}" if p % 2 else f"Patient {p}"
            people.append(f"{patient},CNCB,China,{'MF '[c]},{40 + p},x,Yes,Expert")
            for k in range(2):
                # The slices of one collection hold the id inside.
                head = patient if p % 2 else f"HUST-{patient}"
                name = f"{head}_{7000 + p}_{k:04d}.png"
                write_picture(folder / "2A_images" / name, 500 + 10 * p + k)
                lines.append(f"{name} {c} {k} 1 6 5")
        start += number
        write(folder / f"{side}_COVIDx_CT-2A.txt", "\n".join(lines).encode())
    write(folder / "metadata.csv", "\n".join(people).encode())
    return folder


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ct")
    return {
        "cc_ccii": make_cc_ccii(folder / "cc_ccii"),
        "covidx_ct": make_covidx_ct(folder / "covidx_ct"),
    }


def test_from_lung_window():
    found = from_lung_window(np.array([0, 51, 102, 153, 255], np.uint8))
    assert found.dtype == np.int16
    # A fifth of the levels is a fifth of 1,500 HU.
    assert found.tolist() == [-1350, -1050, -750, -450, 150]


def expected_hu(seed: int) -> np.ndarray:
    return np.round(-1350 + 1500 / 255 * pixels(seed).astype(float))


def test_slices(sources, tmp_path):
    source = shutil.copytree(sources["cc_ccii"], tmp_path / "source")
    (source / "CP/3/53/9.png").write_bytes(b"none")
    # One slice of two numbers, in other bytes: they are one patient.
    write(source / "NCP/5/55/2.png", encoded(np.repeat(pixels(seed_of(2, 0, 0))[..., None], 3, 2)))
    built = build_accepted(CcCcii, source, tmp_path / "data", "slices")
    found = by_sample(built)
    assert len(found) == 3 * 7 * 3 - 1
    for name, (_, record) in found.items():
        folder, p, scan, file = name.split("/")
        c, k = FOLDERS.index(folder), SLICES.index(int(file.removesuffix(".png")))
        seed = seed_of(2, 0, 0) if name == "NCP/5/55/2.png" else seed_of(c, int(p), k)
        np.testing.assert_array_equal(record["ct"]["hu"], expected_hu(seed)[None])
        assert record["targets"]["disease"] == c
        assert scan == str(50 + int(p))
        group = "NCP_0" if (folder, p) == ("NCP", "5") else f"{folder}_{p}"
        assert record["group_id"].decode() == group
        np.testing.assert_array_equal(record["ct"]["spacing_mm"], [0, 0, 0])
    metadata = metadata_of(built)
    assert metadata["quarantine"]["items"][0]["sample_id"] == "CP/3/53/9.png"
    assert metadata["class_names"] == {"disease": ["normal", "common pneumonia", "COVID-19"]}


def test_scans(sources, tmp_path):
    source = shutil.copytree(sources["cc_ccii"], tmp_path / "source")
    write(source / "CP/2/52/9.png", encoded(pixels(1, size=(4, 4))))
    built = build_accepted(CcCcii, source, tmp_path / "data", "scans")
    found = by_sample(built)
    assert len(found) == 3 * 7 - 1
    for name, (_, record) in found.items():
        folder, p, _ = name.split("/")
        c = FOLDERS.index(folder)
        # By number: 2, 9, 10, not 10, 2, 9.
        volume = np.stack([expected_hu(seed_of(c, int(p), k)) for k in range(3)])
        np.testing.assert_array_equal(record["ct"]["hu"], volume)
    assert metadata_of(built)["quarantine"]["items"] == [
        {"sample_id": "CP/2/52", "reason": "has slices of several sizes; accepted: one"}
    ]


def test_class_folders_must_be_there(sources, tmp_path):
    source = shutil.copytree(sources["cc_ccii"], tmp_path / "source")
    (source / "CP").rename(source / "pneumonia")
    with pytest.raises(UserError, match="no subfolder 'CP'; expected: Normal, CP, NCP"):
        index(CcCcii, source, tmp_path / "data")


def test_patient_of():
    people = {"NCP_9", "NCP_96", "Patient 1", "7", "LIDC-IDRI-0001"}
    assert patient_of("NCP_96_1328_0035.png", people) == "NCP_96"
    assert patient_of("NCP_9_96_0035.png", people) == "NCP_9"
    assert patient_of("LIDC-IDRI-0001-0007.png", people) == "LIDC-IDRI-0001"
    assert patient_of("HUST-Patient 1_3.png", people) == "Patient 1"
    assert patient_of("HUST-Patient 12_3.png", people) is None
    assert patient_of("a_7_7.png", people) == "7"
    assert patient_of("NCP_96.png", people) is None


def test_official_lists(sources, tmp_path):
    source = shutil.copytree(sources["covidx_ct"], tmp_path / "source")
    (source / "2A_images/NCP_5_7005_0001.png").unlink()
    built = build_accepted(CovidxCt, source, tmp_path / "data", "official")
    found = by_sample(built)
    assert len(found) == 36 - 1
    for name, (split, record) in found.items():
        match = re.fullmatch(r"(?:HUST-)?(.*)_7(\d+)_000(\d)\.png", name)
        assert match is not None
        patient, p, k = match[1], int(match[2]), int(match[3])
        assert split == ("train" if p < 10 else "validation" if p < 14 else "test")
        assert record["group_id"].decode() == patient
        assert record["targets"]["disease"] == p % 3
        np.testing.assert_array_equal(record["ct"]["hu"][0], expected_hu(500 + 10 * p + k))
        assert record["body_box"].tolist() == [k, 1, 6, 5]
        assert record["sex"] == (b"male", b"female", b"")[p % 3]
        assert (record["age_years"], record["site"]) == (40 + p, b"CNCB")
    metadata = metadata_of(built)
    assert metadata["aliases"] == ["cc_ccii"]
    assert metadata["quarantine"]["count"] == 1


def test_a_patient_in_two_lists_ends_the_build(sources, tmp_path):
    source = shutil.copytree(sources["covidx_ct"], tmp_path / "source")
    write_picture(source / "2A_images/NCP_5_8_0001.png", 9999)
    path = source / "test_COVIDx_CT-2A.txt"
    path.write_text(path.read_text() + "\nNCP_5_8_0001.png 2 0 0 1 1")
    with pytest.raises(UserError, match="more than one split: NCP_5 in test and train"):
        build_accepted(CovidxCt, source, tmp_path / "data", "official")


@pytest.mark.parametrize(
    ("file", "old", "new", "match"),
    [
        ("val_COVIDx_CT-2A.txt", " 0 1 6 5", " 0 1 6", "has 5 word|no patient"),
        ("val_COVIDx_CT-2A.txt", " 0 0 1 6 5", " 3 0 1 6 5", "has the class '3'; accepted: 0, 1"),
        ("val_COVIDx_CT-2A.txt", " 0 1 6 5", " 0 1 x 5", "the box '0 1 x 5'; accepted: four"),
        ("metadata.csv", "Patient 0,", "Patient 99,", "'HUST-Patient 0_7000_0000.png', which fits"),
        ("metadata.csv", "patient id", "patient", "no column 'patient id'"),
    ],
)
def test_mistakes_in_lists_and_table(sources, tmp_path, file, old, new, match):
    source = shutil.copytree(sources["covidx_ct"], tmp_path / "source")
    path = source / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(UserError, match=match):
        index(CovidxCt, source, tmp_path / "data")


def test_lists_must_be_of_one_version(sources, tmp_path):
    source = shutil.copytree(sources["covidx_ct"], tmp_path / "source")
    path = source / "val_COVIDx_CT-2A.txt"
    path.rename(source / "val_COVIDx_CT-3A.txt")
    with pytest.raises(UserError, match="has lists of several versions; accepted: one"):
        index(CovidxCt, source, tmp_path / "data")
    (source / "val_COVIDx_CT-3A.txt").unlink()
    with pytest.raises(UserError, match=r"no list val_COVIDx_CT-\*.txt; expected layout"):
        index(CovidxCt, source, tmp_path / "data")
