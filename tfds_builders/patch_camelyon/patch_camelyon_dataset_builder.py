"""Builder of PatchCamelyon: HDF5 files of tiles and labels, and tables of slides."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8

from multimed_jax.types import UserError
from tfds_builders.core.features import pathology_features
from tfds_builders.core.official_splits import OfficialSplitBuilder
from tfds_builders.core.picture_records import Payload, late_record, pixels_tile
from tfds_builders.core.quarantine import Quarantine
from tfds_builders.core.records import Datasheet, SourceCard, SourceRecord
from tfds_builders.core.tables import read_csv
from tfds_builders.patch_camelyon.tile_files import TileFile, read_labels

CLASSES = ("normal", "metastasis")
# Scanned at 0.243 micron and scaled down from 40x to 10x. Source: the publishers' README.
MICRONS_PER_PIXEL = 0.243 * 4
_SIDES = {"train": "train", "valid": "validation", "test": "test"}
_PREFIX = "camelyonpatch_level_2_split"
# Read together: far fewer seeks than tile by tile, and 7 MB at a time.
_BLOCK = 256
Block = Callable[[], UInt8[np.ndarray, "n 96 96 3"]]


class Builder(OfficialSplitBuilder):
    """Tiles of sentinel lymph nodes; the label is of the middle 32 x 32 pixels."""

    VERSION = tfds.core.Version("1.0.0")
    CARD = SourceCard(
        name="patch_camelyon",
        title="PatchCamelyon: tiles of lymph nodes with or without metastases",
        namespace="patch_camelyon",
        modalities=("pathology",),
        tasks=("breast",),
        publisher="Veeling, Linmans, Winkens, Cohen, Welling (Zenodo)",
        homepage="https://zenodo.org/records/2546921",
        licence="CC0 1.0",
        licence_forbids="Nothing; citation of PCam and Camelyon16 is asked for.",
        how_to_obtain="https://zenodo.org/records/2546921: the six .h5.gz files, unpacked with "
        "gunzip, and the three _meta.csv files; --manual_dir is the folder that holds them",
        citation="Veeling, B. S. et al. Rotation Equivariant CNNs for Digital Pathology. MICCAI "
        "2018. doi:10.1007/978-3-030-00934-2_24",
        group_key="slide (column wsi of the tables)",
        unit="tile",
        size="327,680 tiles (7.5 GB packed)",
    )
    DATASHEET = Datasheet(
        collection="Tiles of 400 slides of sentinel lymph nodes of two Dutch hospitals "
        "(Camelyon16), half of them with metastasis.",
        labels="By the outlines that pathologists drew: a pixel of tumour in the middle 32 x 32.",
        personal_data="None: numbers of slides.",
        consent="Camelyon16 was approved by the hospitals' review boards, consent was waived.",
        patients_separable="By slide; a patient has one, as far as is known.",
        known_biases="Two scanners; tiles were drawn to be hard by a model, so half of them being "
        "positive is no prevalence.",
        intended_use="Development and testing of classification of tiles.",
        unsuitable_use="Any clinical use; a claim on slides or patients.",
    )
    EXPECTED_LAYOUT = (
        f"{_PREFIX}_{{train,valid,test}}_{{x.h5,y.h5,meta.csv}} (the .h5.gz files unpacked)"
    )

    def record_features(self) -> dict[str, Any]:
        """One tile."""
        return {"pathology": pathology_features()}

    def class_names(self) -> dict[str, tuple[str, ...]]:
        """In order of severity."""
        return {"breast": CLASSES}

    def read_source(self, manual_dir: Path, quarantine: Quarantine) -> Iterator[SourceRecord]:
        """Yields the tiles by file, in their order."""
        for side, split in _SIDES.items():
            stem = manual_dir / f"{_PREFIX}_{side}"
            table = Path(f"{stem}_meta.csv")
            slides = [row["wsi"].strip() for row in read_csv(table, ("wsi",))]
            tiles, labels = TileFile(Path(f"{stem}_x.h5")), read_labels(Path(f"{stem}_y.h5"))
            if not len(tiles) == len(labels) == len(slides):
                raise UserError(
                    f"the files {stem}_* have {len(tiles)} tiles, {len(labels)} labels and "
                    f"{len(slides)} rows; accepted: the same number of each"
                )
            for start in range(0, len(slides), _BLOCK):
                # No tile is read where none of the block is asked for.
                block = functools.cache(functools.partial(tiles.read, start, start + _BLOCK))
                for i in range(start, min(start + _BLOCK, len(slides))):
                    yield late_record(
                        "pathology",
                        functools.partial(_tile, block, i - start),
                        sample_id=f"{side}/{i:06d}",
                        group_id=slides[i],
                        targets={"breast": int(labels[i])},
                        stratum=CLASSES[int(labels[i])],
                        official_split=split,
                    )


def _tile(block: Block, i: int) -> Payload:
    return pixels_tile(block()[i], MICRONS_PER_PIXEL)
