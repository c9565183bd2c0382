"""covid_vqa: every question against its cell, one split per patient, missing films, real subset."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import tensorflow_datasets as tfds

from multimed_jax.types import UserError
from tests.tfds_builders.built import metadata_of
from tests.tfds_builders.images import jpeg, smooth_image, write
from tfds_builders.core.splits import SPLITS
from tfds_builders.covid_chestxray.covid_chestxray_dataset_builder import Builder as FilmBuilder
from tfds_builders.covid_vqa.covid_vqa_dataset_builder import Builder
from tfds_builders.covid_vqa.questions import make_questions

HEADER: list[str] = ["patientid", "sex", "age", "finding"]
HEADER += ["view", "modality", "filename", "clinical notes"]


def make_rows() -> list[dict[str, str]]:
    rows = []
    for i in range(16):
        row = {
            "patientid": str(i // 2),
            "sex": ("F", "M", "")[i // 2 % 3],
            "age": ("61", "", "34")[i // 2 % 3],
            "finding": "Pneumonia/Viral/COVID-19" if i % 4 < 2 else "Streptococcus",
            "view": ("PA", "L", "AP Supine", "")[i % 4],
            "modality": "X-ray",
            "filename": f"film{i}.jpg",
            "clinical notes": "Fever.",
        }
        rows.append(row)
    return [*rows, rows[0] | {"modality": "CT", "view": "Axial", "filename": "ct.jpg"}]


def make_source(folder: Path, rows: list[dict[str, str]], header: list[str] = HEADER) -> Path:
    folder.mkdir(parents=True)
    with (folder / "metadata.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, header, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    for i in range(16):
        write(folder / "images" / f"film{i}.jpg", jpeg(smooth_image(i)))
    return folder


def build(manual_dir: Path, data_dir: Path, cls: Any = Builder) -> Any:
    builder = cls(data_dir=data_dir)
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=str(manual_dir))
    )
    return tfds.builder_from_directory(builder.data_dir)


def read(built: Any) -> dict[str, tuple[str, Any]]:
    found = {}
    for split in SPLITS:
        source = built.as_data_source(split)
        for i in range(len(source)):
            found[source[i]["sample_id"].decode()] = (split, source[i])
    return found


VIEW_NAMES = {"PA": "posteroanterior", "L": "lateral", "AP Supine": "supine anteroposterior"}


def expected(row: dict[str, str]) -> dict[str, tuple[str, list[str]]]:
    """Question type -> answer and candidates, straight from the cells."""
    made = {}
    yes_no = ["yes", "no"]
    if row["view"] in VIEW_NAMES:
        made["view_open"] = (VIEW_NAMES[row["view"]], [])
        made["view_posteroanterior"] = ("yes" if row["view"] == "PA" else "no", yes_no)
        made["view_lateral"] = ("yes" if row["view"] == "L" else "no", yes_no)
    made["finding_open"] = (row["finding"].split("/")[-1], [])
    made["finding_covid"] = ("yes" if "COVID-19" in row["finding"] else "no", yes_no)
    if row["sex"]:
        made["sex"] = ({"F": "female", "M": "male"}[row["sex"]], ["female", "male"])
    if row["age"]:
        made["age"] = ("yes" if float(row["age"]) >= 50 else "no", yes_no)
    return made


def check(found: dict[str, tuple[str, Any]], rows: list[dict[str, str]], images: Path) -> None:
    wanted = {
        f"{row['filename']}#{kind}": answer
        for row in rows
        if row["modality"] == "X-ray"
        for kind, answer in expected(row).items()
    }
    assert set(found) == set(wanted)
    for name, (text, candidates) in wanted.items():
        record = found[name][1]
        assert record["answer"]["text"].decode() == text
        assert [option.decode() for option in record["answer"]["candidates"]] == candidates
        assert record["text"]["text"].decode().endswith("?")
        assert record["question_type"].decode() == name.split("#")[1]
        assert record["xray"]["encoded"] == (images / name.split("#")[0]).read_bytes()


def test_every_question_against_its_cell(tmp_path: Path) -> None:
    folder = make_source(tmp_path / "in", make_rows())
    built = build(folder, tmp_path / "out")
    found = read(built)
    check(found, make_rows(), folder / "images")
    metadata = metadata_of(built)
    assert metadata["target_kinds"] == {"vqa": "answer"} and metadata["split_mode"] == "group"
    assert metadata["left_out"] == {"CT modality, not X-ray": 1}
    total = sum(sum(counts.values()) for counts in metadata["answer_counts"].values())
    assert total == len(found)


def test_a_patient_lies_where_the_films_dataset_has_it(tmp_path: Path) -> None:
    folder = make_source(tmp_path / "in", make_rows())
    questions = read(build(folder, tmp_path / "out"))
    films = read(build(folder, tmp_path / "out", FilmBuilder))
    for name, (split, record) in questions.items():
        film_split, film = films[name.split("#")[0]]
        assert (split, record["group_id"]) == (film_split, film["group_id"])
    assert {split for split, _ in questions.values()} == set(SPLITS)


def test_building_twice_gives_the_same(tmp_path: Path) -> None:
    folder = make_source(tmp_path / "in", make_rows())
    first, second = (metadata_of(build(folder, tmp_path / out)) for out in ("a", "b"))
    assert first == second


def test_a_missing_film_is_quarantined_once(tmp_path: Path) -> None:
    folder = make_source(tmp_path / "in", make_rows())
    (folder / "images" / "film5.jpg").unlink()
    built = build(folder, tmp_path / "out")
    quarantine = metadata_of(built)["quarantine"]
    assert quarantine["count"] == 1 and quarantine["items"][0]["sample_id"] == "film5.jpg"
    assert not any(name.startswith("film5.jpg#") for name in read(built))


def test_empty_cells_ask_nothing() -> None:
    assert list(make_questions("", "", "", None)) == []
    assert list(make_questions("Axial", "", "unknown", None)) == []
    names = [q.name for q in make_questions(" ap  supine", "", "female", None)]
    assert names == ["view_open", "view_posteroanterior", "view_lateral", "sex"]


def test_a_table_without_views(tmp_path: Path) -> None:
    header = [name for name in HEADER if name != "view"]
    folder = make_source(tmp_path / "in", make_rows(), header)
    with pytest.raises(UserError, match="no column 'view'"):
        build(folder, tmp_path / "out")


def test_a_source_without_films(tmp_path: Path) -> None:
    folder = make_source(tmp_path / "in", make_rows())
    (folder / "images").rename(folder / "pictures")
    with pytest.raises(UserError, match="images does not exist; expected metadata.csv"):
        build(folder, tmp_path / "out")


def test_real_subset(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "covid_chestxray_ieee8023"
    found = read(build(folder, tmp_path / "out"))
    with (folder / "metadata.csv").open(newline="") as lines:
        rows = [{k.lower(): v for k, v in row.items() if k} for row in csv.DictReader(lines)]
    check(found, rows, folder / "images")
    films = read(build(folder, tmp_path / "out", FilmBuilder))
    assert len({name.split("#")[0] for name in found}) == len(films) == 29
    for name, (split, record) in found.items():
        assert (split, record["group_id"]) == (
            films[name.split("#")[0]][0],
            films[name.split("#")[0]][1]["group_id"],
        )
