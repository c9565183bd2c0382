"""Brain Tumor MRI: layout, number blocks, the alias of the two copies, the real subsets."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from multimed_jax.types import UserError
from tests.tfds_builders.built import metadata_of
from tests.tfds_builders.images import jpeg, jpeg_size, smooth_image, write
from tfds_builders.brain_tumor_mri.brain_tumor_mri_dataset_builder import (
    CLASSES,
    Builder,
    number_block,
)
from tfds_builders.core.splits import SPLITS


def make_source(folder: Path, side_px: int | None = None) -> Path:
    """Twelve blocks per class in the published layout; `side_px` makes the resized copy."""
    for k, name in enumerate(CLASSES):
        for side, prefix in (("Training", "Tr"), ("Testing", "Te")):
            for i in range(12):
                seed = 1000 * k + i + 500 * (side == "Testing")
                image = smooth_image(seed, (60, 48))
                if side_px is not None:
                    image = image.resize((side_px, side_px))
                number = 5 * i + k
                write(folder / side / name / f"{prefix}-{name[:2]}_{number:04d}.jpg", jpeg(image))
    return folder


def build(manual_dir: Path, data_dir: Path, config: str):
    builder = Builder(data_dir=data_dir, config=config)
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=str(manual_dir))
    )
    return tfds.builder_from_directory(builder.data_dir)


def read(built) -> dict[str, tuple[str, str, dict]]:
    """sample id -> (split, group, record)."""
    out = {}
    for split in SPLITS:
        source = built.as_data_source(split)
        for i in range(len(source)):
            record = source[i]
            out[record["sample_id"].decode()] = (split, record["group_id"].decode(), record)
    return out


def assert_no_group_crosses(records) -> None:
    homes = {}
    for split, group, _ in records.values():
        homes.setdefault(group, set()).add(split)
    assert all(len(where) == 1 for where in homes.values())


@pytest.mark.parametrize(
    ("stem", "block"),
    [
        ("Tr-gl_0214", "Tr-gl_0210"),
        ("Tr-gl_0219", "Tr-gl_0210"),
        ("Tr-gl_0220", "Tr-gl_0220"),
        ("Te-glTr_0004", "Te-glTr_0000"),
    ],
)
def test_number_block(stem, block):
    assert number_block(stem) == block


def test_a_name_without_number():
    with pytest.raises(UserError, match="'scan'"):
        number_block("scan")


def test_labels_groups_and_bytes(tmp_path):
    source = make_source(tmp_path / "source")
    records = read(build(source, tmp_path / "data", "native"))
    assert len(records) == 96
    assert_no_group_crosses(records)
    for name, (_, group, record) in records.items():
        folder = name.split("/")[1]
        assert CLASSES[record["targets"]["tumor"]] == folder
        assert group == f"{folder}/{number_block(Path(name).stem)}"
        assert record["mri"]["encoded"] == (source / name).read_bytes()
        assert record["mri"]["spacing_mm"].tolist() == [0, 0]


def test_the_resized_copy_has_the_groups_and_splits_of_its_native_twins(tmp_path):
    native = read(build(make_source(tmp_path / "a"), tmp_path / "data", "native"))
    # The copy lacks some files: a group's split must not depend on what else is there.
    source = make_source(tmp_path / "b", side_px=32)
    for path in sorted(source.rglob("*.jpg"))[::7]:
        path.unlink()
    resized = read(build(source, tmp_path / "data", "resized_224"))
    assert 70 < len(resized) < 96
    assert all(native[name][:2] == resized[name][:2] for name in resized)


def test_repeats_share_group_or_leave_training(tmp_path):
    source = make_source(tmp_path / "source")
    twin = source / "Testing/glioma/Te-gl_0000.jpg"
    copy = source / "Training/glioma/Tr-gl_0900.jpg"
    write(copy, jpeg(Image.open(twin), quality=60))
    records = read(build(source, tmp_path / "data", "native"))
    a, b = (records[str(path.relative_to(source))] for path in (twin, copy))
    assert a[:2] == b[:2]
    built = build(source, tmp_path / "data", "official")
    official = read(built)
    assert "Training/glioma/Tr-gl_0900.jpg" not in official
    assert official["Testing/glioma/Te-gl_0000.jpg"][0] == "test"
    assert {s for n, (s, _, _) in official.items() if n.startswith("Testing")} == {"test"}
    assert sum(metadata_of(built)["left_out"].values()) == 1


def test_an_unknown_class_folder(tmp_path):
    source = make_source(tmp_path / "source")
    (source / "Training" / "lymphoma").mkdir()
    with pytest.raises(UserError, match="unknown subfolder 'lymphoma'; accepted: glioma"):
        build(source, tmp_path / "data", "native")


REAL = [
    ("native", "kaggle_brain_tumor_mri_native", 264),
    ("resized_224", "kaggle_brain_tumor_mri_224", 579),
]


def test_real_subsets(shared_data, tmp_path):
    built = {}
    for config, folder, count in REAL:
        records = read(build(shared_data / folder, tmp_path / "data", config))
        assert len(records) == count
        assert_no_group_crosses(records)
        built[config] = records
        for name in sorted(records)[::29]:
            raw = shared_data / folder / name
            value = records[name][2]["mri"]
            # The header is read without an image library, the pixels from the raw file.
            assert jpeg_size(raw.read_bytes()) == (value["height"], value["width"])
            with Image.open(raw) as image, Image.open(io.BytesIO(value["encoded"])) as stored:
                np.testing.assert_array_equal(np.asarray(image), np.asarray(stored))
    native, resized = built["native"], built["resized_224"]
    common = set(native) & set(resized)
    assert len(common) == 264
    assert all(native[name][:2] == resized[name][:2] for name in common)


def test_real_official_leaves_out_only_training_copies(shared_data, tmp_path):
    built = build(shared_data / REAL[0][1], tmp_path / "data", "official")
    records = read(built)
    left_out = sum(metadata_of(built)["left_out"].values())
    assert len(records) + left_out == 264
    assert sum(split == "test" for split, _, _ in records.values()) == 88
