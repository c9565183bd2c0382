"""Builder of templated questions about ieee8023/covid-chestxray-dataset."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from multimed_jax.types import UserError
from tfds_builders.core.base import MedicalBuilder, age_years
from tfds_builders.core.features import answer_features, image_features, text_features
from tfds_builders.core.images import ImageFile, read_image
from tfds_builders.core.quarantine import Quarantine
from tfds_builders.core.records import Datasheet, SourceCard, SourceRecord, UnreadableRecord
from tfds_builders.core.splits import assign_splits
from tfds_builders.core.tables import read_csv
from tfds_builders.core.tally import Counts
from tfds_builders.covid_chestxray.covid_chestxray_dataset_builder import (
    COLUMNS,
    cell,
    count_left_out,
    finding_class,
    number,
    sex,
)
from tfds_builders.covid_vqa.questions import make_questions


class Builder(MedicalBuilder):
    """Chest X-rays with closed and open questions."""

    VERSION = tfds.core.Version("1.0.0")
    CARD = SourceCard(
        name="covid_vqa",
        title="Templated questions about the films of the COVID-19 image data collection",
        namespace="covid_chestxray",
        modalities=("xray", "text"),
        tasks=("vqa",),
        publisher="Joseph Paul Cohen and others (GitHub ieee8023/covid-chestxray-dataset); the "
        "questions are made here",
        homepage="https://github.com/ieee8023/covid-chestxray-dataset",
        licence="per image, in each record's `licence`",
        licence_forbids="Commercial use of most images; redistribution of the ND images in "
        "changed form.",
        how_to_obtain="clone github.com/ieee8023/covid-chestxray-dataset; --manual_dir is the "
        "folder that holds metadata.csv and images",
        citation="Cohen, J. P., Morrison, P. and Dao, L. COVID-19 Image Data Collection. "
        "arXiv:2003.11597, 2020",
        group_key="patient (column patientid)",
        unit="question",
        size="not known",
    )
    DATASHEET = Datasheet(
        collection="Films and table as published; up to seven questions per film are written from "
        "the columns view, finding, sex and age by fixed templates.",
        labels="The cells of the table; no physician asked or answered a question.",
        personal_data="Sex and age of the case as published; notes and attributions are not read.",
        consent="Unknown: it rests with the publications the images were taken from.",
        patients_separable="Yes, by the column patientid.",
        known_biases="Most films are posteroanterior and most findings COVID-19, so the most "
        "frequent answer of a template scores high; annotations are burnt into some films.",
        intended_use="Testing of image-and-question pipelines.",
        unsuitable_use="Judging a model's understanding of language or films, any clinical use.",
    )
    EXPECTED_LAYOUT = "metadata.csv and images/*.{jpg,jpeg,png}"
    # The split of covid_chestxray, found per film, is handed on; see `read_source`.
    SPLIT_MODE = "official"

    def record_features(self) -> dict[str, Any]:
        """A film, a question and its answer."""
        return {
            "xray": image_features(),
            "text": text_features(),
            "answer": answer_features(),
            "question_type": tfds.features.Text(),
            "sex": tfds.features.Text(),
            "age_years": tfds.features.Scalar(np.float32),
            "licence": tfds.features.Text(),
        }

    def target_kinds(self) -> dict[str, Any]:
        """The answer stands in the record."""
        return {"vqa": "answer"}

    def class_names(self) -> dict[str, tuple[str, ...]]:
        """Answers are text."""
        return {"vqa": ()}

    def statistics(self) -> Counts:
        """The answers of each template, by split."""
        return Counts(_template_answer)

    def extra_metadata(self) -> dict[str, Any]:
        """How often each answer of a template is right: what guessing from the question gives."""
        return {
            "split_mode": "group",
            "questions": "templated from the table's columns",
            "answer_counts": {
                key: dict(sorted(counts.items())) for key, counts in self.written.counts.items()
            },
        }

    def read_source(self, manual_dir: Path, quarantine: Quarantine) -> Iterator[SourceRecord]:
        """Yields the questions of each X-ray row in the order of the table.

        A film's split is the one that covid_chestxray gives its patient, so that both datasets can
        be used in one run.
        """
        table, images = manual_dir / "metadata.csv", manual_dir / "images"
        rows = read_csv(table, COLUMNS)
        if rows and "view" not in rows[0]:
            raise UserError(f"the file {table} has no column 'view'")
        if not images.is_dir():
            raise UserError(f"the folder {images} does not exist; expected {self.EXPECTED_LAYOUT}")
        films: list[tuple[dict[str, str], ImageFile]] = []
        for row in rows:
            if count_left_out(row, quarantine) is not None:
                continue
            try:
                films.append((row, read_image(images / Path(row["filename"]).name)))
            except UnreadableRecord as error:
                quarantine.add(row["filename"], str(error))
        patients = [f"patient{row['patientid'].strip()}" for row, _ in films]
        findings = [finding_class(row["finding"]) for row, _ in films]
        nothing = [None] * len(films)
        splits = assign_splits(
            patients, findings, nothing, nothing, "group", self.CARD.namespace
        ).splits
        for (row, image), patient, split in zip(films, patients, splits, strict=True):
            yield from _questions(row, image, patient, split, quarantine)


def _template_answer(split: str, record: Mapping[str, Any]) -> tuple[str, str]:
    return f"{split}/{record['question_type']}", record["answer"]["text"]


def _questions(
    row: Mapping[str, str], image: ImageFile, patient: str, split: str, quarantine: Quarantine
) -> Iterator[SourceRecord]:
    age = number(cell(row, "age"))
    asked = list(make_questions(cell(row, "view"), finding_class(row["finding"]), sex(row), age))
    if not asked:
        quarantine.leave_out("film whose row answers no question")
    for place, question in enumerate(asked):
        yield SourceRecord(
            sample_id=f"{row['filename']}#{question.name}",
            group_id=patient,
            record={
                "xray": image.value(),
                "text": {"text": question.text},
                "answer": {"text": question.answer, "candidates": list(question.candidates)},
                "question_type": question.name,
                "sex": sex(row),
                "age_years": age_years(age),
                "licence": cell(row, "license"),
                "targets": {},
            },
            stratum=finding_class(row["finding"]),
            official_split=split,
            # The questions of a film share it by design; films are compared with each other.
            audit=image.audit if place == 0 else None,
        )
