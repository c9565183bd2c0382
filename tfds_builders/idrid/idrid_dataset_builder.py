"""Builder of IDRiD's part B, disease grading: two tables and two folders of photographs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import tensorflow_datasets as tfds

from tfds_builders.core.graded_photographs import GradedPhotographs, photograph
from tfds_builders.core.listings import file_named, first_there, one_of
from tfds_builders.core.official_splits import OfficialSplitBuilder
from tfds_builders.core.quarantine import Quarantine
from tfds_builders.core.records import Datasheet, SourceCard, SourceRecord
from tfds_builders.core.tables import read_csv

_SIDES = (
    ("train", "a. IDRiD_Disease Grading_Training Labels.csv", "a. Training Set"),
    ("test", "b. IDRiD_Disease Grading_Testing Labels.csv", "b. Testing Set"),
)


class Builder(GradedPhotographs, OfficialSplitBuilder):
    """Fundus photographs with the severity of diabetic retinopathy, of one clinic."""

    VERSION = tfds.core.Version("1.0.0")
    CARD = SourceCard(
        name="idrid",
        title="IDRiD: fundus photographs graded for diabetic retinopathy",
        namespace="idrid",
        modalities=("oct",),
        tasks=("retinopathy",),
        publisher="Porwal, Pachade, Kamble and others (IEEE DataPort)",
        homepage="https://ieee-dataport.org/open-access/indian-diabetic-retinopathy-image-dataset-idrid",
        licence="CC BY 4.0",
        licence_forbids="Use without naming the authors.",
        how_to_obtain="IEEE DataPort, Indian Diabetic Retinopathy Image Dataset, B. Disease "
        "Grading.zip; --manual_dir is the folder that holds B. Disease Grading",
        citation="Porwal, P. et al. Indian Diabetic Retinopathy Image Dataset (IDRiD): A Database "
        "for Diabetic Retinopathy Screening Research. Data 3(3), 25 (2018). "
        "doi:10.3390/data3030025",
        group_key="photograph (the source names no patient); equal files share one group",
        unit="image",
        size="516 photographs",
    )
    DATASHEET = Datasheet(
        collection="Photographs of an eye clinic in Nanded, India, from 2009 to 2017, all with one "
        "camera (4,288 x 2,848 pixels, 50 degrees).",
        labels="Graded by two specialists by the international scale, 0 to 4; the risk of macular "
        "oedema is not read.",
        personal_data="None: running numbers without any field of a patient.",
        consent="Described in the paper: collected in routine care, published without identity.",
        patients_separable="No, patients are not named.",
        known_biases="One clinic and one camera; grade 1 is rare.",
        intended_use="Development and testing of grading of photographs.",
        unsuitable_use="Screening or any clinical use; claims on other cameras or populations.",
    )
    EXPECTED_LAYOUT = (
        "B. Disease Grading/{1. Original Images/{a. Training Set,b. Testing Set}/IDRiD_<n>.jpg, "
        "2. Groundtruths/{a. IDRiD_Disease Grading_Training Labels.csv,"
        "b. IDRiD_Disease Grading_Testing Labels.csv}}"
    )

    def read_source(self, manual_dir: Path, quarantine: Quarantine) -> Iterator[SourceRecord]:
        """Yields the photographs in the order of the tables, training first."""
        nested = manual_dir / "B. Disease Grading"
        root = nested if nested.is_dir() else manual_dir
        for split, table_name, folder in _SIDES:
            table = root / "2. Groundtruths" / table_name
            rows = read_csv(table, ("image name", "retinopathy grade"))
            images = first_there([root / "1. Original Images" / folder], self.EXPECTED_LAYOUT)
            for row in rows:
                name = row["image name"].strip()
                if not name:
                    continue  # the published tables end in rows of commas
                # Numbers start anew in the test folder.
                sample = f"{split}/{name}"
                grade = one_of(row["retinopathy grade"], list("01234"), "retinopathy grade", table)
                path = file_named(images, f"{name}.jpg", table)
                yield photograph(path, sample, f"eye-{sample}", grade, split)
