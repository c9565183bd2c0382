"""aptos, eyepacs, idrid: tables and folders as published, official splits, leaks and mistakes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from multimed_jax.types import UserError
from tests.tfds_builders.built import build, metadata_of
from tests.tfds_builders.images import write
from tests.tfds_builders.sources import (
    build_accepted,
    by_sample,
    groups_of,
    index,
    write_picture,
)
from tfds_builders.aptos.aptos_dataset_builder import Builder as Aptos
from tfds_builders.core.graded_photographs import GRADES
from tfds_builders.eyepacs.eyepacs_dataset_builder import Builder as Eyepacs
from tfds_builders.idrid.idrid_dataset_builder import Builder as Idrid

TRAIN_TABLE = "a. IDRiD_Disease Grading_Training Labels.csv"
TEST_TABLE = "b. IDRiD_Disease Grading_Testing Labels.csv"


def make_aptos(folder: Path) -> Path:
    """Forty photographs, eight of each grade."""
    lines = ["id_code,diagnosis"]
    for i in range(40):
        write_picture(folder / f"train_images/c{i:02d}.png", i, 3)
        lines.append(f"c{i:02d},{i % 5}")
    write(folder / "train.csv", "\n".join(lines).encode())
    return folder


def make_eyepacs(folder: Path) -> Path:
    """Sixteen patients for training, four public and four private ones for the test."""
    for side, patients, table in (
        ("train", range(1, 17), "trainLabels.csv"),
        ("test", range(101, 109), "retinopathy_solution.csv"),
    ):
        lines = ["image,level" + (",Usage" if side == "test" else "")]
        for p in patients:
            for k, eye in enumerate(("left", "right")):
                write_picture(folder / f"{side}/{p}_{eye}.jpeg", 10 * p + k, 3)
                usage = f",{'Public' if p % 2 else 'Private'}" if side == "test" else ""
                lines.append(f"{p}_{eye},{(p + k) % 5}{usage}")
        write(folder / table, "\n".join(lines).encode())
    return folder


def make_idrid(folder: Path) -> Path:
    """Thirty photographs for training and ten for the test, numbered from 1 in both."""
    root = folder / "B. Disease Grading"
    for side, table, number, start in (
        ("a. Training Set", TRAIN_TABLE, 30, 0),
        ("b. Testing Set", TEST_TABLE, 10, 100),
    ):
        lines = ["Image name,Retinopathy grade,Risk of macular edema ,,,"]
        for i in range(1, number + 1):
            path = root / f"1. Original Images/{side}/IDRiD_{i:03d}.jpg"
            write_picture(path, start + i, 3)
            lines.append(f"IDRiD_{i:03d},{i % 5},1,,,")
        write(root / "2. Groundtruths" / table, "\n".join([*lines, ",,,,,"]).encode())
    return folder


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """The three sources; tests that change one copy it."""
    folder = tmp_path_factory.mktemp("retina")
    made = {"aptos": make_aptos, "eyepacs": make_eyepacs, "idrid": make_idrid}
    return {name: make(folder / name) for name, make in made.items()}


def test_aptos(sources, tmp_path):
    source = shutil.copytree(sources["aptos"], tmp_path / "source")
    (source / "train_images/c03.png").write_bytes(b"text")
    # One file under two names shares a group, whatever its grade.
    shutil.copy(source / "train_images/c00.png", source / "train_images/c01.png")
    built = build_accepted(Aptos, source, tmp_path / "data")
    found = by_sample(built)
    assert sorted(found) == [f"c{i:02d}" for i in range(40) if i != 3]
    for name, (_, record) in found.items():
        assert record["targets"]["retinopathy"] == int(name[1:]) % 5
        assert record["oct"]["encoded"] == (source / f"train_images/{name}.png").read_bytes()
        assert (record["oct"]["height"], record["oct"]["width"]) == (6, 8)
    groups = groups_of(found)
    assert groups["c00"] == groups["c01"] == "eye-c00"
    assert len(set(groups.values())) == 38
    metadata = metadata_of(built)
    assert metadata["class_names"] == {"retinopathy": list(GRADES)}
    assert metadata["quarantine"]["items"] == [
        {"sample_id": "c03", "reason": "is no JPEG or PNG file"}
    ]


def test_terms_that_restrict_must_be_accepted(sources, tmp_path):
    with pytest.raises(UserError, match="accepted: --accept_licence aptos"):
        build(Aptos, sources["aptos"], tmp_path / "data")


def test_eyepacs_official(sources, tmp_path):
    built = build_accepted(Eyepacs, sources["eyepacs"], tmp_path / "data", "official")
    found = by_sample(built)
    assert len(found) == 32 + 16
    for name, (split, record) in found.items():
        side, stem = name.split("/")
        patient, eye = stem.split("_")
        expected = "validation" if int(patient) % 2 else "test"
        assert split == ("train" if side == "train" else expected)
        assert record["group_id"].decode() == f"patient{patient}"
        assert record["targets"]["retinopathy"] == (int(patient) + (eye == "right")) % 5


def test_eyepacs_original_does_without_the_test_set(sources, tmp_path):
    source = shutil.copytree(sources["eyepacs"], tmp_path / "source")
    (source / "retinopathy_solution.csv").unlink()
    found = by_sample(build_accepted(Eyepacs, source, tmp_path / "data"))
    assert len(found) == 32
    assert {split for split, _ in found.values()} == {"train", "validation", "test"}
    with pytest.raises(UserError, match=r"retinopathy_solution.csv does not exist; expected col"):
        index(Eyepacs, source, tmp_path / "b", "official")


def test_eyepacs_leak(sources, tmp_path):
    source = shutil.copytree(sources["eyepacs"], tmp_path / "source")
    table = source / "retinopathy_solution.csv"
    table.write_text(table.read_text() + "\n3_left,0,Private")
    write_picture(source / "test/3_left.jpeg", 999, 3)
    with pytest.raises(UserError, match="1 group.* in more than one split: patient3 in test and t"):
        build_accepted(Eyepacs, source, tmp_path / "data", "official")


def test_idrid_official(sources, tmp_path):
    source = shutil.copytree(sources["idrid"], tmp_path / "source")
    images = source / "B. Disease Grading/1. Original Images"
    shutil.copy(images / "b. Testing Set/IDRiD_004.jpg", images / "a. Training Set/IDRiD_009.jpg")
    built = build(Idrid, source, tmp_path / "data", "official")
    found = by_sample(built)
    tested = {name for name, (split, _) in found.items() if split == "test"}
    assert tested == {f"test/IDRiD_{i:03d}" for i in range(1, 11)}
    # The training copy of a test photograph is left out.
    assert set(found) - tested == {f"train/IDRiD_{i:03d}" for i in range(1, 31) if i != 9}
    assert {split for split, _ in found.values()} == {"train", "validation", "test"}
    for name, (_, record) in found.items():
        assert record["targets"]["retinopathy"] == int(name[-3:]) % 5
    assert metadata_of(built)["left_out"] == {"copy of a record in another split": 1}


@pytest.mark.parametrize(
    ("which", "table", "old", "new", "match"),
    [
        (Aptos, "train.csv", "c00,0", "c00,5", "has the diagnosis '5'; accepted: 0, 1, 2, 3, 4"),
        (Aptos, "train.csv", "c00,0", "../c00,0", "names a path, not a file: '../c00.png'"),
        (Aptos, "train.csv", "diagnosis", "grade", "no column 'diagnosis'"),
        (Eyepacs, "trainLabels.csv", "1_left,", "1_up,", "image '1_up'; expected <patient>_<left"),
        (
            Eyepacs,
            "retinopathy_solution.csv",
            "Public",
            "Shown",
            "the usage 'Shown'; accepted: Pub",
        ),
        (Idrid, f"B. Disease Grading/2. Groundtruths/{TEST_TABLE}", ",1,1", ",x,1", "grade 'x'"),
    ],
)
def test_mistakes_in_a_table(sources, tmp_path, which, table, old, new, match):
    source = shutil.copytree(sources[which.CARD.name], tmp_path / "source")
    path = source / table
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(UserError, match=match):
        index(which, source, tmp_path / "data")


@pytest.mark.parametrize(
    ("which", "missing", "match"),
    [
        (Aptos, "train.csv", "train.csv does not exist; expected columns: id_code"),
        (Aptos, "train_images", "train_images does not exist; expected layout: train.csv and"),
        (Eyepacs, "train", "train does not exist; expected layout"),
        (Idrid, "B. Disease Grading/1. Original Images/b. Testing Set", "Testing Set does not"),
    ],
)
def test_missing_parts(sources, tmp_path, which, missing, match):
    source = shutil.copytree(sources[which.CARD.name], tmp_path / "source")
    (source / missing).rename(tmp_path / "gone")
    with pytest.raises(UserError, match=match):
        index(which, source, tmp_path / "data")
