"""RSNA bone age: three tables of different columns, sex as text, official split."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from multimed_jax.types import UserError
from tests.tfds_builders.built import metadata_of
from tests.tfds_builders.images import write
from tests.tfds_builders.sources import build_accepted, by_sample, index, write_picture
from tfds_builders.rsna_bone_age.rsna_bone_age_dataset_builder import Builder


def make_source(folder: Path) -> Path:
    """Thirty training, eight validation and six test images, in the layouts of their archives."""
    train, validation = ["id,boneage,male"], ["Image ID,male,Bone Age (months)"]
    test = ["Case ID,Sex,Ground truth bone age (months)"]
    for i in range(30):
        # Kaggle repeats the name of the folder.
        place = folder / "boneage-training-dataset/boneage-training-dataset"
        write_picture(place / f"{1000 + i}.png", i)
        train.append(f"{1000 + i},{60 + 5 * i},{i % 2 == 0}")
    for i in range(8):
        part = folder / f"Bone Age Validation Set/boneage-validation-dataset-{1 + i % 2}"
        write_picture(part / f"{2000 + i}.png", 100 + i)
        validation.append(f"{2000 + i},{'TRUE' if i % 2 == 0 else 'FALSE'},{70 + i}")
    for i in range(6):
        write_picture(folder / f"Bone Age Test Set/Test Set Images/{3000 + i}.png", 200 + i)
        test.append(f"{3000 + i},{'MF'[i % 2]},{100.5 + i}")
    write(folder / "boneage-training-dataset.csv", "\n".join(train).encode())
    write(folder / "Bone Age Validation Set/Validation Dataset.csv", "\n".join(validation).encode())
    write(folder / "Bone Age Test Set/Bone age ground truth.csv", "\n".join(test).encode())
    return folder


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return make_source(tmp_path_factory.mktemp("rsna"))


def test_official(published, tmp_path):
    source = shutil.copytree(published, tmp_path / "source")
    nested = source / "boneage-training-dataset/boneage-training-dataset"
    (nested / "1003.png").write_bytes(b"")
    shutil.copy(source / "Bone Age Test Set/Test Set Images/3002.png", nested / "1004.png")
    built = build_accepted(Builder, source, tmp_path / "data", "official")
    found = by_sample(built)
    assert len(found) == 44 - 2
    for name, (split, record) in found.items():
        side, file = name.split("/")
        assert split == side
        i = int(file.removesuffix(".png")) % 1000
        months = {"train": 60 + 5 * i, "validation": 70 + i, "test": 100.5 + i}[side]
        np.testing.assert_array_equal(record["targets"]["bone_age"], [np.float32(months)])
        sex = ("male", "female")[i % 2]
        assert record["sex"].decode() == sex
        assert record["text"]["text"].decode() == f"Sex: {sex}."
    metadata = metadata_of(built)
    assert metadata["target_kinds"] == {"bone_age": "values"}
    assert metadata["class_names"] == {"bone_age": ["months"]}
    assert metadata["left_out"] == {"copy of a record in another split": 1}
    assert metadata["quarantine"]["count"] == 1
    stats = metadata["target_stats"]["train"]["bone_age"]
    assert stats["sum"] == [sum(60 + 5 * i for i in range(30) if i not in (3, 4))]


def test_original_takes_the_sets_that_are_there(published, tmp_path):
    source = shutil.copytree(published, tmp_path / "source")
    shutil.rmtree(source / "Bone Age Test Set")
    shutil.rmtree(source / "Bone Age Validation Set")
    found = by_sample(build_accepted(Builder, source, tmp_path / "a"))
    assert len(found) == 30
    assert {split for split, _ in found.values()} == {"train", "validation", "test"}
    with pytest.raises(UserError, match="Validation Dataset.csv does not exist; expected layout"):
        index(Builder, source, tmp_path / "b", "official")
    (source / "boneage-training-dataset.csv").unlink()
    with pytest.raises(UserError, match="boneage-training-dataset.csv does not exist"):
        index(Builder, source, tmp_path / "c")


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("1000,60,True", "1000,old,True", "the bone age 'old'; accepted: 0 to 300 months"),
        ("1000,60,True", "1000,601,True", "the bone age '601'"),
        ("1000,60,True", "1000,60,boy", "the sex 'boy'; accepted: True, False, M, F"),
        ("1000,60,True", "x/1000,60,True", "names a path, not a file: 'x/1000.png'"),
        ("boneage", "months", "no column 'boneage'"),
    ],
)
def test_mistakes_in_the_table(published, tmp_path, old, new, match):
    source = shutil.copytree(published, tmp_path / "source")
    table = source / "boneage-training-dataset.csv"
    table.write_text(table.read_text().replace(old, new, 1))
    with pytest.raises(UserError, match=match):
        index(Builder, source, tmp_path / "data")
