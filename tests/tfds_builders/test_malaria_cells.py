"""LHNCBC malaria cells: names of patients, tiles as published, mistakes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from multimed_jax.types import UserError
from tests.tfds_builders.built import build, metadata_of
from tests.tfds_builders.sources import by_sample, groups_of, index, write_picture
from tfds_builders.malaria_cells.malaria_cells_dataset_builder import CLASSES, Builder, patient_of


def make_source(folder: Path) -> Path:
    """Eight infected patients with cells in both folders, four healthy ones, two cells each."""
    root = folder / "cell_images"
    for p in range(12):
        for label, side in enumerate(("Uninfected", "Parasitized")):
            if label and p >= 8:
                continue
            for k in range(2):
                prefix = f"C{100 + p}P{61 + p}ThinF_IMG" if p < 8 else f"C{p}_thinF_IMG"
                path = root / side / f"{prefix}_20150918_144104_cell_{10 * label + k}.png"
                write_picture(path, 100 * p + 10 * label + k, 3)
        (root / "Uninfected/Thumbs.db").write_bytes(b"x")
    return folder


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return make_source(tmp_path_factory.mktemp("malaria"))


@pytest.mark.parametrize(
    ("stem", "patient"),
    [
        ("C100P61ThinF_IMG_20150918_144104_cell_162", "C100P61"),
        ("C1_thinF_IMG_20150604_104722_cell_9", "C1"),
        ("C33P1thinF_IMG_20150619_114756a_cell_181", "C33P1"),
        ("C39P4thinF_original_IMG_20150622_105102_cell_11", "C39P4"),
        ("C2NThinF_IMG_20150604_114631_cell_10", "C2N"),
    ],
)
def test_patient_of(stem, patient):
    assert patient_of(stem) == patient


def test_cells(published, tmp_path):
    source = shutil.copytree(published, tmp_path / "source")
    broken = "Parasitized/C103P64ThinF_IMG_20150918_144104_cell_10.png"
    path = source / "cell_images" / broken
    path.write_bytes(path.read_bytes()[:50])
    built = build(Builder, source, tmp_path / "data")
    found = by_sample(built)
    assert len(found) == 8 * 4 + 4 * 2 - 1
    for name, (_, record) in found.items():
        tiles = record["pathology"]
        assert tiles["tiles"] == [(source / "cell_images" / name).read_bytes()]
        assert (tiles["heights"].tolist(), tiles["widths"].tolist()) == ([6], [8])
        assert record["targets"]["disease"] == int(name.startswith("Parasitized"))
    assert len(set(groups_of(found).values())) == 12
    metadata = metadata_of(built)
    assert metadata["class_names"] == {"disease": list(CLASSES)}
    assert [item["sample_id"] for item in metadata["quarantine"]["items"]] == [broken]


def test_mistakes(published, tmp_path):
    source = shutil.copytree(published, tmp_path / "source")
    folder = source / "cell_images/Uninfected"
    write_picture(folder / "cell_1.png", 1, 3)
    with pytest.raises(UserError, match="'cell_1' holds no patient; expected <patient>ThinF"):
        index(Builder, source, tmp_path / "data")
    folder.rename(source / "cell_images/Healthy")
    with pytest.raises(UserError, match="no subfolder 'Uninfected'; expected"):
        index(Builder, source, tmp_path / "data")
