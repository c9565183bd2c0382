"""Builder of the LHNCBC malaria cells: two folders of cut-out cells."""

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
from tfds_builders.core.paper import PaperCitation
from tfds_builders.core.picture_records import late_record, tile
from tfds_builders.core.quarantine import Quarantine
from tfds_builders.core.records import Datasheet, SourceCard, SourceRecord

_FOLDERS = ("Uninfected", "Parasitized")
CLASSES = ("uninfected", "parasitized")
_NAME = re.compile(r"(?P<patient>C\d+[A-Za-z0-9]*?)_?[Tt]hinF_\w+_cell_\d+", re.ASCII)


def patient_of(stem: str) -> str:
    """The patient that a published file name holds.

    C100P61ThinF_IMG_20150918_144104_cell_162  ->  C100P61
    C1_thinF_IMG_20150604_104722_cell_9        ->  C1

    Raises:
        UserError: for a name of another form.
    """
    match = _NAME.fullmatch(stem)
    if match is None:
        raise UserError(
            f"the file name {stem!r} holds no patient; expected <patient>ThinF_..._cell_<n>"
        )
    return match["patient"]


class Builder(MedicalBuilder):
    """Single red cells, uninfected or parasitized."""

    VERSION = tfds.core.Version("1.0.0")
    CARD = SourceCard(
        name="malaria_cells",
        title="LHNCBC malaria: single red cells with or without parasites",
        namespace="malaria_cells",
        modalities=("pathology",),
        tasks=("disease",),
        publisher="Lister Hill National Center for Biomedical Communications, US National Library "
        "of Medicine",
        homepage="https://lhncbc.nlm.nih.gov/LHC-research/LHC-projects/image-processing/malaria-datasheet.html",
        licence="not stated",
        licence_forbids="Use without citation of the paper; see the data sheet of the publisher.",
        how_to_obtain="https://data.lhncbc.nlm.nih.gov/public/Malaria/cell_images.zip; "
        "--manual_dir is the folder that holds cell_images",
        citation="Rajaraman, S. et al. Pre-trained convolutional neural networks as feature "
        "extractors toward improved malaria parasite detection in thin blood smear images. PeerJ "
        "6:e4568 (2018). doi:10.7717/peerj.4568",
        group_key="patient (the file name before ThinF)",
        unit="cell",
        size="27,558 cells (0.35 GB)",
    )
    PAPER = (
        PaperCitation(
            task="disease",
            cited="pathology, 27,560",
            really="malaria smears: 27,558 red cells cut out of them",
        ),
    )
    DATASHEET = Datasheet(
        collection="Giemsa-stained thin smears of 150 patients with P. falciparum and 50 healthy "
        "people at Chittagong Medical College Hospital, photographed by smartphone through a "
        "microscope; cells cut out by an algorithm.",
        labels="By one expert slide reader in Bangkok.",
        personal_data="None: patients are running numbers. Names hold day and time of the "
        "photograph, as published.",
        consent="Approved by the publisher's review board (IRB 12972), released de-identified.",
        patients_separable="Yes, by file name.",
        known_biases="One hospital and one kind of device; cut-outs have a black ground whose size "
        "follows the cell; cells of one smear share stain and focus.",
        intended_use="Development and testing of classification of cells.",
        unsuitable_use="Diagnosis of patients: half of the cells carry parasites, as in no blood.",
    )
    EXPECTED_LAYOUT = "cell_images/{Parasitized,Uninfected}/<patient>ThinF_..._cell_<n>.png"
    # One file under two patients is one patient.
    ON_DUPLICATES = "merge_groups"

    def record_features(self) -> dict[str, Any]:
        """One cell."""
        return {"pathology": pathology_features()}

    def class_names(self) -> dict[str, tuple[str, ...]]:
        """Healthy first."""
        return {"disease": CLASSES}

    def read_source(self, manual_dir: Path, quarantine: Quarantine) -> Iterator[SourceRecord]:
        """Yields the cells by class and name."""
        nested = manual_dir / "cell_images"
        root = nested if nested.is_dir() else manual_dir
        # The archive as Kaggle has it holds a second copy of itself.
        others = (root / "cell_images").is_dir()
        for label, folder in enumerate(subfolders(root, _FOLDERS, others_allowed=others)):
            for path in files(folder, (".png",)):
                yield late_record(
                    "pathology",
                    functools.partial(tile, path, 0.0),
                    sample_id=f"{folder.name}/{path.name}",
                    group_id=patient_of(path.stem),
                    targets={"disease": label},
                    stratum=CLASSES[label],
                )
