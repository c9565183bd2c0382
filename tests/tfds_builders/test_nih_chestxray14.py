"""NIH ChestX-ray14: findings, spacing of the scaled films, official lists, the real table."""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from multimed_jax.types import UserError
from tests.tfds_builders.built import build, metadata_of
from tests.tfds_builders.images import write
from tests.tfds_builders.sources import by_sample, index, write_picture
from tfds_builders.core.quarantine import Quarantine
from tfds_builders.nih_chestxray14.nih_chestxray14_dataset_builder import (
    LABELS,
    Builder,
    findings_of,
)

HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
FINDINGS = ("No Finding", "Effusion|Mass", "Hernia", "Pleural_Thickening|Atelectasis|Edema")


def name_of(i: int) -> str:
    return f"{i // 2 + 1:08d}_{i % 2:03d}.png"


def make_source(folder: Path) -> Path:
    """Forty films of twenty patients, the last four of whom are tested; Kaggle's two folders."""
    rows = []
    for i in range(40):
        part = f"images_{1 + i % 2:03d}"
        write_picture(folder / part / "images" / name_of(i), i)
        sex = "FM"[i // 2 % 2]
        rows.append(
            f"{name_of(i)},{FINDINGS[i % 4]},0,{i // 2 + 1},{40 + i},{sex},PA,16,24,0.5,0.25"
        )
    rows[6] = rows[6].replace(",46,", ",414,")
    write(folder / "Data_Entry_2017_v2020.csv", "\n".join([HEADER, *rows]).encode())
    write(folder / "train_val_list.txt", "\n".join(map(name_of, range(32))).encode())
    write(folder / "test_list.txt", "\n".join(map(name_of, range(32, 40))).encode())
    return folder


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return make_source(tmp_path_factory.mktemp("nih"))


def test_findings_of():
    found = findings_of("Mass|Effusion", Path("t.csv"))
    assert [label for label, one in zip(LABELS, found, strict=True) if one] == ["Effusion", "Mass"]
    with pytest.raises(UserError, match="the finding 'Masses'; accepted: Atelectasis, Cardio"):
        findings_of("Effusion|Masses", Path("t.csv"))
    with pytest.raises(UserError, match="a finding beside 'No Finding'"):
        findings_of("No Finding|Mass", Path("t.csv"))


def test_official(published, tmp_path):
    source = shutil.copytree(published, tmp_path / "source")
    lines = (source / "test_list.txt").read_text().splitlines()
    (source / "test_list.txt").write_text("\n".join(lines[:-1]))
    broken = source / "images_001/images" / name_of(4)
    broken.write_bytes(broken.read_bytes()[:40])
    built = build(Builder, source, tmp_path / "data", "official")
    found = by_sample(built)
    assert sorted(found) == [name_of(i) for i in range(39) if i != 4]
    for i in (i for i in range(39) if i != 4):
        split, record = found[name_of(i)]
        assert (split == "test") == (i >= 32)
        assert record["group_id"].decode() == f"patient{i // 2 + 1}"
        labels = dict(zip(LABELS, record["targets"]["radiographic"], strict=True))
        assert {k for k, one in labels.items() if one} == set(FINDINGS[i % 4].split("|"))
        assert record["sex"] == (b"female", b"male")[i // 2 % 2]
        # 24 rows of 0.25 mm are shown in 6, 16 columns of 0.5 mm in 8.
        np.testing.assert_allclose(record["xray"]["spacing_mm"], [1.0, 1.0])
        age = record["age_years"]
        assert np.isnan(age) if i == 6 else age == 40 + i
    metadata = metadata_of(built)
    assert metadata["left_out"] == {"film in neither of the official lists": 1}
    assert [item["sample_id"] for item in metadata["quarantine"]["items"]] == [name_of(4)]
    assert metadata["target_kinds"] == {"radiographic": "labels"}
    known = [
        metadata["target_stats"][s]["radiographic"]["count"][0] for s in metadata["num_groups"]
    ]
    assert sum(known) == 38


def test_original_needs_no_lists(published, tmp_path):
    source = shutil.copytree(published, tmp_path / "source")
    (source / "test_list.txt").unlink()
    assert len(index(Builder, source, tmp_path / "a")) == 40
    with pytest.raises(UserError, match=r"test_list.txt cannot be read: No such file"):
        index(Builder, source, tmp_path / "b", "official")


def test_leaks_end_the_build(published, tmp_path):
    source = shutil.copytree(published, tmp_path / "source")
    path = source / "train_val_list.txt"
    path.write_text(path.read_text().replace(f"\n{name_of(31)}", ""))
    test = source / "test_list.txt"
    test.write_text(test.read_text() + f"\n{name_of(31)}")
    with pytest.raises(UserError, match="more than one split: patient16 in test and train"):
        build(Builder, source, tmp_path / "a", "official")
    path.write_text(path.read_text() + f"\n{name_of(31)}")
    with pytest.raises(UserError, match="have '00000016_001.png' in train and test; accepted"):
        index(Builder, source, tmp_path / "b", "official")


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("Hernia", "Hernias", "has the finding 'Hernias'"),
        ("Patient ID", "Patient", "no column 'patient id'"),
        (",16,24,", ",wide,24,", "a size or spacing that is no number"),
        ("00000001_000.png", "../x.png", "names a path, not a file"),
    ],
)
def test_mistakes_in_the_table(published, tmp_path, old, new, match):
    source = shutil.copytree(published, tmp_path / "source")
    table = source / "Data_Entry_2017_v2020.csv"
    table.write_text(table.read_text().replace(old, new))
    with pytest.raises(UserError, match=match):
        index(Builder, source, tmp_path / "data")
    table.unlink()
    with pytest.raises(UserError, match="Data_Entry_2017_v2020.csv does not exist; expected lay"):
        index(Builder, source, tmp_path / "data")


def test_real_table(shared_data, tmp_path):
    """Every row of the published table (its films are not there) against the csv module."""
    raw = shared_data / "nih_chestxray14_labels"
    source = tmp_path / "source"
    (source / "images").mkdir(parents=True)
    shutil.copy(raw / "Data_Entry_2017_v2020.csv", source)
    builder = Builder(data_dir=tmp_path / "data")
    found = list(builder.read_source(source, Quarantine()))
    with (raw / "Data_Entry_2017_v2020.csv").open(encoding="utf-8-sig", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [record.sample_id for record in found] == [row["Image Index"] for row in rows]
    counts = Counter(name for row in rows for name in row["Finding Labels"].split("|"))
    assert counts["No Finding"] == 1381
    assert len({record.group_id for record in found}) == 700
    told = [record.record.args[2]["radiographic"] for record in found]  # type: ignore[union-attr]
    totals = np.sum(told, axis=0)
    assert dict(zip(LABELS, totals.tolist(), strict=True)) == dict(counts)
