"""Kermany chest X-rays: published names, the re-laid-out copy, the real subset."""

from __future__ import annotations

from pathlib import Path

import pytest
import tensorflow_datasets as tfds

from multimed_jax.types import UserError
from tests.tfds_builders.built import metadata_of
from tests.tfds_builders.images import jpeg, jpeg_size, smooth_image, write
from tfds_builders.core.splits import SPLITS
from tfds_builders.kermany_chest_xray.kermany_chest_xray_dataset_builder import (
    Builder,
    number_block,
    patient_of,
)


def make_original(folder: Path) -> Path:
    """Ten sick patients with two films each, ten healthy ones, in the published layout."""
    for i in range(10):
        side = "test" if i < 3 else "train"
        sick = folder / "chest_xray" / side / "PNEUMONIA"
        write(sick / f"person{i}_virus_{i}.jpeg", jpeg(smooth_image(i)))
        write(sick / f"person{i}_bacteria_{90 + i}.jpeg", jpeg(smooth_image(100 + i)))
        well = folder / "chest_xray" / side / "NORMAL"
        write(well / f"NORMAL2-IM-14{i:02d}-0001.jpeg", jpeg(smooth_image(200 + i)))
    write(folder / "chest_xray/val/NORMAL/IM-0001-0001.jpeg", jpeg(smooth_image(300)))
    write(folder / "chest_xray/val/PNEUMONIA/BACTERIA-7-0001.jpeg", jpeg(smooth_image(301)))
    write(folder / "chest_xray/train/NORMAL/.DS_Store", b"x")
    return folder


def make_relaid(folder: Path) -> Path:
    """Forty films of each class under running numbers."""
    lines = ["image_path,target"]
    for i in range(40):
        for prefix, target in (("chest", 0), ("chest_virus", 1)):
            name = f"img/{prefix}_{i}.jpeg"
            write(folder / name, jpeg(smooth_image(1000 * target + i)))
            lines.append(f"{name},{target}")
    write(folder / "data_1.csv", "\n".join(lines).encode())
    return folder


def build(manual_dir: Path, data_dir: Path, config: str):
    builder = Builder(data_dir=data_dir, config=config)
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=str(manual_dir))
    )
    return tfds.builder_from_directory(builder.data_dir)


def read(built):
    for split in SPLITS:
        source = built.as_data_source(split)
        for i in range(len(source)):
            yield split, source[i]


@pytest.mark.parametrize(
    ("stem", "patient"),
    [
        ("person1_bacteria_1", "person1"),
        ("person1_virus_6", "person1"),
        ("IM-0001-0001", "IM-0001"),
        ("IM-0125-0001-0002", "IM-0125"),
        ("NORMAL2-IM-1427-0001", "NORMAL2-IM-1427"),
        ("BACTERIA-1008087-0001", "1008087"),
        ("NORMAL-1008087-0002", "1008087"),
    ],
)
def test_patient_of(stem, patient):
    assert patient_of(stem) == patient


def test_an_unknown_name():
    with pytest.raises(UserError, match="'film7' holds no patient"):
        patient_of("film7")
    with pytest.raises(UserError, match="'film7' is unknown"):
        number_block("film7")


def test_number_blocks_of_the_classes_are_apart():
    assert number_block("chest_87") == "chest_85"
    assert number_block("chest_virus_87") == "chest_virus_85"


def test_original(tmp_path):
    source = make_original(tmp_path / "source")
    homes, count = {}, 0
    for split, record in read(build(source, tmp_path / "data", "original")):
        name = record["sample_id"].decode()
        count += 1
        assert record["targets"]["disease"] == ("PNEUMONIA" in name)
        assert record["xray"]["encoded"] == (source / "chest_xray" / name).read_bytes()
        homes.setdefault(record["group_id"].decode(), set()).add(split)
    assert count == 32
    assert len(homes) == 22  # both films of a sick patient lie in one group
    assert all(len(where) == 1 for where in homes.values())


def test_relaid(tmp_path):
    source = make_relaid(tmp_path / "source")
    built = build(source, tmp_path / "data", "relaid_300px")
    homes, labels = {}, [0, 0]
    for split, record in read(built):
        labels[record["targets"]["disease"]] += 1
        assert record["targets"]["disease"] == ("virus" in record["sample_id"].decode())
        homes.setdefault(record["group_id"].decode(), set()).add(split)
    assert labels == [40, 40]
    assert len(homes) == 16
    assert all(len(where) == 1 for where in homes.values())


def mistake(source: Path, tmp_path: Path, match: str) -> None:
    with pytest.raises(UserError, match=match):
        build(source, tmp_path / "data", "relaid_300px")


def test_mistakes_in_the_table(tmp_path):
    source = make_relaid(tmp_path / "source")
    table = source / "data_1.csv"
    good = table.read_text()
    table.write_text(good.replace("target", "label", 1))
    mistake(source, tmp_path, "no column 'target'; it has: image_path, label")
    table.write_text(good + "\nimg/chest_0.jpeg,2")
    mistake(source, tmp_path, "target '2'; accepted: 0")
    table.write_text(good + "\n../../etc/chest_0.jpeg,0")
    mistake(source, tmp_path, "names a path outside")
    table.write_text(good + "\nimg/chest_0.jpeg,0")
    mistake(source, tmp_path, "'img/chest_0.jpeg' occurs twice")
    table.unlink()
    mistake(source, tmp_path, "data_1.csv does not exist; expected columns: image_path, target")


def test_a_missing_image_is_quarantined(tmp_path):
    source = make_relaid(tmp_path / "source")
    (source / "img/chest_3.jpeg").unlink()
    built = build(source, tmp_path / "data", "relaid_300px")
    assert metadata_of(built)["quarantine"]["items"] == [
        {"sample_id": "img/chest_3.jpeg", "reason": "cannot be opened (No such file or directory)"}
    ]


def test_real_subset(shared_data, tmp_path):
    raw = shared_data / "kermany_chest_xray_test_300px"
    built = build(raw, tmp_path / "data", "relaid_300px")
    labels, homes, content = [0, 0], {}, {}
    for k, (split, record) in enumerate(read(built)):
        labels[record["targets"]["disease"]] += 1
        homes.setdefault(record["group_id"], set()).add(split)
        content.setdefault(record["xray"]["encoded"], set()).add(split)
        if k % 30 == 0:
            encoded = (raw / record["sample_id"].decode()).read_bytes()
            assert record["xray"]["encoded"] == encoded
            assert jpeg_size(encoded) == (record["xray"]["height"], record["xray"]["width"])
    assert labels == [112, 187]
    assert all(len(where) == 1 for where in homes.values())
    assert all(len(where) == 1 for where in content.values())
