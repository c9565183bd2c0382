"""Builder of the Kermany retinal OCT scans: the folders of OCT2017."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from multimed_jax.types import UserError
from tfds_builders.core.base import MedicalBuilder
from tfds_builders.core.features import image_features
from tfds_builders.core.folders import files, subfolders
from tfds_builders.core.images import read_image
from tfds_builders.core.planning import DuplicatePolicy, SplitMode
from tfds_builders.core.quarantine import Quarantine
from tfds_builders.core.records import (
    AuditKey,
    Datasheet,
    SourceCard,
    SourceRecord,
    bytes_audit,
)

_FOLDERS = ("CNV", "DME", "DRUSEN", "NORMAL")
CLASSES = tuple(name.lower() for name in _FOLDERS)
_SIDES = ("train", "test", "val")
_EXTENSIONS = (".jpeg", ".jpg", ".png")
_NAME = re.compile(r"(?P<label>CNV|DME|DRUSEN|NORMAL)-(?P<patient>\d+)-\d+", re.ASCII)


def patient_of(stem: str, folder: str) -> str:
    """The patient that a published file name holds: "CNV-6294785-2" -> "6294785".

    Raises:
        UserError: for a name of another form, or of another class than its folder.
    """
    match = _NAME.fullmatch(stem)
    if match is None:
        raise UserError(
            f"the file name {stem!r} holds no patient; expected <CLASS>-<patient>-<n> with one of "
            f"the classes {', '.join(_FOLDERS)}"
        )
    if match["label"] != folder:
        raise UserError(
            f"the file name {stem!r} and its folder {folder!r} name different classes; expected "
            "the same one"
        )
    return match["patient"]


class Builder(MedicalBuilder):
    """Retinal OCT B-scans: neovascularisation, macular oedema, drusen or normal."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(
            name="original",
            description="The published folders that are there, pooled and split by patient.",
        ),
        tfds.core.BuilderConfig(
            name="official",
            description="The published test folder; scans of its patients in the other folders "
            "are left out, and validation is cut from the training patients.",
        ),
    ]
    CARD = SourceCard(
        name="kermany_oct",
        title="Kermany OCT: retinal B-scans in four classes",
        namespace="kermany_oct",
        modalities=("oct",),
        tasks=("disease",),
        publisher="Kermany, Zhang, Goldbaum (Mendeley Data)",
        homepage="https://data.mendeley.com/datasets/rscbjbr9sj",
        licence="CC BY 4.0",
        licence_forbids="Use without naming the authors.",
        how_to_obtain="Mendeley Data rscbjbr9sj (OCT2017.tar.gz), or Kaggle "
        "paultimothymooney/kermany2018; --manual_dir is the folder that holds OCT2017",
        citation="Kermany, D. et al. Identifying Medical Diagnoses and Treatable Diseases by "
        "Image-Based Deep Learning. Cell 172 (2018). doi:10.1016/j.cell.2018.02.010",
        group_key="patient (second field of the file name)",
        unit="image",
        size="109,309 scans",
    )
    DATASHEET = Datasheet(
        collection="Spectralis OCT scans of adults from five eye clinics in the United States and "
        "China, taken in routine care from 2013 to 2017.",
        labels="Graded in tiers by students, ophthalmologists and two senior retinal specialists; "
        "one class per scan.",
        personal_data="No names: file names carry a patient number only.",
        consent="Approved by the institutional review boards named in the paper.",
        patients_separable="Yes, by file name.",
        known_biases="White wedges at the borders of some scans and two image sizes come from how "
        "they were exported, and may go along with class or clinic.",
        intended_use="Development and testing of image classification.",
        unsuitable_use="Any claim on other devices or populations, or on clinical performance.",
    )
    EXPECTED_LAYOUT = "OCT2017/{train,test,val}/{CNV,DME,DRUSEN,NORMAL}/<CLASS>-<patient>-<n>.jpeg"

    @property
    def _is_official(self) -> bool:
        return self.builder_config is not None and self.builder_config.name == "official"

    def split_mode(self) -> SplitMode:
        """The publisher's split in `official`."""
        return "official" if self._is_official else "group"

    def duplicate_policy(self) -> DuplicatePolicy:
        """Equal scans of two numbers are one patient; a published split can only leave out."""
        return "leave_out" if self._is_official else "merge_groups"

    def record_features(self) -> dict[str, Any]:
        """One B-scan."""
        return {"oct": image_features()}

    def class_names(self) -> dict[str, tuple[str, ...]]:
        """The class folders in the order of their names."""
        return {"disease": CLASSES}

    def read_source(self, manual_dir: Path, quarantine: Quarantine) -> Iterator[SourceRecord]:
        """Yields the scans by folder, class and name."""
        nested = manual_dir / "OCT2017"
        root = nested if nested.is_dir() else manual_dir
        needed = ("train", "test") if self._is_official else ()
        subfolders(root, needed, others_allowed=True)
        sides = [root / side for side in _SIDES if (root / side).is_dir()]
        if not sides:
            raise UserError(
                f"the folder {root} has none of the subfolders {', '.join(_SIDES)}; expected "
                f"layout: {self.EXPECTED_LAYOUT}"
            )
        scans = [
            (path, side.name, label)
            for side in sides
            for label, folder in enumerate(subfolders(side, _FOLDERS))
            for path in files(folder, _EXTENSIONS)
        ]
        patients = [patient_of(path.stem, _FOLDERS[label]) for path, _, label in scans]
        tested = {
            patient
            for patient, (_, side, _) in zip(patients, scans, strict=True)
            if side == "test" and self._is_official
        }
        for patient, (path, side, label) in zip(patients, scans, strict=True):
            if side != "test" and patient in tested:
                quarantine.leave_out("scan for training of a patient of the published test folder")
                continue
            yield SourceRecord(
                sample_id=f"{side}/{_FOLDERS[label]}/{path.name}",
                group_id=f"patient{patient}",
                record=functools.partial(_record, path, label),
                stratum=CLASSES[label],
                # `val` has 32 scans as published: too few to be a validation split.
                official_split="test" if side == "test" else "train",
                audit=functools.partial(_audit, path),
            )


def _record(path: Path, label: int) -> dict[str, Any]:
    return {"oct": read_image(path).value(), "targets": {"disease": label}}


def _audit(path: Path) -> AuditKey:
    """Of the file alone: see the README on look-alike scans."""
    return bytes_audit(read_image(path).encoded)
