"""ODIR-5K: grades from the key words of one eye, both tasks, the real subset."""

from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multimed_jax.types import UserError
from tests.tfds_builders.built import build, metadata_of, read
from tests.tfds_builders.images import jpeg, smooth_image, write
from tfds_builders.odir5k.odir5k_dataset_builder import GRADES, LABELS, Builder, severity

HEADER = (
    "ID,Patient Age,Patient Sex,Left-Fundus,Right-Fundus,Left-Diagnostic Keywords,"
    "Right-Diagnostic Keywords,N,D,G,C,A,H,M,O,filepath,labels,target,filename"
)
LEFT, RIGHT = "moderate non proliferative retinopathy\uff0clens dust", "cataract"


def row(patient: int, side: str, letter: str, left: str = LEFT, right: str = RIGHT) -> str:
    name = f"{patient}_{side}.jpg"
    sex = "Female" if patient % 2 else "Male"
    flags = "0,1,0,1,0,0,0,0"
    head = f"{patient},{50 + patient},{sex},l,r,{left},{right},{flags}"
    return f"{head},../x,['{letter}'],\"[0]\",{name}"


def make_source(folder: Path) -> Path:
    """Eight patients with a left eye of grade 2 and a right eye with cataract and no grade."""
    lines = [HEADER]
    for patient in range(8):
        for k, (side, letter) in enumerate((("left", "D"), ("right", "C"))):
            image = Image.merge("RGB", [smooth_image(100 * patient + 10 * k + c) for c in range(3)])
            write(folder / f"preprocessed_images/{patient}_{side}.jpg", jpeg(image))
            lines.append(row(patient, side, letter))
    write(folder / "full_df.csv", "\n".join(lines).encode())
    return folder


@pytest.mark.parametrize(
    ("keywords", "grade"),
    [
        ("normal fundus", 0),
        ("normal fundus\uff0clens dust", 0),
        ("mild nonproliferative retinopathy", 1),
        ("epiretinal membrane\uff0cmoderate non proliferative retinopathy\uff0claser spot", 2),
        ("Severe Non-Proliferative Retinopathy", 3),
        ("proliferative diabetic retinopathy", 4),
        ("severe proliferative diabetic retinopathy", 4),
        ("mild nonproliferative retinopathy,severe nonproliferative retinopathy", 3),
        ("diabetic retinopathy", -1),
        ("suspected moderate non proliferative retinopathy", -1),
        ("hypertensive retinopathy", -1),
        ("cataract", -1),
        ("", -1),
    ],
)
def test_severity(keywords, grade):
    assert severity(keywords) == grade


def test_each_eye_has_its_own_grade_and_label(tmp_path):
    source = make_source(tmp_path / "source")
    built = build(Builder, source, tmp_path / "data")
    homes = {}
    for split, record in read(built):
        name = record["sample_id"].decode()
        patient, side = name.removesuffix(".jpg").split("_")
        is_left = side == "left"
        assert record["targets"]["retinopathy"] == (2 if is_left else -1)
        assert record["targets"]["disease"] == list(LABELS).index("D" if is_left else "C")
        assert record["oct"]["encoded"] == (source / "preprocessed_images" / name).read_bytes()
        assert record["sex"] == (b"female" if int(patient) % 2 else b"male")
        assert record["age_years"] == 50 + int(patient)
        homes.setdefault(record["group_id"].decode(), set()).add(split)
    assert set(homes) == {f"patient{i}" for i in range(8)}
    assert all(len(where) == 1 for where in homes.values())
    metadata = metadata_of(built)
    assert metadata["class_names"] == {
        "retinopathy": list(GRADES),
        "disease": list(LABELS.values()),
    }
    assert sum(counts["retinopathy"][2] for counts in metadata["class_counts"].values()) == 8


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("['D']", "['X']", r"has the labels \"\['X'\]\"; accepted: one letter"),
        ("['D']", "['D' 'N']", "accepted: one letter in the form"),
        ("Female", "F", "has the sex 'F'; accepted: Female, Male"),
        (",51,", ",old,", "has the age 'old'; accepted: whole years"),
        ("1_left.jpg", "../1_left.jpg", "filename '../1_left.jpg' beside the ID '1'; expected"),
        ("1_left.jpg", "2_left.jpg", "filename '2_left.jpg' beside the ID '1'"),
        ("labels", "label", "no column 'labels'"),
    ],
)
def test_mistakes_in_the_table(tmp_path, old, new, match):
    source = make_source(tmp_path / "source")
    table = source / "full_df.csv"
    text = table.read_text()
    assert old in text
    table.write_text(text.replace(old, new))
    with pytest.raises(UserError, match=match):
        build(Builder, source, tmp_path / "data")


def test_missing_and_damaged_files(tmp_path):
    source = make_source(tmp_path / "source")
    path = source / "preprocessed_images/3_left.jpg"
    path.write_bytes(b"text")
    with pytest.raises(UserError, match="1 of 16 records cannot be read .* 3_left.jpg: is no JPEG"):
        build(Builder, source, tmp_path / "data")
    (source / "preprocessed_images").rename(source / "images")
    with pytest.raises(UserError, match="preprocessed_images does not exist; expected layout"):
        build(Builder, source, tmp_path / "data")


def test_real_subset(shared_data, tmp_path):
    raw = shared_data / "odir5k_preprocessed"
    built = build(Builder, raw, tmp_path / "data")
    with (raw / "full_df.csv").open(encoding="utf-8-sig", newline="") as lines:
        table = {line["filename"]: line for line in csv.DictReader(lines)}
    grades, labels, homes = Counter(), Counter(), {}
    for k, (split, record) in enumerate(read(built)):
        name = record["sample_id"].decode()
        grades[int(record["targets"]["retinopathy"])] += 1
        letter = list(LABELS)[record["targets"]["disease"]]
        labels[letter] += 1
        assert table[name]["labels"] == f"['{letter}']"
        assert record["sex"].decode() == table[name]["Patient Sex"].lower()
        assert record["age_years"] == float(table[name]["Patient Age"])
        homes.setdefault(record["group_id"], set()).add(split)
        if k % 40 == 0:
            path = raw / "preprocessed_images" / name
            pixels = np.asarray(Image.open(io.BytesIO(record["oct"]["encoded"])))
            np.testing.assert_array_equal(pixels, np.asarray(Image.open(path)))
            assert pixels.shape == (512, 512, 3)
    # SOURCE.md; its 117 normal eyes do not count the two that also have dust on the lens.
    assert grades == {0: 117 + 2, 1: 41, 2: 76, 3: 36, 4: 11, -1: 109 - 2}
    assert labels == {"N": 119, "D": 157, "G": 15, "C": 24, "A": 18, "H": 15, "M": 17, "O": 25}
    assert len(homes) == 203
    assert all(len(where) == 1 for where in homes.values())
