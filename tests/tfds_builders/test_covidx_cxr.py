"""COVIDx CXR: both kinds of lists, groups by collection and patient, leaks and mistakes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from multimed_jax.types import UserError
from tests.tfds_builders.built import metadata_of
from tests.tfds_builders.images import write
from tests.tfds_builders.sources import build_accepted, by_sample, index, write_picture
from tfds_builders.core.quarantine import Quarantine
from tfds_builders.covidx_cxr.covidx_cxr_dataset_builder import Builder

LABELS = ("negative", "positive")


def make_source(folder: Path) -> Path:
    """Twenty patients for training, six for the test; numbers recur in another collection."""
    for side, first, number in (("train", 0, 20), ("test", 100, 6)):
        lines = []
        for p in range(first, first + number):
            for k in range(2):
                # Of an even number one film is of another collection's patient of that number.
                collection = "cohen" if k and p % 2 == 0 else "rsna"
                name = f"film {p} {k}.png" if p == 3 else f"film_{p}_{k}.png"
                write_picture(folder / side / name, 10 * p + k)
                lines.append(f"{p} {name} {LABELS[p % 2]} {collection}")
        write(folder / f"{side}.txt", "\n".join([*lines, ""]).encode())
    return folder


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return make_source(tmp_path_factory.mktemp("covidx"))


def test_official(published, tmp_path):
    source = shutil.copytree(published, tmp_path / "source")
    (source / "train/film_7_0.png").unlink()
    built = build_accepted(Builder, source, tmp_path / "data", "official")
    found = by_sample(built)
    assert len(found) == 52 - 1
    for name, (split, record) in found.items():
        side, stem = name.removesuffix(".png").split("/")
        _, patient, k = stem.replace(" ", "_").split("_")
        p = int(patient)
        assert (split == "test") == (side == "test")
        collection = "cohen" if k == "1" and p % 2 == 0 else "rsna"
        assert record["group_id"].decode() == f"{collection}/{p}"
        assert record["site"].decode() == collection
        assert record["targets"]["disease"] == p % 2
        assert record["xray"]["encoded"] == (source / name).read_bytes()
    metadata = metadata_of(built)
    assert metadata["class_names"] == {"disease": list(LABELS)}
    assert metadata["aliases"] == ["covid_chestxray", "nih_chestxray14"]
    assert metadata["quarantine"]["items"] == [
        {
            "sample_id": "train/film_7_0.png",
            "reason": "cannot be opened (No such file or directory)",
        }
    ]


def test_three_classes_and_no_collection(published, tmp_path):
    source = shutil.copytree(published, tmp_path / "source")
    for side in ("train", "test"):
        path = source / f"{side}.txt"
        text = path.read_text().replace("negative", "COVID-19").replace("positive", "pneumonia")
        # An early list of three words a line.
        short = [line.rsplit(" ", 1)[0] for line in text.splitlines()]
        (source / f"{side}_COVIDx5.txt").write_text("\n".join(short))
        path.unlink()
    builder = Builder(data_dir=tmp_path / "data")
    records = list(builder.read_source(source, Quarantine()))
    assert len(records) == 52
    assert {r.group_id for r in records} == {f"unnamed/{p}" for p in (*range(20), *range(100, 106))}
    assert {r.stratum for r in records} == {"COVID-19", "pneumonia"}
    assert builder.class_names() == {"disease": ("normal", "pneumonia", "COVID-19")}


def test_leak(published, tmp_path):
    source = shutil.copytree(published, tmp_path / "source")
    write_picture(source / "test/more.png", 7777)
    path = source / "test.txt"
    path.write_text(path.read_text() + "4 more.png negative cohen\n")
    with pytest.raises(UserError, match="more than one split: cohen/4 in test and train"):
        build_accepted(Builder, source, tmp_path / "data", "official")


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("0 film_0_0.png negative rsna", "0 film_0_0.png", "line 1 of the file .* has 2 word"),
        ("0 film_0_0.png negative rsna", "0 film_0_0.png ill rsna", "class 'ill'; accepted: neg"),
        ("film_0_0.png", "a/film_0_0.png", "names a path, not a file: 'a/film_0_0.png'"),
    ],
)
def test_mistakes_in_a_list(published, tmp_path, old, new, match):
    source = shutil.copytree(published, tmp_path / "source")
    path = source / "train.txt"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(UserError, match=match):
        index(Builder, source, tmp_path / "data")


def test_lists_and_folders_must_be_there(published, tmp_path):
    source = shutil.copytree(published, tmp_path / "source")
    shutil.copy(source / "train.txt", source / "train_9A.txt")
    with pytest.raises(UserError, match=r"2 lists named train\*.txt \(train.txt, train_9A.txt\)"):
        index(Builder, source, tmp_path / "data")
    for path in source.glob("train*.txt"):
        path.unlink()
    with pytest.raises(UserError, match=r"no list train\*.txt; expected layout"):
        index(Builder, source, tmp_path / "data")
