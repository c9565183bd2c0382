"""Retinal photographs with a grade of diabetic retinopathy: what their sources share."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from tfds_builders.core.features import image_features
from tfds_builders.core.picture_records import late_record, picture
from tfds_builders.core.records import SourceRecord

# Source: Wilkinson et al., "Proposed international clinical diabetic retinopathy and diabetic
# macular edema disease severity scales", Ophthalmology 110(9), 2003.
GRADES = ("none", "mild", "moderate", "severe", "proliferative")


class GradedPhotographs:
    """What a builder of graded photographs writes; to be named before `MedicalBuilder`."""

    def record_features(self) -> dict[str, Any]:
        """One photograph."""
        return {"oct": image_features()}

    def class_names(self) -> dict[str, tuple[str, ...]]:
        """The grades in order."""
        return {"retinopathy": GRADES}


def photograph(
    path: Path, sample_id: str, group_id: str, grade: int, official_split: str | None = None
) -> SourceRecord:
    """The record of one photograph."""
    return late_record(
        "oct",
        functools.partial(picture, path),
        sample_id=sample_id,
        group_id=group_id,
        targets={"retinopathy": grade},
        stratum=GRADES[grade],
        official_split=official_split,
    )
