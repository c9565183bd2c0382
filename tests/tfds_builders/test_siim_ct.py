"""SIIM CT slices: table and headers, mistakes, every pixel of the real subset."""

from __future__ import annotations

import csv
import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.pixels.processing import apply_modality_lut

from multimed_jax.types import UserError
from tests.tfds_builders.built import build, metadata_of, read
from tests.tfds_builders.dicoms import make_ct, save
from tests.tfds_builders.images import write
from tfds_builders.core.dicom import AIR_HU
from tfds_builders.siim_ct.siim_ct_dataset_builder import Builder

HEADER = ",Age,Contrast,ContrastTag,raw_input_path,id,tiff_name,dicom_name"


def name_of(i: int) -> str:
    return f"ID_{i:04d}_AGE_0063_CONTRAST_{i % 2}_CT.dcm"


def pixels_of(i: int) -> np.ndarray:
    return np.random.default_rng(i).integers(0, 3000, (6, 8)).astype(np.uint16)


def make_source(folder: Path) -> Path:
    """24 slices of 8 patients, half of them with contrast."""
    lines = [HEADER]
    for i in range(24):
        data = make_ct(pixels_of(i), PatientID=f"P-{i // 3}", Manufacturer="SIEMENS")
        save(data, folder / "dicom_dir" / name_of(i))
        lines.append(f"{i},63,{bool(i % 2)},NONE,..\\x,{i},t.tif,{name_of(i)}")
    write(folder / "overview.csv", "\n".join(lines).encode())
    return folder


def test_slices_labels_and_patients(tmp_path):
    source = make_source(tmp_path / "source")
    built = build(Builder, source, tmp_path / "data")
    members = {}
    for split, record in read(built):
        i = int(record["sample_id"][3:7])
        np.testing.assert_array_equal(record["ct"]["hu"], pixels_of(i).astype(int)[None] - 1024)
        np.testing.assert_array_equal(record["ct"]["spacing_mm"], [0, 0.5, 0.75])
        assert record["targets"]["radiographic"].tolist() == [i % 2]
        assert (record["sex"], record["age_years"], record["site"]) == (b"female", 63, b"SIEMENS")
        members.setdefault(record["group_id"].decode(), []).append((i // 3, split))
    assert sorted(len(places) for places in members.values()) == [3] * 8
    assert all(len(set(places)) == 1 for places in members.values())
    metadata = metadata_of(built)
    assert metadata["target_kinds"] == {"radiographic": "labels"}
    assert metadata["class_names"] == {"radiographic": ["contrast"]}
    assert sum(counts["radiographic"][0] for counts in metadata["class_counts"].values()) == 12
    written = b"".join(
        path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file()
    )
    assert b"Doe" not in written
    assert b"P-1" not in written


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("True", "1", "has the contrast '1'; accepted: True, False"),
        ("dicom_name", "file", "no column 'dicom_name'"),
        ("ID_0003", "../ID_0003", "names a path, not a file"),
        ("ID_0003_AGE_0063_CONTRAST_1", "ID_0001_AGE_0063_CONTRAST_1", "occurs twice"),
    ],
)
def test_mistakes_in_the_table(tmp_path, old, new, match):
    source = make_source(tmp_path / "source")
    table = source / "overview.csv"
    table.write_text(table.read_text().replace(old, new))
    with pytest.raises(UserError, match=match):
        build(Builder, source, tmp_path / "data")


def test_a_slice_without_rescaling_is_quarantined(tmp_path):
    source = make_source(tmp_path / "source")
    save(make_ct(pixels_of(3), RescaleSlope=None), source / "dicom_dir" / name_of(3))
    built = build(Builder, source, tmp_path / "a")
    assert metadata_of(built)["quarantine"]["items"] == [
        {
            "sample_id": name_of(3),
            "reason": "has no RescaleSlope, so its values are no Hounsfield units",
        }
    ]
    (source / "dicom_dir" / name_of(4)).unlink()
    with pytest.raises(UserError, match="2 of 24 records cannot be read"):
        build(Builder, source, tmp_path / "b")


def test_equal_slices_of_two_patients_unite_them(tmp_path):
    source = make_source(tmp_path / "source")
    save(make_ct(pixels_of(0), PatientID="P-7"), source / "dicom_dir" / name_of(21))
    built = build(Builder, source, tmp_path / "data")
    groups = {int(record["sample_id"][3:7]): record["group_id"] for _, record in read(built)}
    assert groups[0] == groups[21] == groups[23]
    assert len(set(groups.values())) == 7


def read_tiff(path: Path) -> np.ndarray:
    """An uncompressed little-endian TIFF of one strip of 64-bit floats, by its tags."""
    content = path.read_bytes()
    (at,) = struct.unpack_from("<I", content, 4)
    (number,) = struct.unpack_from("<H", content, at)
    tags = {}
    for k in range(number):
        tag, _, _, value = struct.unpack_from("<HHII", content, at + 2 + 12 * k)
        tags[tag] = value
    assert tags[259] == 1
    assert (tags[258], tags[339]) == (64, 3)  # bits of a sample, floating point
    count = tags[256] * tags[257]
    return np.frombuffer(content, "<f8", count, tags[273]).reshape(tags[257], tags[256])


def test_real_subset(shared_data, tmp_path):
    raw = shared_data / "siim_tcga_ct_age_contrast"
    built = build(Builder, raw, tmp_path / "data")
    with (raw / "overview.csv").open(newline="") as lines:
        table = {line["dicom_name"]: line for line in csv.DictReader(lines)}
    labels, patients, num_padded, num_twins = Counter(), {}, 0, 0
    for split, record in read(built):
        name = record["sample_id"].decode()
        header = pydicom.dcmread(raw / "dicom_dir" / name)
        stored = header.pixel_array
        expected = np.rint(apply_modality_lut(stored, header))
        # In the files -2000 (also written as 63536) is the only padding value.
        padded = (stored == -2000) & ("PixelPaddingValue" in header)
        num_padded += padded.any()
        np.testing.assert_array_equal(record["ct"]["hu"][0], np.where(padded, AIR_HU, expected))
        np.testing.assert_allclose(record["ct"]["spacing_mm"][1:], header.PixelSpacing, rtol=1e-6)
        assert record["age_years"] == float(table[name]["Age"])
        assert bool(record["targets"]["radiographic"][0]) == (table[name]["Contrast"] == "True")
        assert record["site"].decode() in ("SIEMENS", "GE MEDICAL SYSTEMS")
        twin = raw / "tiff_images" / name.replace(".dcm", ".tif")
        if twin.is_file():
            # The twins hold Hounsfield units, padding rescaled with the rest.
            found = np.where(padded, AIR_HU, read_tiff(twin))
            np.testing.assert_array_equal(record["ct"]["hu"][0], found)
            num_twins += 1
        labels[int(record["targets"]["radiographic"][0])] += 1
        patients.setdefault(str(header.PatientID), set()).add((record["group_id"], split))
    assert labels == {0: 25, 1: 25}
    assert len(patients) == 26
    assert all(len(where) == 1 for where in patients.values())
    assert len({next(iter(where)) for where in patients.values()}) == 26
    assert num_padded > 0
    assert num_twins == 2
    # Three pairs of equal files, and one of equal pixels under two headers (98, 99).
    contents = {pydicom.dcmread(path).PixelData for path in (raw / "dicom_dir").iterdir()}
    assert len(contents) == 46
    assert sum(metadata_of(built)["duplicates"].values()) == 50 - len(contents)
