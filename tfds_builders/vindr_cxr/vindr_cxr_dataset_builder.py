"""Builder of VinDr-CXR as PhysioNet publishes it: tables of image labels and DICOM films."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from multimed_jax.types import UserError
from tfds_builders.core.film_findings import FilmFindings
from tfds_builders.core.listings import file_named, first_there, one_of
from tfds_builders.core.official_splits import OfficialSplitBuilder
from tfds_builders.core.picture_records import late_record
from tfds_builders.core.quarantine import Quarantine
from tfds_builders.core.radiograph import radiograph
from tfds_builders.core.records import Datasheet, SourceCard, SourceRecord
from tfds_builders.core.tables import read_csv

READERS = 3  # of every training image; the test set has one row of consensus

# 22 local findings and 6 global ones, the last that there is none: the columns of both tables.
# Source: Nguyen et al., Scientific Data 9 (2022), table of labels.
LABELS = (
    "Aortic enlargement",
    "Atelectasis",
    "Calcification",
    "Cardiomegaly",
    "Clavicle fracture",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Enlarged PA",
    "ILD",
    "Infiltration",
    "Lung Opacity",
    "Lung cavity",
    "Lung cyst",
    "Mediastinal shift",
    "Nodule/Mass",
    "Pleural effusion",
    "Pleural thickening",
    "Pneumothorax",
    "Pulmonary fibrosis",
    "Rib fracture",
    "Other lesion",
    "COPD",
    "Lung tumor",
    "Pneumonia",
    "Tuberculosis",
    "Other diseases",
    "No finding",
)
_COLUMNS = tuple(label.lower() for label in LABELS)
# The test table names this column in the singular.
_SINGULAR = {"other disease": "other diseases"}


class Builder(FilmFindings, OfficialSplitBuilder):
    """Chest X-rays of adults with 27 findings by majority of three readers."""

    VERSION = tfds.core.Version("1.0.0")
    LABELS = LABELS
    CARD = SourceCard(
        name="vindr_cxr",
        title="VinDr-CXR: chest X-rays read by three radiologists each",
        namespace="vindr_cxr",
        modalities=("xray",),
        tasks=("radiographic",),
        publisher="Vingroup Big Data Institute (PhysioNet)",
        homepage="https://physionet.org/content/vindr-cxr/1.0.0/",
        licence="PhysioNet Credentialed Health Data License 1.5.0",
        licence_forbids="Sharing the data, attempts to identify a person, use without the training "
        "and the agreement that PhysioNet asks for.",
        how_to_obtain="sign the agreement at https://physionet.org/content/vindr-cxr/1.0.0/ and "
        "download it; --manual_dir is the folder that holds annotations, train and test",
        citation="Nguyen, H. Q. et al. VinDr-CXR: An open dataset of chest X-rays with "
        "radiologist's annotations. Sci Data 9, 429 (2022). doi:10.1038/s41597-022-01498-w",
        group_key="image (the source names no patient); equal images share one group",
        unit="image",
        size="18,000 images",
        restricted=True,
    )
    DATASHEET = Datasheet(
        collection="Frontal films of adults from two hospitals in Hanoi, 2018 to 2020.",
        labels="Training: three of 17 radiologists read each image on their own, and a finding "
        "counts where two of them name it. Test: the consensus of five, as published.",
        personal_data="Sex and age of the header where they are; identities were removed by the "
        "publishers, and no other tag is read.",
        consent="Approved by the review boards of both hospitals; consent was waived.",
        patients_separable="No, patients are not named; the publishers took one film of each.",
        known_biases="Two hospitals of one city; rare findings have a few dozen images.",
        intended_use="Development and testing of multi-label classification.",
        unsuitable_use="Any clinical use; claims on children or other populations.",
    )
    EXPECTED_LAYOUT = "annotations/image_labels_{train,test}.csv and {train,test}/<image_id>.dicom"

    def read_source(self, manual_dir: Path, quarantine: Quarantine) -> Iterator[SourceRecord]:
        """Yields the films in the order of the tables, training first."""
        for side, readers in (("train", READERS), ("test", 1)):
            table = manual_dir / "annotations" / f"image_labels_{side}.csv"
            folder = first_there([manual_dir / side], self.EXPECTED_LAYOUT)
            for name, votes in _votes(table, readers).items():
                labels = majority(votes, name, readers, table)
                read = functools.partial(
                    radiograph,
                    file_named(folder, f"{name}.dicom", table),
                    accept_burned_in=self.options.accept_burned_in,
                )
                yield late_record(
                    "xray",
                    read,
                    sample_id=f"{side}/{name}",
                    group_id=f"image-{name}",
                    targets={"radiographic": labels},
                    stratum=LABELS[int(np.argmax(labels))],
                    official_split=side,
                )


def majority(votes: Sequence[np.ndarray], name: str, readers: int, table: Path) -> np.ndarray:
    """Int32 [28]: 1 where more than half of the readers say so.

    Of three readers who all name another finding none has a majority, "No finding" neither: such
    an image has no label at all.

    Raises:
        UserError: where the image was not read by so many.
    """
    if len(votes) != readers:
        raise UserError(
            f"the file {table} has {len(votes)} row(s) for the image {name!r}; accepted: {readers}"
        )
    return (2 * np.sum(votes, axis=0) > readers).astype(np.int32)


def _votes(table: Path, readers: int) -> dict[str, list[np.ndarray]]:
    needed = ("image_id", "rad_id") if readers > 1 else ("image_id",)
    votes: dict[str, list[np.ndarray]] = {}
    seen: set[tuple[str, str]] = set()
    for row in read_csv(table, needed):
        cells = {(_SINGULAR[key] if key in _SINGULAR else key): row[key] for key in row}
        missing = [column for column in _COLUMNS if column not in cells]
        if missing:
            raise UserError(f"the file {table} has no column {missing[0]!r}")
        name = cells["image_id"].strip()
        reader = cells["rad_id"].strip() if readers > 1 else ""
        if (name, reader) in seen:
            raise UserError(f"the file {table} has two rows of the image {name!r} by one reader")
        seen.add((name, reader))
        # Some tables leave a cell empty, or write 1.0, where they mean 0 and 1.
        vote = [
            one_of(cells[column].strip().removesuffix(".0") or "0", ("0", "1"), column, table)
            for column in _COLUMNS
        ]
        votes.setdefault(name, []).append(np.asarray(vote, np.int32))
    return votes
