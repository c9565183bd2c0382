"""Builder of the EyePACS photographs: label tables and the folders `train` and `test`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import tensorflow_datasets as tfds

from multimed_jax.types import UserError
from tfds_builders.core.graded_photographs import GradedPhotographs, photograph
from tfds_builders.core.listings import first_there, one_of
from tfds_builders.core.official_splits import OfficialSplitBuilder
from tfds_builders.core.quarantine import Quarantine
from tfds_builders.core.records import Datasheet, SourceCard, SourceRecord
from tfds_builders.core.tables import read_csv

_TRAIN, _TEST = "trainLabels.csv", "retinopathy_solution.csv"
_NAME = re.compile(r"(?P<patient>\d+)_(?:left|right)", re.ASCII)
_USAGES = ("Public", "Private")


class Builder(GradedPhotographs, OfficialSplitBuilder):
    """Fundus photographs of both eyes with the severity of diabetic retinopathy."""

    VERSION = tfds.core.Version("1.0.0")
    CARD = SourceCard(
        name="eyepacs",
        title="EyePACS: fundus photographs of both eyes graded for diabetic retinopathy",
        namespace="eyepacs",
        modalities=("oct",),
        tasks=("retinopathy",),
        publisher="EyePACS and California Healthcare Foundation (Kaggle, 2015)",
        homepage="https://www.kaggle.com/competitions/diabetic-retinopathy-detection",
        licence="rules of the Kaggle competition",
        licence_forbids="Redistribution, and any use that the rules of the competition exclude.",
        how_to_obtain="accept the rules of the Kaggle competition diabetic-retinopathy-detection, "
        "download and unpack train, test, trainLabels.csv and, from its discussion of the "
        "results, retinopathy_solution.csv; --manual_dir is the folder that holds them",
        citation="Diabetic Retinopathy Detection, Kaggle, 2015",
        group_key="patient (number before _left or _right), both eyes together",
        unit="image",
        size="88,702 photographs",
        restricted=True,
    )
    DATASHEET = Datasheet(
        collection="Screening photographs uploaded by primary care sites of the EyePACS programme "
        "in the United States, with many cameras.",
        labels="One clinician graded each photograph on the scale of 0 to 4; later readings found "
        "many of the grades wrong.",
        personal_data="None: a running number and the side of the eye.",
        consent="Unknown: not stated with the competition.",
        patients_separable="Yes, by file name.",
        known_biases="Cameras, blur and inverted views differ by site; three in four photographs "
        "have grade 0.",
        intended_use="Development and testing of grading of photographs.",
        unsuitable_use="Screening or any clinical use; claims on other cameras or populations.",
    )
    EXPECTED_LAYOUT = (
        "trainLabels.csv, train/<patient>_<left|right>.jpeg; of the test set (optional in config "
        "original) retinopathy_solution.csv, test/<patient>_<left|right>.jpeg"
    )

    def read_source(self, manual_dir: Path, quarantine: Quarantine) -> Iterator[SourceRecord]:
        """Yields the photographs in the order of the tables, training first."""
        yield from self._side(manual_dir, _TRAIN, "train")
        if self.is_official or (manual_dir / _TEST).is_file():
            yield from self._side(manual_dir, _TEST, "test")

    def _side(self, manual_dir: Path, name: str, side: str) -> Iterator[SourceRecord]:
        table = manual_dir / name
        columns = ("image", "level") if side == "train" else ("image", "level", "usage")
        rows = read_csv(table, columns)
        images = first_there([manual_dir / side], self.EXPECTED_LAYOUT)
        for row in rows:
            stem = row["image"].strip()
            match = _NAME.fullmatch(stem)
            if match is None:
                raise UserError(
                    f"the file {table} has the image {stem!r}; expected <patient>_<left|right>"
                )
            split = "train"
            if side == "test":
                # The ranking that was shown during the competition, and the final one.
                public = one_of(row["usage"], _USAGES, "usage", table) == 0
                split = "validation" if public else "test"
            yield photograph(
                images / f"{stem}.jpeg",
                f"{side}/{stem}",
                f"patient{match['patient']}",
                one_of(row["level"], list("01234"), "level", table),
                split,
            )
