"""Builder of ODIR-5K fundus photographs: `full_df.csv` and `preprocessed_images/`."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from multimed_jax.types import UserError
from tfds_builders.core.base import MedicalBuilder, age_years
from tfds_builders.core.features import image_features
from tfds_builders.core.images import read_image
from tfds_builders.core.quarantine import Quarantine
from tfds_builders.core.records import (
    AuditKey,
    Datasheet,
    SourceCard,
    SourceRecord,
    bytes_audit,
)
from tfds_builders.core.tables import read_csv

_TABLE = "full_df.csv"
_IMAGES = "preprocessed_images"
# Names are compared in lower case, see `core.tables`.
_COLUMNS = (
    "id",
    "patient age",
    "patient sex",
    "left-diagnostic keywords",
    "right-diagnostic keywords",
    "labels",
    "filename",
)
_FILE = re.compile(r"(?P<patient>\d+)_(?P<side>left|right)\.jpe?g", re.ASCII | re.IGNORECASE)

# The letters of the column `labels`. Source: ODIR-2019 challenge, description of the data.
LABELS = {
    "N": "normal",
    "D": "diabetes",
    "G": "glaucoma",
    "C": "cataract",
    "A": "age-related macular degeneration",
    "H": "hypertension",
    "M": "myopia",
    "O": "other",
}
GRADES = ("none", "mild", "moderate", "severe", "proliferative")
# Key words without blanks and hyphens -> grade of the international clinical scale; "suspected"
# and "diabetic retinopathy" alone give none. Source of the scale: Wilkinson et al., Ophthalmology
# 110(9), 2003.
_GRADE_OF = {
    "normalfundus": 0,
    "mildnonproliferativeretinopathy": 1,
    "moderatenonproliferativeretinopathy": 2,
    "severenonproliferativeretinopathy": 3,
    "proliferativediabeticretinopathy": 4,
    "severeproliferativediabeticretinopathy": 4,
}


def severity(keywords: str) -> int:
    """The grade of retinopathy that the key words of one eye name, the highest of several.

    Args:
        keywords: of one eye, separated by a full-width comma.

    Returns:
        0 to 4, or -1 where no key word is a grade, such as "cataract" alone.
    """
    words = (re.sub(r"[\s-]+", "", word).casefold() for word in re.split("[\uff0c,]", keywords))
    return max((_GRADE_OF[word] for word in words if word in _GRADE_OF), default=-1)


class Builder(MedicalBuilder):
    """Fundus photographs: severity of diabetic retinopathy and one of eight labels by eye."""

    VERSION = tfds.core.Version("1.0.0")
    CARD = SourceCard(
        name="odir5k",
        title="ODIR-5K: colour fundus photographs with key words by eye",
        namespace="odir5k",
        modalities=("oct",),
        tasks=("retinopathy", "disease"),
        publisher="Peking University, ODIR-2019 challenge; images by Shanggong Medical Technology",
        homepage="https://odir2019.grand-challenge.org",
        licence="not stated",
        licence_forbids="Redistribution, as long as no terms are known; see the Kaggle page.",
        how_to_obtain="Kaggle andrewmvd/ocular-disease-recognition-odir5k; --manual_dir is the "
        "folder that holds full_df.csv and preprocessed_images",
        citation="Peking University International Competition on Ocular Disease Intelligent "
        "Recognition (ODIR-2019)",
        group_key="patient (column ID), both eyes together",
        unit="image",
        size="6,392 photographs of 3,358 patients",
    )
    DATASHEET = Datasheet(
        collection="Both eyes of patients of hospitals and medical centres in China, taken with "
        "cameras of several makers; here as cropped and scaled to 512 x 512 pixels for Kaggle.",
        labels="Key words by trained readers under quality control; the label by eye and the "
        "grade of retinopathy follow from them.",
        personal_data="Age and sex as published; no names. The notebook's path is not read.",
        consent="Unknown: not stated with the published copies.",
        patients_separable="Yes, by the column ID.",
        known_biases="Camera and clinic are not recorded and show in colour and border; eyes "
        "graded 0 are those called normal, so other disease is missing among them.",
        intended_use="Development and testing of classification and grading of photographs.",
        unsuitable_use="Screening or any clinical use; claims on other cameras or populations.",
    )
    EXPECTED_LAYOUT = "full_df.csv and preprocessed_images/<ID>_<left|right>.jpg"
    # One photograph under two ids is one patient.
    ON_DUPLICATES = "merge_groups"

    def record_features(self) -> dict[str, Any]:
        """A photograph of one eye, age and sex."""
        return {
            "oct": image_features(),
            "sex": tfds.features.Text(),
            "age_years": tfds.features.Scalar(np.float32),
        }

    def class_names(self) -> dict[str, tuple[str, ...]]:
        """Grades in order, labels in the order of the source's columns."""
        return {"retinopathy": GRADES, "disease": tuple(LABELS.values())}

    def read_source(self, manual_dir: Path, quarantine: Quarantine) -> Iterator[SourceRecord]:
        """Yields the photographs in the order of the table."""
        table = manual_dir / _TABLE
        rows = read_csv(table, _COLUMNS)
        images = manual_dir / _IMAGES
        if not images.is_dir():
            raise UserError(
                f"the folder {images} does not exist; expected layout: {self.EXPECTED_LAYOUT}"
            )
        for row in rows:
            name = row["filename"].strip()
            match = _FILE.fullmatch(name)
            patient = row["id"].strip()
            if match is None or match["patient"] != patient:
                raise UserError(
                    f"the file {table} has the filename {name!r} beside the ID {patient!r}; "
                    "expected <ID>_<left|right>.jpg"
                )
            label = _label(row["labels"], table)
            grade = severity(row[f"{match['side'].lower()}-diagnostic keywords"])
            yield SourceRecord(
                sample_id=name,
                group_id=f"patient{patient}",
                record=functools.partial(_record, images / name, _person(row, table), grade, label),
                stratum=f"{grade}",
                audit=functools.partial(_audit, images / name),
            )


def _record(path: Path, person: Mapping[str, Any], grade: int, label: int) -> dict[str, Any]:
    return {
        "oct": read_image(path).value(),
        **person,
        "targets": {"retinopathy": grade, "disease": label},
    }


def _audit(path: Path) -> AuditKey:
    """Exact copies only: all of these photographs are bright discs.

    On 390 of them the four pairs that look alike to `core.audit` all show different eyes.
    """
    return bytes_audit(read_image(path).encoded)


def _label(text: str, table: Path) -> int:
    """Index of the letter in a cell such as "['D']"."""
    match = re.fullmatch(r"\[?\s*['\"]?(\w)['\"]?\s*\]?", text.strip(), re.ASCII)
    if match is None or match[1] not in LABELS:
        raise UserError(
            f"the file {table} has the labels {text!r}; accepted: one letter in the form ['N'], "
            f"of {', '.join(LABELS)}"
        )
    return list(LABELS).index(match[1])


def _person(row: Mapping[str, str], table: Path) -> dict[str, Any]:
    sex = row["patient sex"].strip().lower()
    if sex not in ("female", "male", ""):
        raise UserError(
            f"the file {table} has the sex {row['patient sex']!r}; accepted: Female, Male or empty"
        )
    age = row["patient age"].strip()
    if age and not age.isdecimal():
        raise UserError(f"the file {table} has the age {age!r}; accepted: whole years or empty")
    return {"sex": sex, "age_years": age_years(float(age) if age else None)}
