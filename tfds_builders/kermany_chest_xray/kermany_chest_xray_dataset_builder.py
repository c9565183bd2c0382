"""Builder of the Kermany chest X-rays: the published folders, or a re-laid-out 300-pixel copy."""

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
from tfds_builders.core.picture_records import film, late_record
from tfds_builders.core.planning import DuplicatePolicy, SplitMode
from tfds_builders.core.quarantine import Quarantine
from tfds_builders.core.records import Datasheet, SourceCard, SourceRecord
from tfds_builders.core.tables import read_csv

CLASSES = ("normal", "pneumonia")
_FOLDERS = ("NORMAL", "PNEUMONIA")
_TABLE = "data_1.csv"
BLOCK_SIZE = 5

# Names of the published versions. v2 (and Kaggle): person1_bacteria_1, IM-0001-0001,
# NORMAL2-IM-1427-0001; v3: BACTERIA-1008087-0001. The patient is the part in `patient`.
_NAMES = (
    re.compile(r"(?P<patient>person\d+)_(?:bacteria|virus)_\d+", re.ASCII),
    re.compile(r"(?P<patient>(?:NORMAL2-)?IM-\d+)-\d+(?:-\d+)?", re.ASCII),
    re.compile(r"(?:BACTERIA|VIRUS|NORMAL)-(?P<patient>\d+)-\d+", re.ASCII),
)
_RELAID = re.compile(r"(?P<prefix>chest|chest_virus)_(?P<number>\d+)", re.ASCII)


def patient_of(stem: str) -> str:
    """The patient that a published file name holds; bacterial and viral films share numbers.

    Raises:
        UserError: for a name of none of the published versions.
    """
    for pattern in _NAMES:
        match = pattern.fullmatch(stem)
        if match is not None:
            return match["patient"]
    raise UserError(
        f"the file name {stem!r} holds no patient; expected person<N>_<bacteria|virus>_<n>, "
        "[NORMAL2-]IM-<N>-<n> or <BACTERIA|VIRUS|NORMAL>-<N>-<n>"
    )


def number_block(stem: str) -> str:
    """The block of neighbouring numbers of a renamed file: "chest_virus_87" -> "chest_virus_85".

    Raises:
        UserError: for a name of another form.
    """
    match = _RELAID.fullmatch(stem)
    if match is None:
        raise UserError(f"the file name {stem!r} is unknown; expected chest_<n> or chest_virus_<n>")
    return f"{match['prefix']}_{int(match['number']) // BLOCK_SIZE * BLOCK_SIZE}"


class Builder(MedicalBuilder):
    """Chest X-rays of children, normal or pneumonia."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(
            name="original",
            description="The published folders; the patient is read from the file name.",
        ),
        tfds.core.BuilderConfig(
            name="relaid_300px",
            description="A copy of test films at 300 x 300 pixels under new names "
            "(img/ and data_1.csv); patients are lost, so do not train on `original` and test "
            "on this one.",
        ),
    ]
    CARD = SourceCard(
        name="kermany_chest_xray",
        title="Kermany chest X-rays: children, normal or pneumonia",
        namespace="kermany_chest_xray",
        modalities=("xray",),
        tasks=("disease",),
        publisher="Kermany, Zhang, Goldbaum (Mendeley Data)",
        homepage="https://data.mendeley.com/datasets/rscbjbr9sj",
        licence="CC BY 4.0 (the 300-pixel copy states none)",
        licence_forbids="Use without naming the authors.",
        how_to_obtain="Mendeley Data rscbjbr9sj (ChestXRay2017.zip), or Kaggle "
        "paultimothymooney/chest-xray-pneumonia; --manual_dir is the folder that holds "
        "chest_xray. Config relaid_300px: the folder that holds img and data_1.csv (GitHub "
        "PerceptiLabs/Chest-X-Rays)",
        citation="Kermany, D. et al. Identifying Medical Diagnoses and Treatable Diseases by "
        "Image-Based Deep Learning. Cell 172 (2018). doi:10.1016/j.cell.2018.02.010",
        group_key="patient by file name; in relaid_300px a block of "
        f"{BLOCK_SIZE} neighbouring numbers of one class, a copy joining its first twin's block",
        unit="image",
        size="5,856 films",
    )
    DATASHEET = Datasheet(
        collection="Anterior-posterior films of children of one to five years in routine care at "
        "Guangzhou Women and Children's Medical Center.",
        labels="Two physicians graded the films, a third checked the test set.",
        personal_data="No names: file names carry a running patient number only.",
        consent="Approved by the institutional review boards named in the paper.",
        patients_separable="Yes by file name in `original`; number blocks stand in for patients "
        "in `relaid_300px`.",
        known_biases="One hospital, one age group; sick and healthy children were filmed in "
        "different settings, which shows in tubes, position and exposure.",
        intended_use="Development and testing of image classification.",
        unsuitable_use="Any claim on adults, other hospitals or clinical performance.",
    )
    EXPECTED_LAYOUT = (
        "chest_xray/{train,test}/{NORMAL,PNEUMONIA}/*.jpeg, or img/*.jpeg and data_1.csv for "
        "config relaid_300px"
    )

    @property
    def _is_relaid(self) -> bool:
        return self.builder_config is not None and self.builder_config.name == "relaid_300px"

    def split_mode(self) -> SplitMode:
        """Number blocks hold one class each and are few: class quotas, not a hash."""
        return "stratified" if self._is_relaid else "group"

    def duplicate_policy(self) -> DuplicatePolicy:
        """Equal films of two patients are one patient; number blocks must not chain up."""
        return "share_group" if self._is_relaid else "merge_groups"

    def record_features(self) -> dict[str, Any]:
        """One film."""
        return {"xray": image_features()}

    def class_names(self) -> dict[str, tuple[str, ...]]:
        """Bacterial and viral films are one class, as published."""
        return {"disease": CLASSES}

    def read_source(self, manual_dir: Path, quarantine: Quarantine) -> Iterator[SourceRecord]:
        """Yields the films by folder and name, or by row of the table."""
        if self._is_relaid:
            yield from self._read_relaid(manual_dir)
        else:
            yield from self._read_original(manual_dir)

    def _read_original(self, manual_dir: Path) -> Iterator[SourceRecord]:
        nested = manual_dir / "chest_xray"
        root = nested if nested.is_dir() else manual_dir
        sides = subfolders(root, ("train", "test"), others_allowed=True)
        if (root / "val").is_dir():
            sides.append(root / "val")  # 16 films on Kaggle: too few to be a split
        for side in sides:
            for label, folder in enumerate(subfolders(side, _FOLDERS)):
                for path in files(folder, (".jpeg", ".jpg", ".png")):
                    name = f"{side.name}/{folder.name}/{path.name}"
                    yield _film(path, name, patient_of(path.stem), label)

    def _read_relaid(self, manual_dir: Path) -> Iterator[SourceRecord]:
        table = manual_dir / _TABLE
        for row in read_csv(table, ("image_path", "target")):
            if row["target"] not in ("0", "1"):
                raise UserError(
                    f"the file {table} has the target {row['target']!r}; accepted: 0 (normal), "
                    "1 (pneumonia)"
                )
            path = manual_dir / row["image_path"]
            if not path.resolve().is_relative_to(manual_dir.resolve()):
                raise UserError(f"the file {table} names a path outside: {row['image_path']!r}")
            group = number_block(path.stem)
            yield _film(path, row["image_path"], group, int(row["target"]))


def _film(path: Path, sample_id: str, group: str, label: int) -> SourceRecord:
    return late_record(
        "xray",
        functools.partial(film, path),
        sample_id=sample_id,
        group_id=group,
        targets={"disease": label},
        stratum=CLASSES[label],
    )
