"""VQA-RAD, SLAKE, PMC-VQA and PathVQA on tiny copies of their layouts, made here."""

from __future__ import annotations

import collections
import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from multimed_jax.types import UserError
from tests.tfds_builders.built import build, metadata_of, read
from tests.tfds_builders.images import jpeg, smooth_image, write
from tfds_builders.path_vqa.path_vqa_dataset_builder import Builder as PathVqa
from tfds_builders.pmc_vqa.pmc_vqa_dataset_builder import Builder as PmcVqa
from tfds_builders.slake.slake_dataset_builder import Builder as Slake
from tfds_builders.vqa_rad.vqa_rad_dataset_builder import Builder as VqaRad

NUM_PICTURES = 10
EMPTY_BYTES = b""


def picture(i: int) -> bytes:
    return jpeg(smooth_image(i))


def collected(built: Any) -> dict[str, tuple[str, Any]]:
    """Id -> (split, record), after a check that no group crosses splits."""
    found, homes = {}, collections.defaultdict(set)
    for split, record in read(built):
        found[record["sample_id"].decode()] = (split, record)
        homes[record["group_id"]].add(split)
    assert all(len(where) == 1 for where in homes.values())
    return found


def candidates(record: Any) -> list[str]:
    return [text.decode() for text in record["answer"]["candidates"]]


# ------------------------------------------------------------------------------ VQA-RAD


def rad_rows() -> list[dict[str, Any]]:
    """Three questions about each picture: closed, open with a number, and of the test part."""
    rows = []
    for i in range(NUM_PICTURES):
        organ = ("CHEST", "HEAD", "ABD")[i % 3]
        common = {
            "image_case_url": f"https://x/case{i // 2}",
            "image_name": f"synpic{i}.jpg",
            "image_organ": organ,
            "question_type": "PRES",
        }
        for k, (answer, kind, phrase) in enumerate(
            [("No", "CLOSED ", "freeform"), (3, "OPEN", "para"), ("Yes", "CLOSED", "test_para")]
        ):
            question = {"qid": 10 * i + k, "question": f"Question {k} about {i}?"}
            rows.append(
                {**common, **question, "answer": answer, "answer_type": kind, "phrase_type": phrase}
            )
    return rows


def rad_source(folder: Path, rows: list[dict[str, Any]]) -> Path:
    for i in range(NUM_PICTURES):
        write(folder / f"VQA_RAD Image Folder/synpic{i}.jpg", picture(i))
    (folder / "VQA_RAD Dataset Public.json").write_text(json.dumps(rows))
    return folder


def test_vqa_rad_by_case(tmp_path):
    built = build(VqaRad, rad_source(tmp_path / "s", rad_rows()), tmp_path / "d")
    found = collected(built)
    assert len(found) == 3 * NUM_PICTURES
    for name, (_, record) in found.items():
        i, k = divmod(int(name[1:]), 10)
        shown, other = ("xray", "mri") if i % 3 == 0 else ("mri", "xray")
        assert record[shown]["encoded"] == picture(i) and record[other]["encoded"] == EMPTY_BYTES
        assert record["group_id"].decode() == f"https://x/case{i // 2}"
        assert record["text"]["text"].decode() == f"Question {k} about {i}?"
        assert record["answer"]["text"].decode() == ("no", "3", "yes")[k]
        assert candidates(record) == ([] if k == 1 else ["yes", "no"])
        assert record["organ"].decode() == ("chest", "head", "abdomen")[i % 3]
    metadata = metadata_of(built)
    assert metadata["target_kinds"] == {"vqa": "answer"}
    assert metadata["questions_about_ct_without_hounsfield_units"] == 9
    assert sum(metadata["closed_answers"]["train"].values()) > 0


def test_vqa_rad_official_keeps_the_test_part(tmp_path):
    built = build(VqaRad, rad_source(tmp_path / "s", rad_rows()), tmp_path / "d", "official")
    for name, (split, _) in collected(built).items():
        assert (split == "test") == (int(name[1:]) % 10 == 2)
    assert metadata_of(built)["split_mode"] == "official"


def test_pictures_that_look_alike_unite_their_cases(tmp_path):
    source = rad_source(tmp_path / "s", rad_rows())
    write(source / "VQA_RAD Image Folder/synpic9.jpg", jpeg(smooth_image(0), quality=60))
    found = collected(build(VqaRad, source, tmp_path / "d"))
    assert found["q90"][1]["group_id"] == found["q0"][1]["group_id"]
    assert found["q90"][0] == found["q0"][0]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda rows: rows[4].pop("answer_type"), "has a record without 'answer_type'; it has: "),
        (lambda rows: rows.append("text"), "holds no list of records"),
    ],
)
def test_a_json_file_that_lacks_something(tmp_path, change, match):
    rows = rad_rows()
    change(rows)
    with pytest.raises(UserError, match=match):
        build(VqaRad, rad_source(tmp_path / "s", rows), tmp_path / "d")


def test_broken_and_missing_pictures_are_put_aside(tmp_path, monkeypatch):
    source = rad_source(tmp_path / "s", rad_rows())
    write(source / "VQA_RAD Image Folder/synpic1.jpg", picture(1)[:200])
    (source / "VQA_RAD Image Folder/synpic2.jpg").unlink()
    with pytest.raises(UserError, match=r"6 of 30 records cannot be read .*q10: does not decode"):
        build(VqaRad, source, tmp_path / "a")
    monkeypatch.setattr(VqaRad, "MAX_BAD_RATE", 0.5)
    built = build(VqaRad, source, tmp_path / "b")
    assert metadata_of(built)["quarantine"]["count"] == 6
    assert len(collected(built)) == 24


# -------------------------------------------------------------------------------- SLAKE


def slake_source(folder: Path, validation: str = "validate.json") -> Path:
    rows = collections.defaultdict(list)
    for i in range(NUM_PICTURES):
        write(folder / f"imgs/xmlab{i}/source.jpg", picture(i))
        split = ("train.json", validation, "test.json")[max(0, i - 7)]
        for k, language in enumerate(("en", "en", "zh")):
            rows[split].append(
                {
                    "img_id": i,
                    "img_name": f"xmlab{i}/source.jpg",
                    "question": f"{language} {k} about {i}?",
                    "answer": ("Yes", "Left Lung", "肺")[k],
                    "q_lang": language,
                    "location": "Lung",
                    "modality": ("X-Ray", "MRI", "CT")[i % 3],
                    "answer_type": ("CLOSED", "OPEN", "OPEN")[k],
                    "base_type": "vqa",
                    "content_type": "Organ",
                    "triple": ["vhead", "_", "_"],
                    "qid": 10 * i + k,
                }
            )
    for name, part in rows.items():
        (folder / name).write_text(json.dumps(part, ensure_ascii=False), "utf-8")
    return folder


@pytest.mark.parametrize(("config", "per_picture"), [("en", 2), ("zh", 1), ("both", 3)])
def test_slake_by_language_with_its_split(tmp_path, config, per_picture):
    name = "validation.json" if config == "zh" else "validate.json"
    built = build(Slake, slake_source(tmp_path / "s", name), tmp_path / "d", config)
    found = collected(built)
    assert len(found) == per_picture * NUM_PICTURES
    for sample, (split, record) in found.items():
        stated, qid = sample.split("/")
        i, k = divmod(int(qid), 10)
        assert split == stated == ("train", "validation", "test")[max(0, i - 7)]
        assert record["xray" if i % 3 == 0 else "mri"]["encoded"] == picture(i)
        assert record["answer"]["text"].decode() == ("yes", "Left Lung", "肺")[k]
        assert candidates(record) == (["yes", "no"] if k == 0 else [])
    left_out = metadata_of(built)["left_out"]
    assert sum(left_out.values()) == (3 - per_picture) * NUM_PICTURES


def test_slake_refuses_a_picture_of_two_splits_and_a_missing_file(tmp_path):
    source = slake_source(tmp_path / "s")
    path = source / "test.json"
    text = path.read_text("utf-8")
    path.write_text(text.replace("xmlab9/", "xmlab0/", 1), "utf-8")
    with pytest.raises(UserError, match="more than one split: xmlab0/source.jpg in test and train"):
        build(Slake, source, tmp_path / "a")
    (source / "validate.json").unlink()
    with pytest.raises(UserError, match="has no validate.json or validation.json"):
        build(Slake, source, tmp_path / "b")


# ------------------------------------------------------------------------------ PMC-VQA

CHOICES = ("Focal", "Diffuse", "None", "Cannot be told")


def pmc_source(folder: Path, edition: int) -> Path:
    """Version 1 has the answer and its letter, version 2 the letter alone; two figures a paper."""
    images = folder / ("images" if edition == 1 else "images_2")
    for i in range(NUM_PICTURES):
        write(images / f"PMC{i // 2}_F{i}.jpg", picture(i))
    header = ["Figure_path", "Question", "Answer", *(f"Choice {c}" for c in "ABCD")]
    for split, pictures in (("train", range(8)), ("test", range(8, NUM_PICTURES))):
        path = folder / (f"{split}.csv" if edition == 1 else f"{split}_2.csv")
        with path.open("w", newline="") as lines:
            rows = csv.writer(lines)
            rows.writerow(header + (["Answer_label"] if edition == 1 else []))
            for i in pictures:
                given = [f" {c}:{text}" for c, text in zip("ABCD", CHOICES, strict=True)]
                right = "ABCD"[i % 4]
                answer = CHOICES[i % 4] if edition == 1 else right
                row = [f"PMC{i // 2}_F{i}.jpg", f"What, in {i}?", answer, *given]
                rows.writerow(row + ([right] if edition == 1 else []))
    return folder


@pytest.mark.parametrize("edition", [1, 2])
def test_pmc_vqa_by_article(tmp_path, edition):
    built = build(PmcVqa, pmc_source(tmp_path / "s", edition), tmp_path / "d", f"v{edition}")
    found = collected(built)
    assert len(found) == NUM_PICTURES
    for sample, (_, record) in found.items():
        part, number = sample.split("/")
        i = int(number) + (8 if part == "test" else 0)
        assert list(record["pathology"]["tiles"]) == [picture(i)]
        assert record["group_id"].decode() == f"PMC{i // 2}"
        assert candidates(record) == list(CHOICES)
        assert record["answer"]["text"].decode() == CHOICES[i % 4]


def test_pmc_vqa_official_and_its_mistakes(tmp_path):
    source = pmc_source(tmp_path / "s", 1)
    found = collected(build(PmcVqa, source, tmp_path / "a", "v1_official"))
    assert {name for name, (split, _) in found.items() if split == "test"} == {"test/0", "test/1"}
    path = source / "train.csv"
    path.write_text(path.read_text().replace("Choice C", "Choice E"))
    with pytest.raises(UserError, match="no column 'choice c'; it has: figure_path, question"):
        build(PmcVqa, source, tmp_path / "b", "v1")
    with pytest.raises(UserError, match="no folder 'images_2'"):
        (source / "images").rename(source / "pictures")
        build(PmcVqa, source, tmp_path / "c", "v2")


def test_pmc_vqa_puts_rows_aside_that_have_no_right_choice(tmp_path):
    source = pmc_source(tmp_path / "s", 1)
    path = source / "train.csv"
    path.write_text(path.read_text().replace(" B:Diffuse", " B:Focal", 1))
    with pytest.raises(UserError, match="1 of 10 records .*train/0: has choices that are empty or"):
        build(PmcVqa, source, tmp_path / "d", "v1")


# ------------------------------------------------------------------------------ PathVQA


def path_source(folder: Path) -> Path:
    """Two questions about each picture, closed and open; the train part in two files."""
    (folder / "data").mkdir(parents=True)
    for split, pictures in {
        "train-00000-of-00002": range(4),
        "train-00001-of-00002": range(4, 6),
        "validation-00000-of-00001": range(6, 8),
        "test-00000-of-00001": range(8, NUM_PICTURES),
    }.items():
        rows = [(i, k) for i in pictures for k in range(2)]
        table = pa.table(
            {
                "image": [{"bytes": picture(i), "path": None} for i, _ in rows],
                "question": [f"{'is' if k else 'what'} it, {i}?" for i, k in rows],
                "answer": [("keloid", "Yes")[k] for _, k in rows],
            }
        )
        pq.write_table(table, folder / f"data/{split}.parquet")
    return folder


@pytest.mark.parametrize("config", ["pictures", "official"])
def test_path_vqa(tmp_path, config):
    built = build(PathVqa, path_source(tmp_path / "s"), tmp_path / "d", config)
    found = collected(built)
    assert len(found) == 2 * NUM_PICTURES
    first = {"train": 0, "validation": 6, "test": 8}
    for sample, (split, record) in found.items():
        part, number = sample.split("/")
        i, k = divmod(int(number), 2)
        assert list(record["pathology"]["tiles"]) == [picture(first[part] + i)]
        assert record["answer"]["text"].decode() == ("keloid", "yes")[k]
        assert candidates(record) == ([], ["yes", "no"])[k]
        assert record["question_type"] == (b"open", b"closed")[k]
        if config == "official":
            assert split == part
    assert len({record["group_id"] for _, record in found.values()}) == NUM_PICTURES


def test_path_vqa_refuses_a_leak_and_damaged_files(tmp_path):
    source = path_source(tmp_path / "s")
    test = source / "data/test-00000-of-00001.parquet"
    rows = pq.read_table(test).to_pylist()
    rows[0]["image"]["bytes"] = picture(0)
    pq.write_table(pa.Table.from_pylist(rows), test)
    with pytest.raises(UserError, match="1 group.* more than one split: .* in test and train"):
        build(PathVqa, source, tmp_path / "a", "official")
    pq.write_table(pa.table({"image": [1], "question": ["a"]}), test)
    with pytest.raises(UserError, match="has no column 'answer'; it has: image, question"):
        build(PathVqa, source, tmp_path / "b", "official")
    test.write_bytes(b"PAR1 cut short")
    with pytest.raises(UserError, match=r"test-00000-of-00001.parquet is damaged"):
        build(PathVqa, source, tmp_path / "c", "official")
    test.unlink()
    with pytest.raises(UserError, match=r"has no test-\*.parquet"):
        build(PathVqa, source, tmp_path / "d", "official")
