"""The builder behind the sets that benchmarks make: a source of one modality and one task."""

from __future__ import annotations

import tensorflow_datasets as tfds

from tfds_builders.core.base import MedicalBuilder
from tfds_builders.core.records import Datasheet, SourceCard


class MadeSource(MedicalBuilder, skip_registration=True):
    """Needs no folder; what it holds says its subclass."""

    VERSION = tfds.core.Version("1.0.0")
    DATASHEET = Datasheet(*["Random values, made for a benchmark."] * 8)
    EXPECTED_LAYOUT = "nothing"
    NEEDS_MANUAL_DIR = False


def made_card(name: str, title: str, modality: str, task: str, unit: str) -> SourceCard:
    """The card of such a source; every record is a group of its own."""
    return SourceCard(
        name=name,
        title=title,
        namespace=name,
        modalities=(modality,),
        tasks=(task,),
        publisher="the benchmark",
        homepage="https://example.org",
        licence="Apache-2.0",
        licence_forbids="nothing",
        how_to_obtain="made by the benchmark",
        citation="none",
        group_key=unit,
        unit=unit,
        size="what the benchmark makes",
    )
