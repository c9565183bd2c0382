"""Builder of the SIIM tutorial's CT slices: `overview.csv` and `dicom_dir/`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from multimed_jax.types import UserError
from tfds_builders.core.base import MedicalBuilder, age_years
from tfds_builders.core.dicom import read_ct_slice
from tfds_builders.core.features import ct_features
from tfds_builders.core.quarantine import Quarantine
from tfds_builders.core.records import (
    Datasheet,
    SourceCard,
    SourceRecord,
    UnreadableRecord,
    array_audit,
)
from tfds_builders.core.tables import read_csv
from tfds_builders.core.targets import TargetKind

_TABLE = "overview.csv"
_IMAGES = "dicom_dir"
_COLUMNS = ("contrast", "dicom_name")
_NAMESPACE = "siim_ct"


class Builder(MedicalBuilder):
    """Chest CT slices with or without contrast agent."""

    VERSION = tfds.core.Version("1.0.0")
    CARD = SourceCard(
        name="siim_ct",
        title="SIIM CT Medical Images: chest slices with or without contrast agent",
        namespace=_NAMESPACE,
        modalities=("ct",),
        tasks=("radiographic",),
        publisher="The Cancer Imaging Archive (TCGA-LUAD, TCGA-LUSC); selected by K. Scott Mader",
        homepage="https://www.kaggle.com/datasets/kmader/siim-medical-images",
        licence="CC BY 3.0",
        licence_forbids="Use without naming the collections and their citation.",
        how_to_obtain="Kaggle kmader/siim-medical-images; --manual_dir is the folder that holds "
        "overview.csv and dicom_dir",
        citation="Albertina, B. et al. (2016), TCGA-LUAD, doi:10.7937/K9/TCIA.2016.JGNIHEP5; Kirk, "
        "S. et al. (2016), TCGA-LUSC, doi:10.7937/K9/TCIA.2016.TYGKKFMQ",
        group_key="patient (keyed hash of DICOM PatientID)",
        unit="slice",
        size="100 slices of 54 patients",
    )
    DATASHEET = Datasheet(
        collection="The middle slice of chest series of lung cancer patients, from several "
        "hospitals and scanners, chosen for a tutorial.",
        labels="Contrast agent by the folder that the selector put a series into; of the slices "
        "labelled with contrast most have no agent in the header. Not checked by a reader.",
        personal_data="De-identified by the archive. Kept are age, sex, manufacturer and spacing; "
        "the patient's id only as a hash made with the builder's own key.",
        consent="Given for The Cancer Genome Atlas; see the pages of the collections.",
        patients_separable="Yes, by PatientID in the header; the table does not have it.",
        known_biases="Contrast goes along with manufacturer (GE mostly without, Siemens mostly "
        "with) and collection: a model can read the scanner in place of the agent.",
        intended_use="Testing of CT pipelines on real headers and values.",
        unsuitable_use="Judging a model, a claim on contrast detection, or any clinical use.",
    )
    EXPECTED_LAYOUT = "overview.csv and dicom_dir/ID_<n>_AGE_<age>_CONTRAST_<0|1>_CT.dcm"
    # Equal slices under two ids are always of one patient.
    ON_DUPLICATES = "merge_groups"
    PRIVATE_IDS = ("group_id",)

    def record_features(self) -> dict[str, Any]:
        """One slice, and what is kept of its header."""
        return {
            "ct": ct_features(),
            "sex": tfds.features.Text(),
            "age_years": tfds.features.Scalar(np.float32),
            "site": tfds.features.Text(),
        }

    def target_kinds(self) -> dict[str, TargetKind]:
        """One finding, present or absent."""
        return {"radiographic": "labels"}

    def class_names(self) -> dict[str, tuple[str, ...]]:
        """Contrast agent is the only property that the source labels."""
        return {"radiographic": ("contrast",)}

    def read_source(self, manual_dir: Path, quarantine: Quarantine) -> Iterator[SourceRecord]:
        """Yields the slices in the order of the table."""
        table = manual_dir / _TABLE
        rows = read_csv(table, _COLUMNS)
        images = manual_dir / _IMAGES
        if not images.is_dir():
            raise UserError(
                f"the folder {images} does not exist; expected layout: {self.EXPECTED_LAYOUT}"
            )
        for row in rows:
            contrast = row["contrast"].strip().lower()
            if contrast not in ("true", "false"):
                raise UserError(
                    f"the file {table} has the contrast {row['contrast']!r}; accepted: True, False"
                )
            name = row["dicom_name"].strip()
            if Path(name).name != name or not name:
                raise UserError(f"the file {table} names a path, not a file: {name!r}")
            try:
                scan = read_ct_slice(images / name, _NAMESPACE, self.options.accept_burned_in)
            except UnreadableRecord as error:
                quarantine.add(name, str(error))
                continue
            label = int(contrast == "true")
            yield SourceRecord(
                sample_id=name,
                group_id=f"patient-{scan.patient}",
                record={
                    "ct": {"hu": scan.hu, "spacing_mm": np.asarray(scan.spacing_mm, np.float32)},
                    "sex": scan.sex,
                    "age_years": age_years(scan.age_years),
                    "site": scan.manufacturer,
                    "targets": {"radiographic": np.asarray([label], np.int32)},
                },
                stratum="contrast" if label else "plain",
                audit=array_audit(scan.hu),
            )
