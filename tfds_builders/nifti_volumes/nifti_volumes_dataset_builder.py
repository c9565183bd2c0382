"""Builder of any folder of NIfTI volumes: a csv table names file, patient and class of each."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import tensorflow_datasets as tfds

from tfds_builders.core.base import MedicalBuilder, age_years
from tfds_builders.core.features import ct_features, mri_volume_features
from tfds_builders.core.nifti import Volume, read_volume
from tfds_builders.core.quarantine import Quarantine
from tfds_builders.core.records import (
    AuditKey,
    Datasheet,
    SourceCard,
    SourceRecord,
    array_audit,
)
from tfds_builders.nifti_volumes.table import NiftiConfig, Row, read_rows

_INT16 = np.iinfo(np.int16)


class Builder(MedicalBuilder):
    """Volumes with a class each, or none."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [
        NiftiConfig(name="mri", description="MRI volumes and volumes.csv: file,group,label."),
        NiftiConfig(
            name="ct",
            modality="ct",
            description="CT volumes in Hounsfield units and volumes.csv: file,group,label.",
        ),
        NiftiConfig(
            name="mri_unlabelled",
            table="",
            series="first",
            description="All volumes below the folder, without a target: to test reading only.",
        ),
    ]
    CARD = SourceCard(
        name="nifti_volumes",
        title="A folder of NIfTI volumes",
        namespace="nifti_volumes",
        modalities=("mri", "ct"),
        tasks=("disease",),
        publisher="whoever published the volumes",
        homepage="https://nifti.nimh.nih.gov",
        licence="that of the volumes, not known to the builder",
        licence_forbids="What the publisher of the volumes forbids.",
        how_to_obtain="volumes of your own or of a public set as .nii or .nii.gz; --manual_dir is "
        "the folder that holds them and volumes.csv",
        citation="Cox, R. W. et al. A (sort of) new image data format standard: NIfTI-1. Human "
        "Brain Mapping, 2004",
        group_key="patient (column `group`); without a table, the file",
        unit="volume",
        size="that of the volumes",
    )
    DATASHEET = Datasheet(
        collection="Not known to the builder; describe it beside the table.",
        labels="The table's column; who set them is not known to the builder.",
        personal_data="Of a header only voxels, axes and spacing are read, no free text. File "
        "names become record ids, and a head's volume may show a face.",
        consent="Not known to the builder.",
        patients_separable="Yes by the column `group`; no without a table, where each file counts "
        "as a patient of its own.",
        known_biases="Scanner, sequence and spacing differ between sites and can go along with "
        "the class.",
        intended_use="Bringing volumes into the common record; testing of volume readers.",
        unsuitable_use="Any claim that the publisher of the volumes does not support.",
    )
    EXPECTED_LAYOUT = "*.nii or *.nii.gz in any folder and volumes.csv (file,group,label)"
    # One volume under two patients is one patient.
    ON_DUPLICATES = "merge_groups"

    def __init__(self, **kwargs: Any) -> None:
        """The classes become known while the table is read."""
        self._classes: tuple[str, ...] = ()
        super().__init__(**kwargs)

    @property
    def _config(self) -> NiftiConfig:
        return cast(NiftiConfig, self.builder_config)

    def record_features(self) -> dict[str, Any]:
        """One volume, and what the table may say of the patient."""
        is_ct = self._config.modality == "ct"
        return {
            self._config.modality: ct_features() if is_ct else mri_volume_features(),
            "sex": tfds.features.Text(),
            "age_years": tfds.features.Scalar(np.float32),
            "site": tfds.features.Text(),
        }

    def class_names(self) -> dict[str, tuple[str, ...]]:
        """The classes of the config, else those that occur; none without a table."""
        return {self._config.task: self._classes}

    def extra_metadata(self) -> dict[str, Any]:
        """What the config decides and the card cannot know."""
        return {
            "namespace": self._config.namespace,
            "modalities": [self._config.modality],
            "tasks": [self._config.task] if self._config.table else [],
        }

    def read_source(self, manual_dir: Path, quarantine: Quarantine) -> Iterator[SourceRecord]:
        """Yields the volumes in the order of the table, or sorted by path."""
        config = self._config
        rows = read_rows(manual_dir, config)
        labels = sorted({row.label for row in rows if row.label})
        self._classes = config.classes or tuple(labels)
        for row in rows:
            yield SourceRecord(
                sample_id=row.file,
                group_id=row.group,
                record=functools.partial(self._record, manual_dir / row.file, row),
                stratum=row.label,
                audit=functools.partial(self._audit, manual_dir / row.file),
            )

    def _audit(self, path: Path) -> AuditKey:
        return array_audit(read_volume(path, self._config.series).voxels)

    def _record(self, path: Path, row: Row) -> dict[str, Any]:
        config = self._config
        volume = read_volume(path, config.series)
        value = _ct(volume) if config.modality == "ct" else _mri(volume, row.sequence)
        return {
            config.modality: value,
            "sex": row.sex,
            "age_years": age_years(row.age_years),
            "site": row.site,
            "targets": {config.task: self._classes.index(row.label) if row.label else -1},
        }


def _mri(volume: Volume, sequence: str) -> dict[str, Any]:
    return {
        "voxels": volume.voxels,
        "spacing_mm": np.asarray(volume.spacing_mm, np.float32),
        "sequence": sequence,
    }


def _ct(volume: Volume) -> dict[str, Any]:
    hu = np.clip(np.rint(volume.voxels), _INT16.min, _INT16.max).astype(np.int16)
    return {"hu": hu, "spacing_mm": np.asarray(volume.spacing_mm, np.float32)}
