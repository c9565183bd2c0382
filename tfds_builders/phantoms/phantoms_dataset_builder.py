"""phantoms: simulated studies with known ceilings; the embedded default that needs no download."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Int

from multimed_jax.types import UserError
from tfds_builders.core import features
from tfds_builders.core.base import MedicalBuilder, StreamedSplit
from tfds_builders.core.records import Datasheet, SourceCard, SourceRecord
from tfds_builders.core.splits import SPLITS, hash_split
from tfds_builders.phantoms import eeg, studies
from tfds_builders.phantoms.ceilings import ceilings, subset_ceilings
from tfds_builders.phantoms.patient import CLASS_NAMES, patient_id

MIN_PATIENTS, MAX_PATIENTS = 100, 10**7
_BY_NUMBER = "patients_"  # the config `patients_50000` has 50,000 patients
_HASH_BLOCK = 4096


@dataclasses.dataclass(eq=False, kw_only=True)
class PhantomsConfig(tfds.core.BuilderConfig):
    """How many patients, and which.

    Attributes:
        num_patients: each yields four records.
        seed: another seed, other patients.
    """

    num_patients: int = 14_000
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises UserError for a config without a name, a number or a seed out of range."""
        if not self.name:
            raise UserError("a config of phantoms lacks a name; accepted: any, such as 'seed_7'")
        number = self.num_patients
        if not isinstance(number, int) or not MIN_PATIENTS <= number <= MAX_PATIENTS:
            raise UserError(
                f"phantoms cannot be built with num_patients={number!r}; accepted: "
                f"{MIN_PATIENTS} to {MAX_PATIENTS}"
            )
        if not isinstance(self.seed, int) or self.seed < 0:
            raise UserError(f"the seed of phantoms is {self.seed!r}; accepted: integers from 0")


class Builder(MedicalBuilder):
    """Builder of the phantoms."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "mri, xray, eeg, scrna, text; tumor, disease, motor, cell_type"}
    BUILDER_CONFIGS = [
        PhantomsConfig(name="quickstart", description="14,000 patients", num_patients=14_000),
        PhantomsConfig(name="tiny", description="300 patients, for tests", num_patients=300),
        PhantomsConfig(name="large", description="1,000,000 patients", num_patients=1_000_000),
    ]
    CARD = SourceCard(
        name="phantoms",
        title="Simulated brain slices, chest visits, EEG trials and cells with known ceilings",
        namespace="phantoms",
        modalities=("mri", "xray", "eeg", "scrna", "text"),
        tasks=tuple(CLASS_NAMES),
        publisher="the authors of multimed_jax (simulated here)",
        homepage="",
        licence="Apache-2.0",
        licence_forbids="any use as clinical evidence: no figure comes from a patient",
        how_to_obtain="nothing to download; the build simulates it",
        citation="",
        group_key="patient (simulated; four studies each)",
        unit="study",
    )
    DATASHEET = Datasheet(
        collection="Simulated by tfds_builders/phantoms from a seed; no measurement of anything.",
        labels="Drawn with the patient; a stated share presents as another class, which sets the"
        " ceilings in the metadata.",
        personal_data="No, because no person stands behind a record.",
        consent="No, because there is nobody who could be asked.",
        patients_separable="Yes, group_id is the simulated patient.",
        known_biases="Labels are balanced, noise is white or 1/f, and anatomy has few shapes: far"
        " easier and far more regular than real studies.",
        intended_use="To test and time the software, and to check claims against known ceilings.",
        unsuitable_use="Clinical evidence, medical advice, or any claim about real patients.",
    )
    EXPECTED_LAYOUT = "nothing (the records are simulated)"
    NEEDS_MANUAL_DIR = False

    def record_features(self) -> dict[str, Any]:
        """All five modalities; a record has those of its study."""
        return {
            "mri": features.image_features(),
            "xray": features.image_features(),
            "eeg": features.eeg_features(len(eeg.CHANNELS)),
            "scrna": features.scrna_features(),
            "text": features.text_features(),
            "sex": tfds.features.Text(),
            "age_years": tfds.features.Scalar(np.float32),
            "site": tfds.features.Text(),
            "organ": tfds.features.Text(),
            "cell_type": tfds.features.Text(),
        }

    def class_names(self) -> dict[str, tuple[str, ...]]:
        """Four tasks."""
        return dict(CLASS_NAMES)

    def stream_splits(self) -> dict[str, StreamedSplit]:
        """Each split draws its own patients: a patient's split is the hash of its id."""
        config = self.builder_config
        assert isinstance(config, PhantomsConfig)
        counts: Counter[str] = Counter()
        for block in _index_blocks(config.num_patients):
            counts.update(_split_of(int(index)) for index in block)
        return {
            split: StreamedSplit(
                counts[split],
                functools.partial(_records, config.seed, config.num_patients, split),
            )
            for split in SPLITS
        }

    def extra_metadata(self) -> dict[str, Any]:
        """The ceilings, and what made the records."""
        config = self.builder_config
        assert isinstance(config, PhantomsConfig)
        return {
            "ceilings": ceilings(),
            "subset_ceilings": subset_ceilings(),
            "simulated": True,
            "num_patients": config.num_patients,
            "seed": config.seed,
        }

    def _create_builder_config(self, builder_config: Any, version: Any) -> Any:
        # A name `patients_N` stands for one config; the same name with other fields would hide it.
        name = builder_config.name if isinstance(builder_config, PhantomsConfig) else ""
        if name.startswith(_BY_NUMBER):
            raise UserError(
                f"the config name {name!r} stands for {_BY_NUMBER}N without further fields; "
                "accepted: the name alone, or your fields under another name"
            )
        return super()._create_builder_config(builder_config, version)

    @classmethod
    def get_builder_config(cls, name: str, version: Any = None) -> tfds.core.BuilderConfig | None:
        """A named config, or `patients_N` for any number N of patients."""
        number = name.removeprefix(_BY_NUMBER)
        if number != name and number.isdecimal():
            return PhantomsConfig(
                name=name, description=f"{number} patients", num_patients=int(number)
            )
        return super().get_builder_config(name, version)


def _index_blocks(num_patients: int) -> Iterator[Int[np.ndarray, "B"]]:
    for start in range(0, num_patients, _HASH_BLOCK):
        yield np.arange(start, min(start + _HASH_BLOCK, num_patients))


def _split_of(index: int) -> str:
    return hash_split(patient_id(index), Builder.CARD.namespace)


def _records(seed: int, num_patients: int, split: str) -> Iterator[SourceRecord]:
    for block in _index_blocks(num_patients):
        mine = [int(index) for index in block if _split_of(int(index)) == split]
        yield from studies.stream(seed, np.array(mine, np.int64))
