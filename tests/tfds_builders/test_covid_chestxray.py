"""COVID chest X-rays: both versions of the table, masked notes, the real subset."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from multimed_jax.types import UserError
from tests.tfds_builders.built import metadata_of
from tests.tfds_builders.images import jpeg, smooth_image, write
from tfds_builders.core.splits import SPLITS
from tfds_builders.covid_chestxray.covid_chestxray_dataset_builder import Builder, finding_class
from tfds_builders.covid_chestxray.notes import MASK, RULE_PROVENANCE, mask_note, note_rule

EARLY = ["Patientid", "sex", "age", "finding", "view", "modality", "location", "filename"]
EARLY += [" url", "license", "clinical notes", "other notes", ""]
LATER = ["patientid", "sex", "age", "finding", "modality", "filename", "folder", "clinical_notes"]


def make_source(folder: Path, header: list[str] = EARLY, **changes: str) -> Path:
    """Eight patients with two films each, one CT row and one row without a finding."""
    rows = []
    for i in range(16):
        covid = i % 4 < 2
        rows.append(
            {
                "patientid": str(i // 2),
                "sex": "F" if i % 2 else "",
                "age": "61" if i % 3 else "",
                "finding": "COVID-19" if covid else "Pneumonia/Bacterial/Streptococcus",
                "modality": "X-ray",
                "location": "Somewhere",
                "filename": f"film{i}.jpg",
                "license": "CC BY",
                "clinical notes": "COVID-19 patient with fever." if covid else "Fever; pneumonia.",
                "other notes": "Courtesy of Dr Example",
            }
        )
    rows.append({**rows[0], "modality": "CT", "filename": "ct.jpg"})
    rows.append({**rows[0], "finding": "todo", "filename": "todo.jpg"})
    rows[2].update(changes)
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(header)
    for row in rows:
        keys = [name.strip().lower().replace("clinical_notes", "clinical notes") for name in header]
        writer.writerow([row[key] if key in row else "" for key in keys])
    write(folder / "metadata.csv", text.getvalue().encode())
    for i in range(16):
        write(folder / "images" / f"film{i}.jpg", jpeg(smooth_image(i)))
    return folder


def build(manual_dir: Path, data_dir: Path):
    builder = Builder(data_dir=data_dir)
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=str(manual_dir))
    )
    return tfds.builder_from_directory(builder.data_dir)


def read(built):
    for split in SPLITS:
        source = built.as_data_source(split)
        for i in range(len(source)):
            yield split, source[i]


@pytest.mark.parametrize("header", [EARLY, LATER])
def test_both_versions_of_the_table(tmp_path, header):
    built = build(make_source(tmp_path / "source", header), tmp_path / "data")
    metadata = metadata_of(built)
    assert metadata["class_names"] == {"disease": ["COVID-19", "Streptococcus"]}
    assert metadata["left_out"] == {"CT modality, not X-ray": 1, "row without a finding": 1}
    records = {r["sample_id"].decode(): (split, r) for split, r in read(built)}
    assert len(records) == 16
    for i in range(16):
        record = records[f"film{i}.jpg"][1]
        assert record["group_id"].decode() == f"patient{i // 2}"
        assert record["targets"]["disease"] == (0 if i % 4 < 2 else 1)
        note = record["text"]["text"].decode()
        assert "COVID" not in note and "pneumonia" not in note and MASK in note
        assert record["sex"] == (b"female" if i % 2 else b"")
        np.testing.assert_equal(record["age_years"], np.float32(61 if i % 3 else np.nan))
        assert (record["site"] == b"Somewhere") == (header is EARLY)


def test_names_of_doctors_are_not_stored(tmp_path):
    built = build(make_source(tmp_path / "source"), tmp_path / "data")
    for path in Path(built.data_dir).iterdir():
        assert b"Dr Example" not in path.read_bytes()


def test_the_rule_is_scored_on_what_is_stored(tmp_path):
    built = build(make_source(tmp_path / "source"), tmp_path / "data")
    names = metadata_of(built)["class_names"]["disease"]
    hits = {split: [] for split in SPLITS}
    for split, record in read(built):
        label = names[record["targets"]["disease"]]
        hits[split].append(note_rule(record["text"]["text"].decode()) == label)
    rule = metadata_of(built)["reference_rules"]["disease"]
    for split in SPLITS:
        assert rule["accuracy"][split] == pytest.approx(np.mean(hits[split]))
        assert rule["n"][split] == len(hits[split])
    assert rule["provenance"] == RULE_PROVENANCE
    assert "not held out" in RULE_PROVENANCE


@pytest.mark.parametrize(
    ("note", "masked"),
    [
        ("Severe COVID-19.", "Severe [finding]."),
        ("covid19 and SARS-CoV-2", "[finding] and [finding]"),
        ("Coronavirus disease 2019 suspected", "[finding] suspected"),
        ("2019-nCoV positive", "[finding] positive"),
        ("acute respiratory distress syndrome (ARDS)", "[finding] ([finding])"),
        ("Streptococcus pneumoniae pneumonia", "[finding] [finding] [finding]"),
        ("pneumocystis jirovecii, PCP", "[finding], [finding]"),
        ("bilateral wards, hazards, sarsaparilla", "bilateral wards, hazards, sarsaparilla"),
        ("no pneumothorax", "no pneumothorax"),
    ],
)
def test_mask_note(note, masked):
    assert mask_note(note) == masked


def test_the_source_s_own_findings_are_masked():
    assert mask_note("Klebsiella in a smoker", ["Pneumonia/Bacterial/Klebsiella"]) == (
        "[finding] in a smoker"
    )
    assert mask_note("No finding of note", ["No Finding"]) == "No finding of note"


def test_finding_class():
    assert finding_class("Pneumonia/Viral/COVID-19") == "COVID-19"
    assert finding_class("COVID-19, ARDS") == "COVID-19"


@pytest.mark.parametrize(
    ("column", "match"),
    [
        ("finding", "no column 'finding'"),
        ("Patientid", "no column 'patientid'"),
        ("clinical notes", "no column 'clinical notes' or 'clinical_notes'"),
    ],
)
def test_a_missing_column(tmp_path, column, match):
    header = [name if name != column else "renamed" for name in EARLY]
    source = make_source(tmp_path / "source", header)
    with pytest.raises(UserError, match=match):
        build(source, tmp_path / "data")


def test_a_missing_folder(tmp_path):
    source = make_source(tmp_path / "source")
    (source / "images").rename(source / "pictures")
    with pytest.raises(UserError, match="images does not exist; expected metadata.csv"):
        build(source, tmp_path / "data")


def test_real_subset(shared_data, tmp_path):
    raw = shared_data / "covid_chestxray_ieee8023"
    built = build(raw, tmp_path / "data")
    with (raw / "metadata.csv").open(newline="") as lines:
        table = {row["filename"]: row for row in csv.DictReader(lines)}
    names = metadata_of(built)["class_names"]["disease"]
    homes, counts = {}, dict.fromkeys(names, 0)
    for split, record in read(built):
        row = table[record["sample_id"].decode()]
        assert row["modality"] == "X-ray"
        assert names[record["targets"]["disease"]] == row["finding"]
        assert record["group_id"].decode() == "patient" + row["Patientid"]
        homes.setdefault(record["group_id"], set()).add(split)
        counts[row["finding"]] += 1
        with Image.open(raw / "images" / row["filename"]) as image:
            assert image.size == (record["xray"]["width"], record["xray"]["height"])
        masked = record["text"]["text"].decode()
        assert not re.search(r"covid|corona|streptoc|\bards\b|pneumocystis", masked, re.I)
    assert counts == {"COVID-19": 18, "Streptococcus": 6, "ARDS": 3, "Pneumocystis": 2}
    assert metadata_of(built)["left_out"] == {"CT modality, not X-ray": 7}
    assert all(len(where) == 1 for where in homes.values())
