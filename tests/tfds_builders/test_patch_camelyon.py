"""PatchCamelyon: HDF5 tiles and labels, slides whole, official split, damage and mistakes."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from multimed_jax.types import UserError
from tests.tfds_builders.built import build, metadata_of
from tests.tfds_builders.images import write
from tests.tfds_builders.sources import by_sample, index
from tfds_builders.patch_camelyon.patch_camelyon_dataset_builder import Builder

PREFIX = "camelyonpatch_level_2_split"
NUMBERS = {"train": 14, "valid": 4, "test": 6}


def tile(side: str, i: int) -> np.ndarray:
    """Coarse squares, so that files stay small."""
    seed = 100 * list(NUMBERS).index(side) + i
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 3, 3)).astype(np.uint8)
    return coarse.repeat(32, 0).repeat(32, 1)


def make_source(folder: Path) -> Path:
    """Two tiles of each slide, the second of them with a metastasis."""
    folder.mkdir(exist_ok=True)
    for side, number in NUMBERS.items():
        x = np.stack([tile(side, i) for i in range(number)])
        y = (np.arange(number) % 2).astype(np.uint8).reshape(-1, 1, 1, 1)
        for key, values in (("x", x), ("y", y)):
            with h5py.File(folder / f"{PREFIX}_{side}_{key}.h5", "w") as file:
                file.create_dataset(key, data=values, compression="gzip")
        lines = [",coord_y,coord_x,tumor_patch,center_tumor_patch,wsi"]
        lines += [f"{i},1,2,False,False,camelyon16_{side}_{i // 2:03d}" for i in range(number)]
        write(folder / f"{PREFIX}_{side}_meta.csv", "\n".join(lines).encode())
    return folder


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return make_source(tmp_path_factory.mktemp("pcam"))


def test_official(published, tmp_path):
    built = build(Builder, published, tmp_path / "data", "official")
    found = by_sample(built)
    assert len(found) == sum(NUMBERS.values())
    for name, (split, record) in found.items():
        side, number = name.split("/")
        i = int(number)
        assert split == {"train": "train", "valid": "validation", "test": "test"}[side]
        assert record["group_id"].decode() == f"camelyon16_{side}_{i // 2:03d}"
        assert record["targets"]["breast"] == i % 2
        decoded = np.asarray(Image.open(io.BytesIO(record["pathology"]["tiles"][0])))
        np.testing.assert_array_equal(decoded, tile(side, i))
        assert record["pathology"]["microns_per_pixel"] == np.float32(0.972)
    assert metadata_of(built)["class_names"] == {"breast": ["normal", "metastasis"]}


def test_a_slide_in_two_splits_ends_the_build(published, tmp_path):
    source = shutil.copytree(published, tmp_path / "source")
    table = source / f"{PREFIX}_test_meta.csv"
    table.write_text(table.read_text().replace("camelyon16_test_001", "camelyon16_train_001"))
    with pytest.raises(UserError, match="more than one split: camelyon16_train_001 in test and tr"):
        build(Builder, source, tmp_path / "data", "official")


def test_damage_and_mistakes(published, tmp_path):
    source = shutil.copytree(published, tmp_path / "source")
    table = source / f"{PREFIX}_test_meta.csv"
    text = table.read_text()
    table.write_text(text.replace("wsi", "slide"))
    with pytest.raises(UserError, match="no column 'wsi'"):
        index(Builder, source, tmp_path / "data")
    table.write_text(text.rsplit("\n", 1)[0])
    with pytest.raises(UserError, match="6 tiles, 6 labels and 5 rows; accepted: the same number"):
        index(Builder, source, tmp_path / "data")
    labels = source / f"{PREFIX}_valid_y.h5"
    with h5py.File(labels, "w") as file:
        file.create_dataset("y", data=np.array([0, 1, 2, 1], np.uint8))
    with pytest.raises(UserError, match="_valid_y.h5 has the label 2; accepted: 0, 1"):
        index(Builder, source, tmp_path / "data")
    tiles = source / f"{PREFIX}_train_x.h5"
    tiles.write_bytes(tiles.read_bytes()[:900])
    with pytest.raises(UserError, match="_train_x.h5 is truncated or damaged"):
        index(Builder, source, tmp_path / "data")
    tiles.rename(source / f"{PREFIX}_train_x.h5.gz")
    with pytest.raises(UserError, match=r"_train_x.h5 does not exist \(unpack the .gz file"):
        index(Builder, source, tmp_path / "data")
    with h5py.File(tiles, "w") as file:
        file.create_dataset("x", data=np.zeros((2, 32, 32, 3), np.uint8))
    with pytest.raises(UserError, match=r"x of uint8 \[2, 32, 32, 3\]; accepted: uint8 \[n, 96"):
        index(Builder, source, tmp_path / "data")
