"""CBIS-DDSM: case descriptions, mammograms against pydicom, patients of both kinds, leaks."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from multimed_jax.types import UserError
from tests.tfds_builders.built import build, metadata_of
from tests.tfds_builders.dicoms import make_ct, save
from tests.tfds_builders.images import write
from tests.tfds_builders.sources import by_sample, index
from tfds_builders.cbis_ddsm.cbis_ddsm_dataset_builder import Builder

HEADER = "patient_id,breast_density,left or right breast,image view,abnormality id,pathology"
HEADER += ",image file path,cropped image file path"
PATHOLOGIES = ("BENIGN", "BENIGN_WITHOUT_CALLBACK", "MALIGNANT")
# Patients by table; patient 9 is tested for calcifications and trains for masses.
PATIENTS = {
    ("mass", "train"): range(1, 15),
    ("mass", "test"): range(21, 25),
    ("calc", "train"): (1, *range(31, 39)),
    ("calc", "test"): (9, 41),
}


def case_of(kind: str, side: str, patient: int, view: str = "LEFT_CC") -> str:
    return f"{kind.title()}-{ {'train': 'Training', 'test': 'Test'}[side] }_P_{patient:05d}_{view}"


def make_source(folder: Path) -> Path:
    """29 mammograms; those of patient 1 have a benign and a malignant abnormality each."""
    for (kind, side), patients in PATIENTS.items():
        lines = [HEADER]
        for p in patients:
            case = case_of(kind, side, p)
            for number in (1, 2) if p == 1 else (1,):
                malignant = number == 2 or p % 3 == 2
                pathology = PATHOLOGIES[2] if malignant else PATHOLOGIES[p % 2]
                lines.append(
                    f"P_{p:05d},3,LEFT,CC,{number},{pathology},{case}/1.3.6/1.3.7/000000.dcm,c.dcm"
                )
            seed = p + 1000 * (kind == "calc")
            stored = np.random.default_rng(seed).integers(0, 65536, (6, 8)).astype(np.uint16)
            data = make_ct(stored, Modality="MG", PixelSpacing=None)
            # One downloader names the folders as the table does, another by date and series.
            inside = "1.3.6/1.3.7/000000.dcm" if p % 2 else "07-20-2016-DDSM/1.0-full/1-1.dcm"
            save(data, folder / "CBIS-DDSM" / case / inside)
        write(folder / f"{kind}_case_description_{side}_set.csv", "\n".join(lines).encode())
    return folder


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return make_source(tmp_path_factory.mktemp("cbis"))


def test_official(published, tmp_path):
    source = shutil.copytree(published, tmp_path / "source")
    # A case with two files: which of them is the mammogram cannot be told.
    broken = case_of("mass", "train", 4)
    path = next((source / "CBIS-DDSM" / broken).rglob("*.dcm"))
    shutil.copy(path, path.with_name("2.dcm"))
    built = build(Builder, source, tmp_path / "data", "official")
    found = by_sample(built)
    assert set(found) == {
        case_of(kind, side, p) for (kind, side), patients in PATIENTS.items() for p in patients
    } - {broken, case_of("mass", "train", 9)}
    for name, (split, record) in found.items():
        p = int(name.split("_")[2])
        assert (split == "test") == ("-Test_" in name)
        assert record["group_id"].decode() == f"P_{p:05d}"
        assert record["targets"]["breast"] == int(p == 1 or p % 3 == 2)
        stored = pydicom.dcmread(next((source / "CBIS-DDSM" / name).rglob("*.dcm"))).pixel_array
        levels = np.asarray(Image.open(io.BytesIO(record["xray"]["encoded"])))
        expected = (stored - float(stored.min())) / np.ptp(stored.astype(float))
        np.testing.assert_allclose(levels / 65535, expected, atol=1e-5)
    metadata = metadata_of(built)
    assert metadata["left_out"] == {"training view of a patient tested for the other kind": 1}
    assert metadata["quarantine"]["items"] == [
        {"sample_id": broken, "reason": "has 2 DICOM files in its folder; accepted: 1"}
    ]


def test_original_keeps_both_kinds_of_a_patient_together(published, tmp_path):
    found = by_sample(build(Builder, published, tmp_path / "data", "original"))
    assert len(found) == sum(len(patients) for patients in PATIENTS.values())
    one, two = (found[case_of(kind, "train", 1)] for kind in ("mass", "calc"))
    assert one[0] == two[0]


def test_a_patient_in_train_and_test_of_one_kind_ends_the_build(published, tmp_path):
    source = shutil.copytree(published, tmp_path / "source")
    case = case_of("mass", "test", 5)
    table = source / "mass_case_description_test_set.csv"
    row = f"\nP_00005,3,LEFT,CC,1,BENIGN,{case}/1.3.6/1.3.7/000000.dcm,c.dcm"
    table.write_text(table.read_text() + row)
    stored = np.random.default_rng(77).integers(0, 65536, (6, 8)).astype(np.uint16)
    save(make_ct(stored, Modality="MG"), source / "CBIS-DDSM" / case / "a/b/0.dcm")
    with pytest.raises(UserError, match="more than one split: P_00005 in test and train"):
        build(Builder, source, tmp_path / "data", "official")


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("BENIGN_WITHOUT_CALLBACK", "NORMAL", "the pathology 'NORMAL'; accepted: BENIGN, "),
        (
            "P_00001,3",
            "P_00002,3",
            "image file path 'Mass-Training_P_00001.* the patient 'P_00002'",
        ),
        ("patient_id", "patient", "no column 'patient_id'"),
    ],
)
def test_mistakes_in_a_table(published, tmp_path, old, new, match):
    source = shutil.copytree(published, tmp_path / "source")
    table = source / "mass_case_description_train_set.csv"
    assert old in table.read_text()
    table.write_text(table.read_text().replace(old, new))
    with pytest.raises(UserError, match=match):
        index(Builder, source, tmp_path / "data")
    table.unlink()
    with pytest.raises(UserError, match="mass_case_description_train_set.csv does not exist"):
        index(Builder, source, tmp_path / "data")
