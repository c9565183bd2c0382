"""Films with findings and a person: what their sources share."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from tfds_builders.core.features import image_features
from tfds_builders.core.targets import TargetKind


class FilmFindings:
    """What a builder of such films writes; to be named before `MedicalBuilder`.

    Attributes:
        LABELS: names of the findings in order.
    """

    LABELS: ClassVar[tuple[str, ...]]

    def record_features(self) -> dict[str, Any]:
        """A film, and the sex and age of the patient where they are known."""
        return {
            "xray": image_features(),
            "sex": tfds.features.Text(),
            "age_years": tfds.features.Scalar(np.float32),
        }

    def target_kinds(self) -> dict[str, TargetKind]:
        """Findings, present or absent."""
        return {"radiographic": "labels"}

    def class_names(self) -> dict[str, tuple[str, ...]]:
        """The findings."""
        return {"radiographic": self.LABELS}
