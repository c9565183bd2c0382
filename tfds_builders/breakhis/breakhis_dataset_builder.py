"""Builder of BreakHis: folders of microscope photographs by tumour, slide and magnification."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from multimed_jax.types import UserError
from tfds_builders.core.base import MedicalBuilder
from tfds_builders.core.features import pathology_features
from tfds_builders.core.folders import subfolders
from tfds_builders.core.picture_records import late_record, tile
from tfds_builders.core.quarantine import Quarantine
from tfds_builders.core.records import Datasheet, SourceCard, SourceRecord

CLASSES = ("benign", "malignant")
MAGNIFICATIONS = (40, 100, 200, 400)
# Letters of the file names. Source: Spanhol et al. 2016, and the database's page.
TYPES = {
    "A": "adenosis",
    "F": "fibroadenoma",
    "PT": "phyllodes tumour",
    "TA": "tubular adenoma",
    "DC": "ductal carcinoma",
    "LC": "lobular carcinoma",
    "MC": "mucinous carcinoma",
    "PC": "papillary carcinoma",
}
_BENIGN = ("A", "F", "PT", "TA")
_NAME = re.compile(
    r"SOB_(?P<side>[BM])_(?P<type>[A-Z]+)-(?P<case>\d\d-\d+)[A-Z]*-(?P<power>\d+)-\d+", re.ASCII
)


def read_name(stem: str, folder: str) -> tuple[str, str, int]:
    """Type, patient and magnification of a published file name.

    SOB_B_TA-14-4659-40-001      ->  TA, 14-4659, 40
    SOB_B_A-14-22549AB-400-003   ->  A, 14-22549, 400

    The letters after a case's number name blocks of its tissue; they are of one patient.

    Raises:
        UserError: for a name of another form, an unknown type, or another class than its folder.
    """
    match = _NAME.fullmatch(stem)
    if match is None or match["type"] not in TYPES:
        raise UserError(
            f"the file name {stem!r} is unknown; expected SOB_<B|M>_<type>-<yy-case>-<power>-<n> "
            f"with a type of {', '.join(TYPES)}"
        )
    is_benign = match["type"] in _BENIGN
    if is_benign != (match["side"] == "B") or is_benign != (folder == "benign"):
        raise UserError(
            f"the file name {stem!r} and its folder {folder!r} do not agree on benign or malignant"
        )
    if int(match["power"]) not in MAGNIFICATIONS:
        raise UserError(
            f"the file name {stem!r} has the magnification {match['power']}; accepted: "
            f"{', '.join(map(str, MAGNIFICATIONS))}"
        )
    return match["type"], match["case"], int(match["power"])


class Builder(MedicalBuilder):
    """Photographs of breast tumours, benign or malignant."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name="all", description="All magnifications, pooled."),
        *(
            tfds.core.BuilderConfig(name=f"x{power}", description=f"Magnification {power} alone.")
            for power in MAGNIFICATIONS
        ),
    ]
    CARD = SourceCard(
        name="breakhis",
        title="BreakHis: breast tumours under four magnifications, benign or malignant",
        namespace="breakhis",
        modalities=("pathology",),
        tasks=("breast",),
        publisher="Spanhol, Oliveira, Petitjean, Heutte (Federal University of Parana)",
        homepage="https://web.inf.ufpr.br/vri/databases/breast-cancer-histopathological-database-breakhis/",
        licence="CC BY 4.0",
        licence_forbids="Use without naming the authors.",
        how_to_obtain="the database's page (BreaKHis_v1.tar.gz), or Kaggle ambarish/breakhis; "
        "--manual_dir is the folder that holds BreaKHis_v1",
        citation="Spanhol, F. A. et al. A Dataset for Breast Cancer Histopathological Image "
        "Classification. IEEE Trans Biomed Eng 63(7), 2016. doi:10.1109/TBME.2015.2496264",
        group_key="patient (year and case number of the file name, without the letters of blocks)",
        unit="image",
        size="7,909 images of 82 patients",
    )
    DATASHEET = Datasheet(
        collection="Surgical biopsies of 82 patients of one laboratory in Parana, Brazil, in 2014, "
        "stained with haematoxylin and eosin and photographed at four magnifications.",
        labels="By pathologists of the laboratory, with immunohistochemistry where needed; one "
        "case has images under two types.",
        personal_data="None: case numbers of the laboratory.",
        consent="Approved by the institutional review board, per the paper.",
        patients_separable="Yes, by the case number.",
        known_biases="Stain and white balance differ by patient; a patient has some hundred "
        "images, so there are far fewer patients than images.",
        intended_use="Development and testing of classification of tumours.",
        unsuitable_use="Any clinical use; telling normal tissue, which is not in it.",
    )
    EXPECTED_LAYOUT = (
        "BreaKHis_v1/histology_slides/breast/{benign,malignant}/SOB/<type>/<slide>/"
        "<40|100|200|400>X/SOB_<B|M>_<type>-<yy-case>-<power>-<n>.png"
    )
    ON_DUPLICATES = "merge_groups"
    # A patient's images are of one class, and 24 benign patients are few for a hash.
    SPLIT_MODE = "stratified"

    def record_features(self) -> dict[str, Any]:
        """A photograph, its magnification and the type of the tumour."""
        return {
            "pathology": pathology_features(),
            "magnification": tfds.features.Scalar(np.int32),
            "tumour_type": tfds.features.Text(),
        }

    def class_names(self) -> dict[str, tuple[str, ...]]:
        """In order of severity."""
        return {"breast": CLASSES}

    def read_source(self, manual_dir: Path, quarantine: Quarantine) -> Iterator[SourceRecord]:
        """Yields the photographs by class and path."""
        nested = manual_dir / "BreaKHis_v1"
        root = (nested if nested.is_dir() else manual_dir) / "histology_slides" / "breast"
        config = self.builder_config.name if self.builder_config is not None else "all"
        for label, folder in enumerate(subfolders(root, CLASSES, others_allowed=True)):
            for path in sorted(folder.glob("SOB/*/*/*X/*.png")):
                kind, case, power = read_name(path.stem, folder.name)
                if config not in ("all", f"x{power}"):
                    continue
                yield late_record(
                    "pathology",
                    functools.partial(tile, path, 0.0),
                    sample_id=path.stem,
                    group_id=f"patient{case}",
                    targets={"breast": label},
                    stratum=CLASSES[label],
                    more={"magnification": power, "tumour_type": TYPES[kind]},
                )
