"""BreakHis: names, magnifications as configs, patients whole over them, mistakes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from multimed_jax.types import UserError
from tests.tfds_builders.built import build, metadata_of
from tests.tfds_builders.sources import by_sample, index, write_picture
from tfds_builders.breakhis.breakhis_dataset_builder import Builder, read_name

FOLDERS = {
    "A": "benign/SOB/adenosis",
    "F": "benign/SOB/fibroadenoma",
    "DC": "malignant/SOB/ductal_carcinoma",
    "PC": "malignant/SOB/papillary_carcinoma",
}


def place_of(kind: str, case: str, power: int, number: int) -> str:
    side = "B" if FOLDERS[kind].startswith("benign") else "M"
    slide = f"SOB_{side}_{kind}_14-{case}"
    return f"{FOLDERS[kind]}/{slide}/{power}X/SOB_{side}_{kind}-14-{case}-{power}-{number:03d}.png"


def make_source(folder: Path) -> Path:
    """Four cases of each type, the first of each of two blocks; four magnifications."""
    root = folder / "BreaKHis_v1/histology_slides/breast"
    seed = 0
    for t, kind in enumerate(FOLDERS):
        for c in range(4):
            for block in ("AB", "CD") if c == 0 else ("",):
                for power in (40, 100, 200, 400):
                    seed += 1
                    case = f"{1000 * (t + 1) + c}{block}"
                    write_picture(root / place_of(kind, case, power, 1), seed, 3)
    return folder


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return make_source(tmp_path_factory.mktemp("breakhis"))


def test_read_name():
    assert read_name("SOB_B_TA-14-4659-40-001", "benign") == ("TA", "14-4659", 40)
    assert read_name("SOB_B_A-14-22549AB-400-003", "benign") == ("A", "14-22549", 400)
    assert read_name("SOB_M_DC-14-2523-100-023", "malignant") == ("DC", "14-2523", 100)
    for stem, folder, match in (
        ("SOB_B_XX-14-1-40-001", "benign", "is unknown; expected SOB_<B|M>_<type>"),
        ("SOB_M_A-14-1-40-001", "malignant", "do not agree on benign or malignant"),
        ("SOB_B_A-14-1-40-001", "malignant", "its folder 'malignant' do not agree"),
        ("SOB_B_A-14-1-50-001", "benign", "magnification 50; accepted: 40, 100, 200, 400"),
    ):
        with pytest.raises(UserError, match=match.replace("|", r"\|")):
            read_name(stem, folder)


def test_all_magnifications(published, tmp_path):
    source = shutil.copytree(published, tmp_path / "source")
    root = source / "BreaKHis_v1/histology_slides/breast"
    (root / place_of("F", "2003", 40, 1)).write_bytes(b"none")
    built = build(Builder, source, tmp_path / "data")
    found = by_sample(built)
    assert len(found) == 4 * 5 * 4 - 1
    for name, (_, record) in found.items():
        _, side, kind_case = name.split("_")
        kind, _, case, power, _ = kind_case.split("-")
        assert record["group_id"].decode() == f"patient14-{case.rstrip('ABCD')}"
        assert record["targets"]["breast"] == int(side == "M")
        assert record["magnification"] == int(power)
        assert (
            record["tumour_type"].decode()
            == {
                "A": "adenosis",
                "F": "fibroadenoma",
                "DC": "ductal carcinoma",
                "PC": "papillary carcinoma",
            }[kind]
        )
        path = root / place_of(kind, case, int(power), 1)
        assert record["pathology"]["tiles"] == [path.read_bytes()]
    # Both classes are in every split, sixteen patients or not.
    counts = metadata_of(built)["class_counts"]
    assert all(min(counts[split]["breast"]) > 0 for split in counts)
    assert [i["sample_id"] for i in metadata_of(built)["quarantine"]["items"]] == [
        "SOB_B_F-14-2003-40-001"
    ]


def test_one_magnification(published, tmp_path):
    records = index(Builder, published, tmp_path / "data", "x200")
    assert len(records) == 20
    assert all("-200-" in record.sample_id for record in records)


def test_folders_must_be_there(published, tmp_path):
    source = shutil.copytree(published, tmp_path / "source")
    breast = source / "BreaKHis_v1/histology_slides/breast"
    (breast / "benign").rename(breast / "harmless")
    with pytest.raises(UserError, match="no subfolder 'benign'; expected: benign, malignant"):
        index(Builder, source, tmp_path / "data")
