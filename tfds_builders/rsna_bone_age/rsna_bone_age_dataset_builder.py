"""Builder of the RSNA bone age challenge: a table and folders of hand X-rays for each split."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from multimed_jax.types import UserError
from tfds_builders.core.features import image_features, text_features
from tfds_builders.core.listings import file_named, first_there
from tfds_builders.core.official_splits import OfficialSplitBuilder
from tfds_builders.core.picture_records import late_record, picture
from tfds_builders.core.quarantine import Quarantine
from tfds_builders.core.records import Datasheet, SourceCard, SourceRecord
from tfds_builders.core.tables import read_csv
from tfds_builders.core.targets import TargetKind

_SEXES = {"true": "male", "false": "female", "m": "male", "f": "female"}


@dataclasses.dataclass(frozen=True)
class _Side:
    """One split of the publisher: places of its table and images, and how its columns are named."""

    split: str
    tables: tuple[str, ...]
    folders: tuple[str, ...]
    number: str
    months: str
    sex: str


_SIDES = (
    _Side(
        "train",
        ("boneage-training-dataset.csv", "train.csv", "Bone Age Training Set/train.csv"),
        ("boneage-training-dataset", "Bone Age Training Set/boneage-training-dataset"),
        "id",
        "boneage",
        "male",
    ),
    _Side(
        "validation",
        ("Validation Dataset.csv", "Bone Age Validation Set/Validation Dataset.csv"),
        (
            "boneage-validation-dataset",
            "boneage-validation-dataset-1",
            "boneage-validation-dataset-2",
            "Bone Age Validation Set/boneage-validation-dataset",
            "Bone Age Validation Set/boneage-validation-dataset-1",
            "Bone Age Validation Set/boneage-validation-dataset-2",
        ),
        "image id",
        "bone age (months)",
        "male",
    ),
    _Side(
        "test",
        ("Bone age ground truth.csv", "Bone Age Test Set/Bone age ground truth.csv"),
        ("Test Set Images", "Bone Age Test Set/Test Set Images"),
        "case id",
        "ground truth bone age (months)",
        "sex",
    ),
)


class Builder(OfficialSplitBuilder):
    """Left hands of children; sex comes in as text, because it changes the reading."""

    VERSION = tfds.core.Version("1.0.0")
    CARD = SourceCard(
        name="rsna_bone_age",
        title="RSNA bone age: hand X-rays of children with bone age in months",
        namespace="rsna_bone_age",
        modalities=("xray", "text"),
        tasks=("bone_age",),
        publisher="Radiological Society of North America (challenge of 2017)",
        homepage="https://www.rsna.org/rsnai/ai-image-challenge/rsna-pediatric-bone-age-challenge-2017",
        licence="RSNA terms: academic, educational and other non-commercial use",
        licence_forbids="Commercial use; redistribution without link and citation.",
        how_to_obtain="the challenge's page at rsna.org (training, validation and test set), or "
        "Kaggle kmader/rsna-bone-age for training alone; save the test set's table Bone age ground "
        "truth.xlsx as csv. --manual_dir is the folder that holds the tables, or the unpacked sets",
        citation="Halabi, S. S. et al. The RSNA Pediatric Bone Age Machine Learning Challenge. "
        "Radiology 290(2), 2019. doi:10.1148/radiol.2018180736",
        group_key="image (one for each child, as far as is known); equal files share one group",
        unit="image",
        size="14,236 images",
        restricted=True,
    )
    DATASHEET = Datasheet(
        collection="Hand radiographs of children of Children's Hospital Colorado, Lucile Packard "
        "Children's Hospital and, for the test set, of Stanford.",
        labels="Bone age by the atlas of Greulich and Pyle: from reports in training and "
        "validation, the consensus of six readings in the test set.",
        personal_data="Sex only; the age of the child is not published.",
        consent="Approved by the institutional review boards of the hospitals, per the paper.",
        patients_separable="No, patients are not named; one image for each child is assumed.",
        known_biases="Two hospitals of the United States and an atlas of white children of the "
        "1930s; borders and markers differ by hospital.",
        intended_use="Development and testing of regression from image and text.",
        unsuitable_use="Any clinical use; any estimate of the age of a person for legal ends.",
    )
    EXPECTED_LAYOUT = (
        "boneage-training-dataset.csv, boneage-training-dataset/<id>.png; Validation Dataset.csv, "
        "boneage-validation-dataset[-1,-2]/<id>.png; Bone age ground truth.csv, Test Set "
        "Images/<id>.png; each below the folder itself or Bone Age {Training,Validation,Test} Set; "
        "config original does with those sets that are there"
    )

    def record_features(self) -> dict[str, Any]:
        """A hand, a sentence with the sex, and the sex."""
        return {"xray": image_features(), "text": text_features(), "sex": tfds.features.Text()}

    def target_kinds(self) -> dict[str, TargetKind]:
        """One number."""
        return {"bone_age": "values"}

    def class_names(self) -> dict[str, tuple[str, ...]]:
        """Months."""
        return {"bone_age": ("months",)}

    def read_source(self, manual_dir: Path, quarantine: Quarantine) -> Iterator[SourceRecord]:
        """Yields the hands in the order of the tables: training, validation, test."""
        sides = [side for side in _SIDES if self.is_official or _is_there(manual_dir, side)]
        for side in sides or _SIDES[:1]:
            table = first_there([manual_dir / name for name in side.tables], self.EXPECTED_LAYOUT)
            rows = read_csv(table, (side.number, side.months, side.sex))
            folders = _folders(manual_dir, side, self.EXPECTED_LAYOUT)
            for row in rows:
                name = f"{row[side.number].strip()}.png"
                spots = [file_named(folder, name, table) for folder in folders]
                sex = _sex(row[side.sex], table)
                months = _months(row[side.months], table)
                yield late_record(
                    "xray",
                    functools.partial(picture, next((s for s in spots if s.is_file()), spots[0])),
                    sample_id=f"{side.split}/{name}",
                    group_id=f"hand-{side.split}-{row[side.number].strip()}",
                    targets={"bone_age": np.asarray([months], np.float32)},
                    stratum=sex,
                    official_split=side.split,
                    more={"text": {"text": f"Sex: {sex}."}, "sex": sex},
                )


def _is_there(root: Path, side: _Side) -> bool:
    return any((root / name).is_file() for name in side.tables)


def _folders(root: Path, side: _Side, layout: str) -> list[Path]:
    """All folders with images of a set: the validation images come in two, and Kaggle nests one."""
    places = [root / name for name in side.folders]
    first_there(places, layout)
    found = [place for place in places if place.is_dir()]
    return [*(p / p.name for p in found if (p / p.name).is_dir()), *found]


def _sex(cell: str, table: Path) -> str:
    key = cell.strip().lower()
    if key not in _SEXES:
        raise UserError(f"the file {table} has the sex {cell!r}; accepted: True, False, M, F")
    return _SEXES[key]


def _months(cell: str, table: Path) -> float:
    try:
        months = float(cell)
    except ValueError:
        months = -1.0
    # Skeletons are mature at 19 years in the atlas; the table's greatest value is 228.
    if not 0 <= months <= 300:
        raise UserError(f"the file {table} has the bone age {cell!r}; accepted: 0 to 300 months")
    return months
