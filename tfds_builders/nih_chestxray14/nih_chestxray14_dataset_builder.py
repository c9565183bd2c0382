"""Builder of NIH ChestX-ray14: `Data_Entry_2017*.csv`, the official lists and the images."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from multimed_jax.types import UserError
from tfds_builders.core.base import age_years
from tfds_builders.core.film_findings import FilmFindings
from tfds_builders.core.images import read_image
from tfds_builders.core.listings import (
    age_named,
    file_named,
    first_there,
    read_words,
    sex_named,
    splits_of,
)
from tfds_builders.core.official_splits import OfficialSplitBuilder
from tfds_builders.core.picture_records import Payload, late_record
from tfds_builders.core.quarantine import Quarantine
from tfds_builders.core.records import Datasheet, SourceCard, SourceRecord, bytes_audit
from tfds_builders.core.tables import read_csv

_TABLES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
_LISTS = {"train": "train_val_list.txt", "test": "test_list.txt"}
# Two cells of the header hold a comma each, so they are four columns.
_SIZE = ("originalimage[width", "height]")
_SPACING = ("originalimagepixelspacing[x", "y]")
_COLUMNS = ("image index", "finding labels", "patient id", "patient age", "patient gender")

# In the order of the paper's table of labels, and what the table writes where there is none.
# Source: Wang et al., CVPR 2017, and the six labels that were added with the release.
FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)
NO_FINDING = "No Finding"
LABELS = (*FINDINGS, NO_FINDING)


class Builder(FilmFindings, OfficialSplitBuilder):
    """Chest X-rays of adults and children with up to 14 findings."""

    VERSION = tfds.core.Version("1.0.0")
    LABELS = LABELS
    CARD = SourceCard(
        name="nih_chestxray14",
        title="NIH ChestX-ray14: chest X-rays with 14 findings mined from reports",
        namespace="nih_chestxray14",
        modalities=("xray",),
        tasks=("radiographic",),
        publisher="NIH Clinical Center",
        homepage="https://nihcc.app.box.com/v/ChestXray-NIHCC",
        licence="unrestricted, with link, acknowledgement and citation",
        licence_forbids="Use without a link to the download site, acknowledgement of the NIH "
        "Clinical Center and citation of the paper; attempts to identify a person.",
        how_to_obtain="https://nihcc.app.box.com/v/ChestXray-NIHCC (images_001 to images_012 "
        "unpacked, the table and the lists), or Kaggle nih-chest-xrays/data; --manual_dir is the "
        "folder that holds the table",
        citation="Wang, X. et al. ChestX-ray8: Hospital-scale Chest X-ray Database and Benchmarks "
        "on Weakly-Supervised Classification and Localization of Common Thorax Diseases. CVPR "
        "2017",
        group_key="patient (column Patient ID)",
        unit="image",
        size="112,120 films of 30,805 patients",
    )
    DATASHEET = Datasheet(
        collection="Frontal chest films of patients of the NIH Clinical Center from 1992 to 2015, "
        "scaled to 1,024 pixels by the publishers.",
        labels="Mined from reports by text processing, in the publishers' estimate over 90 % "
        "right; radiologists found several findings much less reliable. A finding that a report "
        "does not name counts as absent.",
        personal_data="Age and sex as published; patients are running numbers. Ages above 120 are "
        "errors and left empty.",
        consent="Collected in routine care; released de-identified by the publisher.",
        patients_separable="Yes, by the column Patient ID.",
        known_biases="Drains and tubes go along with their finding (pneumothorax), portable films "
        "with severe disease.",
        intended_use="Development and testing of multi-label classification.",
        unsuitable_use="Any claim on clinical performance: the labels are not a reader's.",
    )
    EXPECTED_LAYOUT = (
        "Data_Entry_2017_v2020.csv (or Data_Entry_2017.csv), images/<8 digits>_<3 digits>.png (or "
        "images_001 to images_012/images/), for config official train_val_list.txt and "
        "test_list.txt"
    )

    def read_source(self, manual_dir: Path, quarantine: Quarantine) -> Iterator[SourceRecord]:
        """Yields the films in the order of the table."""
        table = first_there([manual_dir / name for name in _TABLES], self.EXPECTED_LAYOUT)
        rows = read_csv(table, (*_COLUMNS, *_SIZE, *_SPACING))
        folders = _image_folders(manual_dir, self.EXPECTED_LAYOUT)
        where = _official(manual_dir) if self.is_official else {}
        for row in rows:
            name = row["image index"].strip()
            if self.is_official and name not in where:
                quarantine.leave_out("film in neither of the official lists")
                continue
            labels = findings_of(row["finding labels"], table)
            spots = [file_named(folder, name, table) for folder in folders]
            path = next((spot for spot in spots if spot.is_file()), spots[0])
            yield late_record(
                "xray",
                functools.partial(_film, path, *_field_mm(row, table)),
                sample_id=name,
                group_id=f"patient{row['patient id'].strip()}",
                targets={"radiographic": labels},
                stratum=LABELS[int(np.argmax(labels))],
                official_split=where[name] if self.is_official else None,
                more={
                    "sex": sex_named(row["patient gender"]),
                    "age_years": age_years(age_named(row["patient age"])),
                },
            )


def findings_of(cell: str, table: Path) -> np.ndarray:
    """Int32 [15] of 0 and 1 from findings joined by a bar, such as "Effusion|Mass".

    Raises:
        UserError: for an unknown finding, or one beside "No Finding".
    """
    names = [name.strip() for name in cell.split("|")]
    unknown = sorted(set(names) - set(LABELS))
    if unknown:
        raise UserError(
            f"the file {table} has the finding {unknown[0]!r}; accepted: {', '.join(LABELS)}"
        )
    if NO_FINDING in names and len(set(names)) > 1:
        raise UserError(f"the file {table} has a finding beside {NO_FINDING!r}: {cell!r}")
    return np.asarray([int(label in names) for label in LABELS], np.int32)


def _image_folders(root: Path, layout: str) -> list[Path]:
    folders = [root / "images", *sorted(root.glob("images_*/images"))]
    found = [folder for folder in folders if folder.is_dir()]
    if not found:
        raise UserError(f"the folder {folders[0]} does not exist; expected layout: {layout}")
    return found


def _official(root: Path) -> dict[str, str]:
    lists = {
        split: [row[0] for row in read_words(root / name, 1)] for split, name in _LISTS.items()
    }
    return splits_of(lists, "nih_chestxray14")


def _field_mm(row: Mapping[str, str], table: Path) -> tuple[float, float]:
    """Height and width of the film in mm: pixels of the original times their spacing."""
    try:
        width, height = (float(row[name]) for name in _SIZE)
        x, y = (float(row[name]) for name in _SPACING)
    except ValueError:
        raise UserError(
            f"the file {table} has a size or spacing that is no number: "
            f"{[row[name] for name in (*_SIZE, *_SPACING)]}"
        ) from None
    return height * y, width * x


def _film(path: Path, height_mm: float, width_mm: float) -> Payload:
    """The published film is a scaled one: its spacing follows from what the original covered."""
    image = read_image(path)
    spacing = (height_mm / image.height, width_mm / image.width)
    return Payload(image.value(spacing), bytes_audit(image.encoded))
