"""phantoms: simulated studies with known ceilings; the embedded default that needs no download."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from multimed_jax.types import UserError
from tfds_builders.core import features
from tfds_builders.core.base import MedicalBuilder, StreamedSplit
from tfds_builders.core.records import Datasheet, SourceCard, SourceRecord
from tfds_builders.core.splits import SPLITS, hash_split
from tfds_builders.core.targets import TargetKind
from tfds_builders.phantoms import eeg
from tfds_builders.phantoms.ceilings import ceilings, metrics_of_ceilings, subset_ceilings
from tfds_builders.phantoms.patient import patient_id
from tfds_builders.phantoms.studies import BASE, SMALL, STUDIES, modalities_of, stream, study_of
from tfds_builders.phantoms.study import Study

MIN_PATIENTS, MAX_PATIENTS = 100, 10**7
# The config `patients_50000` has 50,000 patients; the others have records of at most 1 kB.
_BY_NUMBER = {"patients": BASE, "eeg": ("brief",), "dna": ("window",)}
_BLOCK = 4096  # patients whose records one worker makes
_FEATURES = {
    "oct": features.image_features,
    "ct": features.ct_features,
    "mri": features.image_features,
    "xray": features.image_features,
    "pathology": features.pathology_features,
    "eeg": functools.partial(features.eeg_features, len(eeg.CHANNELS)),
    "genomics": features.genomics_features,
    "scrna": features.scrna_features,
    "protein": features.protein_features,
    "text": features.text_features,
}


@dataclasses.dataclass(eq=False, kw_only=True)
class PhantomsConfig(tfds.core.BuilderConfig):
    """How many patients, and which.

    Attributes:
        num_patients: each yields one record per study.
        seed: another seed, other patients.
        studies: names of `studies.STUDIES` or `studies.SMALL`; they decide modalities and tasks.
    """

    num_patients: int = 14_000
    seed: int = 0
    studies: tuple[str, ...] = BASE

    def __post_init__(self) -> None:
        """Raises UserError for a config without a name, or a value out of range."""
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
        self.studies = tuple(self.studies)  # a list where the config came as JSON
        if not self.studies or len(set(self.studies)) < len(self.studies):
            raise UserError(
                f"the studies of phantoms are {list(self.studies)}; accepted: some, each once"
            )
        for study in self.studies:
            if study not in STUDIES and study not in SMALL:
                accepted = ", ".join((*STUDIES, *SMALL))
                raise UserError(f"phantoms have no study {study!r}; accepted: {accepted}")
        if len({study.task for study in self.chosen}) < len(self.studies):
            raise UserError(
                f"of the studies {list(self.studies)} of phantoms two have one task; accepted: "
                "one of eeg and brief, one of gene and window"
            )

    @property
    def chosen(self) -> tuple[Study, ...]:
        """The studies themselves."""
        return tuple(study_of(name) for name in self.studies)


class Builder(MedicalBuilder):
    """Builder of the phantoms."""

    VERSION = tfds.core.Version("2.0.0")
    RELEASE_NOTES = {
        "1.0.0": "ten modalities, eleven tasks",
        "2.0.0": "expression: a motif that acts in active cells alone; other patients in `all`",
    }
    BUILDER_CONFIGS = [
        PhantomsConfig(name="quickstart", description="14,000 patients", num_patients=14_000),
        PhantomsConfig(name="tiny", description="300 patients, for tests", num_patients=300),
        PhantomsConfig(name="large", description="1,000,000 patients", num_patients=1_000_000),
        PhantomsConfig(
            name="all",
            description="6,000 patients, ten modalities, eleven tasks",
            num_patients=6_000,
            # Options of the model were chosen on patients of seed 0, the test patients among them.
            seed=1,
            studies=tuple(STUDIES),
        ),
        PhantomsConfig(
            name="all_tiny",
            description="300 patients, ten modalities, eleven tasks, for tests",
            num_patients=300,
            studies=tuple(STUDIES),
        ),
    ]
    CARD = SourceCard(
        name="phantoms",
        title="Simulated studies of simulated patients with known ceilings",
        namespace="phantoms",
        modalities=modalities_of(list(STUDIES.values())),
        tasks=tuple(study.task for study in STUDIES.values()),
        publisher="the authors of multimed_jax (simulated here)",
        homepage="",
        licence="Apache-2.0",
        licence_forbids="any use as clinical evidence: no figure comes from a patient",
        how_to_obtain="nothing to download; the build simulates it",
        citation="The multimed-jax authors: multimed-jax, simulated by tfds_builders/phantoms",
        group_key="patient (simulated; one record per study)",
        unit="study",
        size="100 to 10,000,000 patients, by config",
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

    @property
    def _config(self) -> PhantomsConfig:
        assert isinstance(self.builder_config, PhantomsConfig)
        return self.builder_config

    def record_features(self) -> dict[str, Any]:
        """The modalities of all studies; a record has those of its own."""
        made = {name: _FEATURES[name]() for name in modalities_of(self._config.chosen)}
        if "answer" in self.target_kinds().values():
            made["answer"] = features.answer_features()
        return {
            **made,
            "sex": tfds.features.Text(),
            "age_years": tfds.features.Scalar(np.float32),
            "site": tfds.features.Text(),
            "organ": tfds.features.Text(),
            "cell_type": tfds.features.Text(),
        }

    def class_names(self) -> dict[str, tuple[str, ...]]:
        """One task per study."""
        return {study.task: study.names for study in self._config.chosen}

    def target_kinds(self) -> dict[str, TargetKind]:
        """Of each study's task."""
        return {study.task: study.kind for study in self._config.chosen}

    def stream_splits(self) -> dict[str, StreamedSplit]:
        """Each split draws its own patients: a patient's split is the hash of its id."""
        config = self._config
        num_blocks = -(-config.num_patients // _BLOCK)
        counts: Counter[str] = Counter()
        for block in range(num_blocks):
            counts.update(map(_split_of, _patients(config, block)))
        return {
            split: StreamedSplit(
                counts[split], functools.partial(_records, config, split), num_blocks
            )
            for split in SPLITS
        }

    def extra_metadata(self) -> dict[str, Any]:
        """The ceilings, and what made the records."""
        config = self._config
        tasks = tuple(self.class_names())
        own = {study.task: study.ceiling for study in config.chosen if study.ceiling is not None}
        return {
            "ceilings": {t: c for t, c in {**ceilings(), **own}.items() if t in tasks},
            "ceiling_metrics": {t: m for t, m in metrics_of_ceilings().items() if t in tasks},
            "subset_ceilings": {
                t: c for t, c in subset_ceilings().items() if t in tasks and t not in own
            },
            "simulated": True,
            "num_patients": config.num_patients,
            "seed": config.seed,
        }

    def _info(self) -> tfds.core.DatasetInfo:
        # The card tells what the chosen studies have.
        vars(self)["CARD"] = dataclasses.replace(
            type(self).CARD,
            modalities=modalities_of(self._config.chosen),
            tasks=tuple(self.class_names()),
        )
        return super()._info()

    def _create_builder_config(self, builder_config: Any, version: Any) -> Any:
        # A name `patients_N` stands for one config; the same name with other fields would hide it.
        name = builder_config.name if isinstance(builder_config, PhantomsConfig) else ""
        kind, _, number = name.partition("_")
        if kind in _BY_NUMBER and number.isdecimal():
            raise UserError(
                f"the config name {name!r} stands for {kind}_N without further fields; "
                "accepted: the name alone, or your fields under another name"
            )
        return super()._create_builder_config(builder_config, version)

    @classmethod
    def get_builder_config(cls, name: str, version: Any = None) -> tfds.core.BuilderConfig | None:
        """A named config, or `patients_N`, `eeg_N` or `dna_N` for any number N of patients."""
        kind, _, number = name.partition("_")
        if kind in _BY_NUMBER and number.isdecimal():
            return PhantomsConfig(
                name=name,
                description=f"{number} patients",
                num_patients=int(number),
                studies=_BY_NUMBER[kind],
            )
        return super().get_builder_config(name, version)


def _patients(config: PhantomsConfig, block: int) -> range:
    return range(block * _BLOCK, min((block + 1) * _BLOCK, config.num_patients))


def _split_of(index: int) -> str:
    return hash_split(patient_id(index), Builder.CARD.namespace)


def _records(config: PhantomsConfig, split: str, block: int) -> Iterator[SourceRecord]:
    mine = [index for index in _patients(config, block) if _split_of(index) == split]
    return stream(config.seed, np.array(mine, np.int64), config.studies)
