"""Builder of the APTOS 2019 photographs: `train.csv` and `train_images/`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import tensorflow_datasets as tfds

from tfds_builders.core.base import MedicalBuilder
from tfds_builders.core.graded_photographs import GradedPhotographs, photograph
from tfds_builders.core.listings import file_named, first_there, one_of
from tfds_builders.core.quarantine import Quarantine
from tfds_builders.core.records import Datasheet, SourceCard, SourceRecord
from tfds_builders.core.tables import read_csv


class Builder(GradedPhotographs, MedicalBuilder):
    """Fundus photographs with the severity of diabetic retinopathy."""

    VERSION = tfds.core.Version("1.0.0")
    CARD = SourceCard(
        name="aptos",
        title="APTOS 2019: fundus photographs graded for diabetic retinopathy",
        namespace="aptos",
        modalities=("oct",),
        tasks=("retinopathy",),
        publisher="Asia Pacific Tele-Ophthalmology Society; images by Aravind Eye Hospital",
        homepage="https://www.kaggle.com/competitions/aptos2019-blindness-detection",
        licence="rules of the Kaggle competition",
        licence_forbids="Redistribution, and any use that the rules of the competition exclude.",
        how_to_obtain="accept the rules of the Kaggle competition aptos2019-blindness-detection "
        "and download it; --manual_dir is the folder that holds train.csv and train_images",
        citation="APTOS 2019 Blindness Detection, Kaggle, 2019",
        group_key="photograph (the source names no patient); equal files share one group",
        unit="image",
        size="3,662 graded photographs",
        restricted=True,
    )
    DATASHEET = Datasheet(
        collection="Photographs by technicians of Aravind Eye Hospital in rural India, with "
        "several cameras over a long time.",
        labels="One clinician graded each photograph on the scale of 0 to 4; the publishers warn "
        "of noise in images and labels.",
        personal_data="None: random file names without any field of a patient.",
        consent="Unknown: not stated with the competition.",
        patients_separable="No, two eyes or two visits of one patient cannot be told apart.",
        known_biases="Size and crop of a photograph go along with its clinic and so with its "
        "grade: a model can read the camera.",
        intended_use="Development and testing of grading of photographs.",
        unsuitable_use="Screening or any clinical use; claims on other cameras or populations.",
    )
    EXPECTED_LAYOUT = "train.csv and train_images/<id_code>.png"
    ON_DUPLICATES = "merge_groups"

    def read_source(self, manual_dir: Path, quarantine: Quarantine) -> Iterator[SourceRecord]:
        """Yields the photographs in the order of the table; the test images have no grades."""
        table = manual_dir / "train.csv"
        rows = read_csv(table, ("id_code", "diagnosis"))
        images = first_there([manual_dir / "train_images"], self.EXPECTED_LAYOUT)
        for row in rows:
            grade = one_of(row["diagnosis"], list("01234"), "diagnosis", table)
            name = row["id_code"].strip()
            yield photograph(file_named(images, f"{name}.png", table), name, f"eye-{name}", grade)
