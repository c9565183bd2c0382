"""Builder of ieee8023/covid-chestxray-dataset: `metadata.csv` and `images/`."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from multimed_jax.types import UserError
from tfds_builders.core.base import MedicalBuilder, age_years
from tfds_builders.core.features import image_features, text_features
from tfds_builders.core.picture_records import film, late_record
from tfds_builders.core.quarantine import Quarantine
from tfds_builders.core.records import Datasheet, SourceCard, SourceRecord
from tfds_builders.core.tables import read_csv
from tfds_builders.core.tally import Counts
from tfds_builders.covid_chestxray.notes import RULE_PROVENANCE, mask_note, note_rule

# Names are compared in lower case without surrounding blanks: early versions of the table have
# `Patientid` and ` url`, later ones `patientid` and `clinical_notes`.
COLUMNS = ("patientid", "finding", "modality", "filename")
_NOTES = ("clinical notes", "clinical_notes")
_UNLABELLED = ("", "todo", "unknown")
SEXES = {"f": "female", "m": "male"}


def finding_class(finding: str) -> str:
    """The class of a finding: the last part of a path, the first of several findings."""
    return finding.split(",")[0].split("/")[-1].strip()


class Builder(MedicalBuilder):
    """Chest X-rays with masked clinical notes."""

    VERSION = tfds.core.Version("1.0.0")
    CARD = SourceCard(
        name="covid_chestxray",
        title="COVID-19 image data collection: chest X-rays with clinical notes",
        namespace="covid_chestxray",
        modalities=("xray", "text"),
        tasks=("disease",),
        publisher="Joseph Paul Cohen and others (GitHub ieee8023/covid-chestxray-dataset)",
        homepage="https://github.com/ieee8023/covid-chestxray-dataset",
        licence="per image, in each record's `licence`",
        licence_forbids="Commercial use of most images; redistribution of the ND images in "
        "changed form.",
        how_to_obtain="clone github.com/ieee8023/covid-chestxray-dataset; --manual_dir is the "
        "folder that holds metadata.csv and images",
        citation="Cohen, J. P., Morrison, P. and Dao, L. COVID-19 Image Data Collection. "
        "arXiv:2003.11597, 2020",
        group_key="patient (column patientid)",
        unit="image",
        size="not known",
    )
    DATASHEET = Datasheet(
        collection="Taken from publications and case archives by the publishers, one row per "
        "image.",
        labels="The diagnosis of each publication; how it was made differs from case to case.",
        personal_data="Sex, age and place of the case as published; attributions in the column "
        "`other notes` are not read.",
        consent="Unknown: it rests with the publications the images were taken from.",
        patients_separable="Yes, by the column patientid.",
        known_biases="Finding and publication are confounded, there is hardly a normal film, and "
        "many notes name the finding, which is masked here.",
        intended_use="Testing of image-and-text pipelines.",
        unsuitable_use="Judging a model, claims about fusion of image and text, any clinical use.",
    )
    EXPECTED_LAYOUT = "metadata.csv and images/*.{jpg,jpeg,png}"
    ON_DUPLICATES = "merge_groups"

    def __init__(self, **kwargs: Any) -> None:
        """The classes become known while the source is walked."""
        self._classes: tuple[str, ...] = ()
        super().__init__(**kwargs)

    def record_features(self) -> dict[str, Any]:
        """A film, its masked note and what the table says of the patient."""
        return {
            "xray": image_features(),
            "text": text_features(),
            "sex": tfds.features.Text(),
            "age_years": tfds.features.Scalar(np.float32),
            "site": tfds.features.Text(),
            "licence": tfds.features.Text(),
        }

    def class_names(self) -> dict[str, tuple[str, ...]]:
        """The findings of the table's X-ray rows; known once the source is read."""
        return {"disease": self._classes}

    def read_source(self, manual_dir: Path, quarantine: Quarantine) -> Iterator[SourceRecord]:
        """Yields the X-ray rows in the order of the table."""
        table = manual_dir / "metadata.csv"
        images = manual_dir / "images"
        rows = read_csv(table, COLUMNS)
        note_column = next((name for name in _NOTES if rows and name in rows[0]), None)
        if rows and note_column is None:
            raise UserError(f"the file {table} has no column {' or '.join(map(repr, _NOTES))}")
        if not images.is_dir():
            raise UserError(f"the folder {images} does not exist; expected {self.EXPECTED_LAYOUT}")
        taken = [row for row in rows if count_left_out(row, quarantine) is None]
        self._classes = tuple(sorted({finding_class(row["finding"]) for row in taken}))
        findings = {row["finding"] for row in taken}
        for row in taken:
            finding = finding_class(row["finding"])
            yield late_record(
                "xray",
                functools.partial(film, images / Path(row["filename"]).name),
                sample_id=row["filename"],
                group_id=f"patient{row['patientid'].strip()}",
                targets={"disease": self._classes.index(finding)},
                stratum=finding,
                more={
                    "text": {"text": mask_note(row[str(note_column)], findings)},
                    "sex": sex(row),
                    "age_years": age_years(number(cell(row, "age"))),
                    "site": cell(row, "location"),
                    "licence": cell(row, "license"),
                },
            )

    def statistics(self) -> Counts:
        """Where the keyword rule is right on the masked note, by split."""
        return Counts(functools.partial(_score, self._classes))

    def extra_metadata(self) -> dict[str, Any]:
        """What the masked notes can give away to a keyword rule, and how the rule came about."""
        hits = self.written.counts
        return {
            "reference_rules": {
                "disease": {
                    "name": "keyword rule, fitted to all notes",
                    "provenance": RULE_PROVENANCE,
                    "accuracy": {split: n["right"] / n.total() for split, n in hits.items()},
                    "n": {split: n.total() for split, n in hits.items()},
                }
            }
        }


def _score(classes: tuple[str, ...], split: str, record: Mapping[str, Any]) -> tuple[str, str]:
    label = classes[record["targets"]["disease"]]
    return split, "right" if note_rule(record["text"]["text"]) == label else "wrong"


def count_left_out(row: Mapping[str, str], quarantine: Quarantine) -> str | None:
    """Why a row is not taken, counted; None where it is."""
    modality = row["modality"].strip()
    reason = None
    if modality.casefold() not in ("x-ray", "xray"):
        reason = f"{modality or 'no'} modality, not X-ray"
    elif row["finding"].strip().casefold() in _UNLABELLED:
        reason = "row without a finding"
    elif not row["patientid"].strip():
        reason = "row without a patient"
    if reason is not None:
        quarantine.leave_out(reason)
    return reason


def cell(row: Mapping[str, str], column: str) -> str:
    """An optional column's value, empty where the version of the table lacks it."""
    return row[column].strip() if column in row else ""


def sex(row: Mapping[str, str]) -> str:
    """Female, male, or empty where the column has neither F nor M."""
    key = cell(row, "sex").casefold()
    return SEXES[key] if key in SEXES else ""


def number(text: str) -> float | None:
    """A finite number, None for anything else."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
