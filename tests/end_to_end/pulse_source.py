"""A builder of made-up pulse waves with their rhythm: a source of the extension test."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from tfds_builders.core.base import MedicalBuilder, StreamedSplit
from tfds_builders.core.records import Datasheet, SourceCard, SourceRecord

ANSWER = "Made for a test by the test itself."
NUM_RECORDS = {"train": 24, "validation": 6, "test": 10}
RATE_HZ = 25.0


def records(split: str, block: int) -> Iterator[SourceRecord]:
    """Waves of 4 s; beats of every other record come at irregular times. One block a split."""
    assert block == 0
    rng = np.random.default_rng(sorted(NUM_RECORDS).index(split))
    for i in range(NUM_RECORDS[split]):
        irregular = i % 2
        beats = np.cumsum(0.8 + irregular * rng.uniform(-0.4, 0.4, 6))
        times = np.arange(int(4 * RATE_HZ))[:, None] / RATE_HZ
        wave = np.exp(-(((times - beats) / 0.1) ** 2)).sum(1) + 0.05 * rng.normal(size=len(times))
        name = f"{split}-{i}"
        yield SourceRecord(
            sample_id=name,
            group_id=name,
            record={
                "ppg": {"wave": wave.astype(np.float32), "rate_hz": RATE_HZ},
                "targets": {"arrhythmia": irregular},
            },
            stratum=str(irregular),
        )


class PulseSource(MedicalBuilder, skip_registration=True):
    """Pulse waves, generated."""

    VERSION = tfds.core.Version("1.0.0")
    CARD = SourceCard(
        name="pulse_source",
        title="Pulses",
        namespace="pulse_source",
        modalities=("ppg",),
        tasks=("arrhythmia",),
        publisher="the tests",
        homepage="https://example.org",
        licence="Apache-2.0",
        licence_forbids="nothing",
        how_to_obtain="made by the test",
        citation="none",
        group_key="record",
        unit="trial",
        size="what the test makes",
    )
    DATASHEET = Datasheet(*[ANSWER] * 8)
    EXPECTED_LAYOUT = "nothing"
    NEEDS_MANUAL_DIR = False

    def record_features(self) -> dict[str, Any]:
        return {
            "ppg": {
                "wave": tfds.features.Tensor(shape=(None,), dtype=np.float32, encoding="bytes"),
                "rate_hz": tfds.features.Scalar(np.float32),
            }
        }

    def class_names(self) -> dict[str, tuple[str, ...]]:
        return {"arrhythmia": ("regular", "irregular")}

    def stream_splits(self) -> dict[str, StreamedSplit]:
        return {
            split: StreamedSplit(number, functools.partial(records, split))
            for split, number in NUM_RECORDS.items()
        }
