"""Builder of the BACH microscopy photographs: four folders of TIFF files."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from multimed_jax.types import UserError
from tfds_builders.core.base import MedicalBuilder
from tfds_builders.core.features import pathology_features
from tfds_builders.core.folders import files, subfolders
from tfds_builders.core.picture_records import late_record, tile
from tfds_builders.core.planning import DuplicatePolicy, SplitMode
from tfds_builders.core.quarantine import Quarantine
from tfds_builders.core.records import Datasheet, SourceCard, SourceRecord
from tfds_builders.core.tables import read_csv

# Folder -> prefix of its files, in order of severity.
_PREFIXES = {"Normal": "n", "Benign": "b", "InSitu": "is", "Invasive": "iv"}
CLASSES = ("normal", "benign", "in situ", "invasive")
MICRONS_PER_PIXEL = 0.42  # source: the publishers' description of the photographs
BLOCK_SIZE = 10
_PATIENTS = "patients.csv"


def number_of(stem: str, folder: str) -> int:
    """The running number of a file: "iv042" -> 42.

    Raises:
        UserError: for a name of another form, or of another class than its folder.
    """
    match = re.fullmatch(rf"{_PREFIXES[folder]}(\d+)", stem, re.ASCII)
    if match is None:
        raise UserError(
            f"the file name {stem!r} in the folder {folder!r} is unknown; expected "
            f"{_PREFIXES[folder]}<n>"
        )
    return int(match[1])


class Builder(MedicalBuilder):
    """Photographs of breast tissue in four classes."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(
            name="blocks",
            description="Blocks of neighbouring numbers of a class stand in for patients.",
        ),
        tfds.core.BuilderConfig(
            name="patients",
            description="Patients by a table patients.csv; photographs it lacks are left out.",
        ),
    ]
    CARD = SourceCard(
        name="bach",
        title="BACH: breast histology, normal, benign, in situ or invasive",
        namespace="bach",
        modalities=("pathology",),
        tasks=("breast",),
        publisher="Polonia, Eloy, Aguiar (ICIAR 2018 challenge, Zenodo)",
        homepage="https://zenodo.org/records/3632035",
        licence="CC BY-NC-ND 4.0",
        licence_forbids="Commercial use, and passing on changed copies.",
        how_to_obtain="https://zenodo.org/records/3632035, ICIAR2018_BACH_Challenge.zip; "
        "--manual_dir is the folder that holds ICIAR2018_BACH_Challenge. For config patients the "
        "list of the challenge's site, saved beside it as patients.csv with the columns file "
        "(iv042.tif) and patient",
        citation="Aresta, G. et al. BACH: Grand challenge on breast cancer histology images. Med "
        "Image Anal 56 (2019). doi:10.1016/j.media.2019.05.010",
        group_key=f"block of {BLOCK_SIZE} neighbouring numbers of a class (config patients: "
        "patient)",
        unit="image",
        size="400 photographs (10.4 GB)",
        restricted=True,
    )
    DATASHEET = Datasheet(
        collection="Photographs of slides of three hospitals in Portugal, stained with "
        "haematoxylin and eosin, 2,048 x 1,536 pixels.",
        labels="Two pathologists; photographs on which they disagreed were left out.",
        personal_data="None: running numbers without any field of a patient.",
        consent="Approved by the institutional review boards, per the paper.",
        patients_separable="Only by the list of the challenge's site, which covers a part of the "
        "photographs; elsewhere neighbouring numbers stand in.",
        known_biases="Few dozen patients, some of one class only; stain differs by patient, so "
        "blocks that part one patient flatter a model.",
        intended_use="Development and testing of classification of tissue.",
        unsuitable_use="Any clinical use; a claim on new patients from config blocks.",
    )
    EXPECTED_LAYOUT = (
        "ICIAR2018_BACH_Challenge/Photos/{Normal,Benign,InSitu,Invasive}/{n,b,is,iv}<n>.tif; "
        "for config patients patients.csv beside it"
    )

    @property
    def _has_patients(self) -> bool:
        return self.builder_config is not None and self.builder_config.name == "patients"

    def split_mode(self) -> SplitMode:
        """Blocks hold one class each and are few: class quotas, not a hash."""
        return "group" if self._has_patients else "stratified"

    def duplicate_policy(self) -> DuplicatePolicy:
        """Equal photographs of two patients are of one; blocks must not chain up."""
        return "merge_groups" if self._has_patients else "share_group"

    def record_features(self) -> dict[str, Any]:
        """One photograph."""
        return {"pathology": pathology_features()}

    def class_names(self) -> dict[str, tuple[str, ...]]:
        """In order of severity."""
        return {"breast": CLASSES}

    def read_source(self, manual_dir: Path, quarantine: Quarantine) -> Iterator[SourceRecord]:
        """Yields the photographs by class and name."""
        nested = manual_dir / "ICIAR2018_BACH_Challenge"
        photos = (nested if nested.is_dir() else manual_dir) / "Photos"
        patients = _patients(manual_dir / _PATIENTS) if self._has_patients else {}
        for label, folder in enumerate(subfolders(photos, tuple(_PREFIXES))):
            for path in files(folder, (".tif", ".tiff")):
                number = number_of(path.stem, folder.name)
                if self._has_patients and path.name not in patients:
                    quarantine.leave_out("photograph without a patient in the list")
                    continue
                block = f"{folder.name}{number // BLOCK_SIZE * BLOCK_SIZE}"
                yield late_record(
                    "pathology",
                    functools.partial(tile, path, MICRONS_PER_PIXEL),
                    sample_id=path.stem,
                    group_id=f"patient{patients[path.name]}" if patients else block,
                    targets={"breast": label},
                    stratum=CLASSES[label],
                )


def _patients(table: Path) -> dict[str, str]:
    rows = read_csv(table, ("file", "patient"))
    if not rows:
        raise UserError(f"the file {table} lists no photograph")
    return {row["file"].strip(): row["patient"].strip() for row in rows if row["patient"].strip()}
