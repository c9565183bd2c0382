"""medical_abstracts: rows and classes, groups by text, the official files, bad csv files."""

from __future__ import annotations

import collections
import csv
import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
import tensorflow_datasets as tfds

from multimed_jax.types import UserError
from tfds_builders.medical_abstracts.medical_abstracts_dataset_builder import Builder

NAMES = (
    "neoplasms",
    "digestive system diseases",
    "nervous system diseases",
    "cardiovascular diseases",
    "general pathological conditions",
)
LABELS_CSV = "condition_label,condition_name\n" + "".join(
    f"{i},{name}\n" for i, name in enumerate(NAMES, start=1)
)
Row = tuple[str, str]


def make_rows(first: int, count: int) -> list[Row]:
    return [
        (str(i % 5 + 1), f'Report number {i}. It says "{i}", and\nmore, with commas; cost 5%.')
        for i in range(first, first + count)
    ]


def write_source(folder: Path, test: list[Row], train: list[Row] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "medical_tc_labels.csv").write_text(LABELS_CSV)
    for side, rows in (("test", test), ("train", train)):
        if rows is None:
            continue
        with (folder / f"medical_tc_{side}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("condition_label", "medical_abstract"))
            writer.writerows(rows)
    return folder


def build(manual_dir: Path, data_dir: Path, config: str = "grouped") -> Any:
    builder = Builder(data_dir=data_dir, config=config)
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=manual_dir)
    )
    return builder


def by_id(builder: Any) -> dict[str, tuple[str, str, int, str]]:
    """sample id -> (split, text, class index, group)."""
    return {
        record["sample_id"].decode(): (
            split,
            record["text"]["text"].decode(),
            int(record["targets"]["disease"]),
            record["group_id"].decode(),
        )
        for split in ("train", "validation", "test")
        for record in builder.as_data_source(split)
    }


def test_rows_come_back_with_their_text_and_class(tmp_path: Path) -> None:
    test, train = make_rows(0, 60), make_rows(100, 80)
    found = by_id(build(write_source(tmp_path / "manual", test, train), tmp_path / "data"))
    assert len(found) == 140
    for side, rows in (("test", test), ("train", train)):
        for number, (label, text) in enumerate(rows, start=1):
            _, read, target, _ = found[f"{side}/{number:05d}"]
            assert read == text and target == int(label) - 1


def test_equal_texts_are_one_group_under_any_label_case_or_spacing(tmp_path: Path) -> None:
    rows = make_rows(0, 60)
    rows += [("5", text.upper().replace(" ", "  ")) for _, text in rows[:20]]
    builder = build(write_source(tmp_path / "manual", rows), tmp_path / "data")
    found = by_id(builder)
    for i in range(1, 21):
        first, second = found[f"test/{i:05d}"], found[f"test/{i + 60:05d}"]
        assert first[0] == second[0] and first[3] == second[3]
        assert second[2] == 4  # both labels are kept
    assert sum(builder.info.metadata["num_groups"].values()) == 60
    assert sum(builder.info.metadata["duplicates"].values()) == 20
    # The split of a text does not depend on the other texts.
    alone = by_id(build(write_source(tmp_path / "fewer", rows[:60]), tmp_path / "data_fewer"))
    assert all(found[name][0] == alone[name][0] for name in alone)


def test_official_split_keeps_the_test_file_and_drops_its_copies_from_train(
    tmp_path: Path,
) -> None:
    test = make_rows(0, 30)
    train = make_rows(100, 80) + [("2", test[3][1])] + [("1", make_rows(100, 1)[0][1])]
    builder = build(write_source(tmp_path / "manual", test, train), tmp_path / "data", "official")
    found = by_id(builder)
    assert {name for name, row in found.items() if row[0] == "test"} == {
        f"test/{i:05d}" for i in range(1, 31)
    }
    assert "train/00081" not in found  # a copy of a test abstract
    assert found["train/00082"][0] == found["train/00001"][0]  # copies within the train file
    splits = collections.Counter(row[0] for row in found.values())
    assert splits["train"] + splits["validation"] == 81 and splits["validation"] > 0
    assert builder.info.metadata["left_out"] == {"copy of a record in another split": 1}
    assert builder.info.metadata["split_mode"] == "official"


def test_official_split_without_the_train_file_says_so(tmp_path: Path) -> None:
    write_source(tmp_path / "manual", make_rows(0, 30))
    with pytest.raises(UserError, match=r"'official' needs medical_tc_train\.csv"):
        build(tmp_path / "manual", tmp_path / "data", "official")


def test_empty_abstracts_and_unknown_labels_are_quarantined(tmp_path: Path) -> None:
    rows = make_rows(0, 120)
    rows[4], rows[9], rows[14] = ("1", "  "), ("7", "A text."), ("", "Another text.")
    path = write_source(tmp_path / "manual", rows) / "medical_tc_test.csv"
    builder = build(tmp_path / "manual", tmp_path / "data")
    quarantine = builder.info.metadata["quarantine"]
    reasons = {item["sample_id"]: item["reason"] for item in quarantine["items"]}
    assert set(reasons) == {"test/00005", "test/00010", "test/00015"}
    assert "empty" in reasons["test/00005"] and "'7'" in reasons["test/00010"]
    assert len(by_id(builder)) == 117
    # A row that was cut after its label.
    path.write_text(path.read_text() + "3\n")
    again = build(tmp_path / "manual", tmp_path / "data_again")
    assert again.info.metadata["quarantine"]["count"] == 4


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("medical_tc_test.csv", "", "has no column 'condition_label'"),
        ("medical_tc_test.csv", "condition_label,medical_abstract\n", "holds no abstracts"),
        ("medical_tc_test.csv", "condition_label,abstract\n1,x\n", "no column 'medical_abstract'"),
        ("medical_tc_labels.csv", "condition_label,condition_name\n1,colds\n", "labels 1 colds; "),
        ("medical_tc_labels.csv", "label,name\n1,neoplasms\n", "no column 'condition_label'"),
        ("medical_tc_labels.csv", None, "does not exist"),
        ("medical_tc_test.csv", None, "does not exist"),
    ],
)
def test_unusable_files_end_in_one_sentence(
    tmp_path: Path, name: str, content: str | None, sentence: str
) -> None:
    path = write_source(tmp_path / "manual", make_rows(0, 60)) / name
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=re.escape(sentence)) as caught:
        build(tmp_path / "manual", tmp_path / "data")
    assert name in str(caught.value) and "\n" not in str(caught.value)
    assert not list((tmp_path / "data").rglob("dataset_info.json"))


def test_staged_abstracts(shared_data: Path, tmp_path: Path) -> None:
    manual = shared_data / "medical_abstracts_tc"
    if not manual.is_dir():
        pytest.skip(f"{manual.name} is not among the small real sources")
    found = by_id(build(manual, tmp_path))
    assert len(found) == 1432
    counts = collections.Counter(target for _, _, target, _ in found.values())
    assert [counts[i] for i in range(5)] == [315, 156, 195, 297, 469]
    where = collections.defaultdict(set)
    for split, text, _, _ in found.values():
        where[hashlib.sha256(" ".join(text.lower().split()).encode()).digest()].add(split)
    assert len(where) == 1432 - 56  # 56 abstracts occur twice, each time under two labels
    assert all(len(splits) == 1 for splits in where.values())
