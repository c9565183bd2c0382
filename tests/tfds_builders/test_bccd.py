"""BCCD: annotations, windows around cells, the choice of red cells, the real subset."""

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
from tfds_builders.bccd.annotation import Box, read_boxes
from tfds_builders.bccd.bccd_dataset_builder import (
    CLASSES,
    RED_CELLS_PER_IMAGE,
    WINDOW,
    Builder,
    chosen_boxes,
    cut,
    number_block,
)
from tfds_builders.core.quarantine import Quarantine
from tfds_builders.core.records import UnreadableRecord

SIZE = (200, 160)
WHITE = Box("WBC", 60, 50, 140, 110)
PLATELET = Box("Platelets", 0, 0, 20, 20)
REDS = [Box("RBC", 10 * k, 90, 10 * k + 40, 130) for k in range(5)]
EMPTY = Box("RBC", 30, 30, 30, 60)


def voc(boxes: list[Box], head: str = "") -> str:
    items = "".join(
        f"<object><name>{b.name}</name><bndbox><xmin>{b.left}</xmin><ymin>{b.top}</ymin>"
        f"<xmax>{b.right}</xmax><ymax>{b.bottom}</ymax></bndbox></object>"
        for b in boxes
    )
    return f"{head}<annotation><path>/home/x/{{}}</path>{items}</annotation>"


def make_source(folder: Path) -> Path:
    """Six photographs of one block each, with a white cell, a platelet and six red boxes."""
    for i in range(6):
        stem = f"BloodImage_{10 * i:05d}"
        image = Image.merge("RGB", [smooth_image(10 * i + c, SIZE) for c in range(3)])
        write(folder / f"BCCD/JPEGImages/{stem}.jpg", jpeg(image))
        boxes = [*REDS, EMPTY, WHITE, PLATELET]
        write(folder / f"BCCD/Annotations/{stem}.xml", voc(boxes).encode())
    write(folder / "BCCD/ImageSets/Main/train.txt", b"BloodImage_00000\n")
    return folder


def test_cells_of_photographs(tmp_path):
    source = make_source(tmp_path / "source")
    built = build(Builder, source, tmp_path / "data")
    labels, homes = Counter(), {}
    boxes = [*REDS, EMPTY, WHITE, PLATELET]
    for split, record in read(built):
        stem, _, index = record["sample_id"].decode().partition("/")
        box = boxes[int(index)]
        label = CLASSES[record["targets"]["cell_type"]]
        assert label == {"RBC": "red cell", "WBC": "white cell", "Platelets": "platelet"}[box.name]
        labels[label] += 1
        value = record["pathology"]
        assert value["heights"].tolist() == value["widths"].tolist() == [WINDOW]
        (tile,) = value["tiles"]
        pixels = np.asarray(Image.open(io.BytesIO(tile)))
        photograph = np.asarray(Image.open(source / f"BCCD/JPEGImages/{stem}.jpg"))
        middle = photograph[(box.top + box.bottom) // 2, (box.left + box.right) // 2]
        np.testing.assert_array_equal(pixels[WINDOW // 2, WINDOW // 2], middle)
        homes.setdefault(record["group_id"].decode(), set()).add(split)
    assert labels == {"red cell": 6 * RED_CELLS_PER_IMAGE, "white cell": 6, "platelet": 6}
    assert set(homes) == {f"block{10 * i}" for i in range(6)}
    assert all(len(where) == 1 for where in homes.values())
    assert metadata_of(built)["left_out"] == {
        "box without width or height": 6,
        f"red cell beyond {RED_CELLS_PER_IMAGE} of its photograph": 18,
    }


def test_windows_inside_and_at_the_border():
    pixels = np.arange(200 * 300 * 3).reshape(200, 300, 3).astype(np.uint8)
    inside = cut(pixels, Box("WBC", 100, 80, 201, 121))
    np.testing.assert_array_equal(inside, pixels[100 - 64 : 100 + 64, 150 - 64 : 150 + 64])
    corner = cut(pixels, Box("RBC", -5, -7, 5, 7))
    np.testing.assert_array_equal(corner[64:, 64:], pixels[:64, :64])
    np.testing.assert_array_equal(corner[:64, 64:], pixels[63::-1, :64])
    outside = cut(pixels, Box("RBC", 500, 500, 900, 900))
    assert outside.shape == (WINDOW, WINDOW, 3)


def test_red_cells_are_chosen_alike_at_every_build():
    chosen = chosen_boxes("BloodImage_00001", REDS, Quarantine())
    assert chosen == chosen_boxes("BloodImage_00001", REDS, Quarantine())
    assert len(chosen) == RED_CELLS_PER_IMAGE
    picks = Counter(i for n in range(200) for i in chosen_boxes(f"x{n}", REDS, Quarantine()))
    assert sorted(picks) == [0, 1, 2, 3, 4]
    assert all(50 < n < 110 for n in picks.values())  # 80 each, were it even


def test_number_block():
    assert [number_block(f"BloodImage_{n:05d}") for n in (0, 9, 10, 410)] == [
        "block0",
        "block0",
        "block10",
        "block410",
    ]
    with pytest.raises(UserError, match="'Blood_1' is unknown; expected BloodImage_<n>"):
        number_block("Blood_1")


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>'


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (voc([WHITE], BOMB).encode(), "with a document type; accepted: none"),
        (voc([WHITE], "<!DOCTYPE annotation>").encode("utf-16"), "with a document type"),
        (voc([WHITE], '<!DOCTYPE x SYSTEM "file:///etc/hosts">').encode(), "with a document type"),
        (b"", "is no XML"),
        (b"<annotation>", "is no XML"),
        (b"\xff\xfe\xfa", "is no XML"),
        (voc([WHITE]).replace("60", "wide").encode(), "lacks one of four whole numbers"),
        (voc([WHITE]).replace("<ymax>110</ymax>", "").encode(), "lacks one of four whole numbers"),
        (voc([WHITE]).replace("WBC", " ").encode(), "box without a name"),
        (b"<a>" + b" " * 1_000_000 + b"</a>", "accepted: up to 1000000"),
    ],
)
def test_annotations_that_are_refused(tmp_path, content, match):
    path = tmp_path / "x.xml"
    path.write_bytes(content)
    with pytest.raises(UnreadableRecord, match=match):
        read_boxes(path)


def test_boxes_of_an_annotation(tmp_path):
    path = tmp_path / "x.xml"
    path.write_text(voc([WHITE, EMPTY]))
    assert read_boxes(path) == [WHITE, EMPTY]
    assert [box.is_empty for box in read_boxes(path)] == [False, True]
    with pytest.raises(UnreadableRecord, match="cannot be opened"):
        read_boxes(tmp_path / "none.xml")


def test_damaged_files_are_quarantined(tmp_path):
    source = make_source(tmp_path / "source")
    (source / "BCCD/Annotations/BloodImage_00000.xml").write_text(voc([Box("Cell", 0, 0, 9, 9)]))
    built = build(Builder, source, tmp_path / "data")
    items = metadata_of(built)["quarantine"]["items"]
    assert [item["sample_id"] for item in items] == ["BloodImage_00000"]
    assert "box named 'Cell'; accepted: RBC, WBC, Platelets" in items[0]["reason"]
    (source / "BCCD/JPEGImages/BloodImage_00010.jpg").write_bytes(b"text")
    with pytest.raises(UserError, match="5 of 21 records cannot be read"):
        build(Builder, source, tmp_path / "other")
    (source / "BCCD/Annotations").rename(source / "BCCD/Notes")
    with pytest.raises(UserError, match="has no subfolder 'Annotations'"):
        build(Builder, source, tmp_path / "other")


def test_real_subset(shared_data, tmp_path):
    raw = shared_data / "bccd_blood_cells"
    built = build(Builder, raw, tmp_path / "data")
    (table,) = raw.rglob("test.csv")
    with table.open(newline="") as lines:
        boxes = [line for line in csv.DictReader(lines)]
    labels, homes, places = Counter(), {}, {}
    for split, record in read(built):
        labels[CLASSES[record["targets"]["cell_type"]]] += 1
        homes.setdefault(record["group_id"], set()).add(split)
        stem = record["sample_id"].decode().split("/")[0]
        places.setdefault(stem, []).append(record)
    # SOURCE.md: 171 photographs, 178 white cells, 195 platelets; four show no red cell.
    assert labels == {"red cell": 2 * 167, "white cell": 178, "platelet": 195}
    assert metadata_of(built)["left_out"] == {"red cell beyond 2 of its photograph": 2066 - 2 * 167}
    assert all(len(where) == 1 for where in homes.values())
    assert len(places) == 171
    # White cells by the publisher's other table, pixel by pixel.
    for stem in sorted(places)[::40]:
        photograph = np.asarray(Image.open(raw / f"BCCD/JPEGImages/{stem}.jpg"))
        padded = np.pad(photograph, ((64, 64), (64, 64), (0, 0)), mode="symmetric")
        whites = [b for b in boxes if b["filename"] == f"{stem}.jpg" and b["cell_type"] == "WBC"]
        expected = []
        for b in whites:
            x = (int(b["xmin"]) + int(b["xmax"])) // 2
            y = (int(b["ymin"]) + int(b["ymax"])) // 2
            expected.append(padded[y : y + 128, x : x + 128].tobytes())
        found = [
            np.asarray(Image.open(io.BytesIO(r["pathology"]["tiles"][0]))).tobytes()
            for r in places[stem]
            if CLASSES[r["targets"]["cell_type"]] == "white cell"
        ]
        assert sorted(found) == sorted(expected)
