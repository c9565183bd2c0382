"""A builder of a made-up source: `<patient>_<n>.jpg` files and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from tfds_builders.core.base import MedicalBuilder
from tfds_builders.core.features import image_features
from tfds_builders.core.images import read_image
from tfds_builders.core.planning import DuplicatePolicy, SplitMode
from tfds_builders.core.quarantine import Quarantine
from tfds_builders.core.records import (
    Datasheet,
    SourceCard,
    SourceItem,
    SourceRecord,
    UnreadableRecord,
)

ANSWER = "Made for a test by the test itself."


class ToySource(MedicalBuilder, skip_registration=True):
    """Files `<split>-<patient>-<n>.jpg`, class by the parity of n."""

    VERSION = tfds.core.Version("1.0.0")
    CARD = SourceCard(
        name="toy_source",
        title="Toy",
        namespace="toy_source",
        modalities=("xray",),
        tasks=("disease",),
        publisher="the tests",
        homepage="https://example.org",
        licence="Apache-2.0",
        licence_forbids="nothing",
        how_to_obtain="made by the test",
        citation="none",
        group_key="patient",
        unit="image",
        size="what the test makes",
    )
    DATASHEET = Datasheet(*[ANSWER] * 8)
    EXPECTED_LAYOUT = "<split>-<patient>-<n>.jpg"
    mode: SplitMode = "group"
    policy: DuplicatePolicy = "fail"

    def split_mode(self) -> SplitMode:
        return self.mode

    def duplicate_policy(self) -> DuplicatePolicy:
        return self.policy

    def record_features(self) -> dict[str, Any]:
        return {"xray": image_features()}

    def class_names(self) -> dict[str, tuple[str, ...]]:
        return {"disease": ("even", "odd")}

    def read_source(self, manual_dir: Path, quarantine: Quarantine) -> Iterator[SourceItem]:
        for path in sorted(manual_dir.glob("*.jpg")):
            official, patient, number = path.stem.split("-")
            try:
                image = read_image(path)
            except UnreadableRecord as error:
                quarantine.add(path.name, str(error))
                continue
            label = int(number) % 2
            yield SourceRecord(
                sample_id=path.name,
                group_id=patient,
                record={"xray": image.value(), "targets": {"disease": label}},
                stratum=str(label),
                official_split=official,
                audit=image.audit,
            )
