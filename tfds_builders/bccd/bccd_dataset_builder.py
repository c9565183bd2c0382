"""Builder of BCCD: single blood cells, cut from smear photographs around the boxes of VOC files."""

from __future__ import annotations

import functools
import hashlib
import io
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Int, UInt8
from PIL import Image

from multimed_jax.types import UserError
from tfds_builders.bccd.annotation import Box, read_boxes
from tfds_builders.core.base import MedicalBuilder
from tfds_builders.core.features import pathology_features
from tfds_builders.core.folders import files, subfolders
from tfds_builders.core.images import read_image
from tfds_builders.core.quarantine import Quarantine
from tfds_builders.core.records import (
    AuditKey,
    Datasheet,
    SourceCard,
    SourceRecord,
    UnreadableRecord,
    bytes_audit,
)

_NAMES = ("RBC", "WBC", "Platelets")
CLASSES = ("red cell", "white cell", "platelet")
# All cells are shown in a window of one size: neither size nor shape of a tile gives away its box.
WINDOW = 128
# A photograph has some 12 red cells, one white cell and one platelet.
RED_CELLS_PER_IMAGE = 2
BLOCK_SIZE = 10
Photograph = Callable[[], UInt8[np.ndarray, "h w 3"]]
_FILE = re.compile(r"BloodImage_(?P<number>\d+)", re.ASCII)


def number_block(stem: str) -> str:
    """The block of ten neighbouring numbers: "BloodImage_00137" -> "block130".

    Raises:
        UserError: for a name of another form.
    """
    match = _FILE.fullmatch(stem)
    if match is None:
        raise UserError(f"the file name {stem!r} is unknown; expected BloodImage_<n>")
    return f"block{int(match['number']) // BLOCK_SIZE * BLOCK_SIZE}"


def chosen_boxes(stem: str, boxes: Sequence[Box], quarantine: Quarantine) -> list[int]:
    """Indices of the boxes that become records; the others are counted by reason.

    Of the red cells those with the lowest hash of image and index are taken, so that the choice is
    even over the image and the same at every build.

    Raises:
        UnreadableRecord: for a box of an unknown name.
    """
    unknown = sorted({box.name for box in boxes} - set(_NAMES))
    if unknown:
        raise UnreadableRecord(f"has a box named {unknown[0]!r}; accepted: {', '.join(_NAMES)}")
    red, taken = [], []
    for i, box in enumerate(boxes):
        if box.is_empty:
            quarantine.leave_out("box without width or height")
        else:
            (red if box.name == "RBC" else taken).append(i)
    red.sort(key=lambda i: hashlib.sha256(f"{stem}:{i}".encode()).digest())
    for _ in red[RED_CELLS_PER_IMAGE:]:
        quarantine.leave_out(f"red cell beyond {RED_CELLS_PER_IMAGE} of its photograph")
    return sorted([*taken, *red[:RED_CELLS_PER_IMAGE]])


def cut(pixels: UInt8[np.ndarray, "h w 3"], box: Box) -> UInt8[np.ndarray, "side side 3"]:
    """The window around the middle of a box; beyond the border the photograph is mirrored."""
    rows = _mirrored((box.top + box.bottom) // 2, pixels.shape[0])
    columns = _mirrored((box.left + box.right) // 2, pixels.shape[1])
    return pixels[rows[:, None], columns[None, :]]


def _mirrored(middle: int, size: int) -> Int[np.ndarray, "side"]:  # noqa: F821
    """Indices of the window around `middle` on an axis: ... 1 0 | 0 1 ... n-1 | n-1 n-2 ..."""
    middle = min(max(middle, 0), size - 1)
    index = np.arange(middle - WINDOW // 2, middle + WINDOW // 2) % (2 * size)
    return np.minimum(index, 2 * size - 1 - index)


class Builder(MedicalBuilder):
    """Single cells of blood smears: red, white or platelet."""

    VERSION = tfds.core.Version("1.0.0")
    CARD = SourceCard(
        name="bccd",
        title="BCCD: red cells, white cells and platelets in blood smears",
        namespace="bccd",
        modalities=("pathology",),
        tasks=("cell_type",),
        publisher="Shenggan (GitHub Shenggan/BCCD_Dataset), from cosmicad/dataset and "
        "akshaylamba/all_CELL_data",
        homepage="https://github.com/Shenggan/BCCD_Dataset",
        licence="MIT",
        licence_forbids="Copies without the licence's notice.",
        how_to_obtain="clone github.com/Shenggan/BCCD_Dataset; --manual_dir is the folder that "
        "holds BCCD",
        citation="BCCD Dataset, github.com/Shenggan/BCCD_Dataset, 2017",
        group_key=f"block of {BLOCK_SIZE} neighbouring numbers, a copy joining its first twin's "
        "block",
        unit="cell",
        size="364 photographs with 4,888 boxes",
    )
    DATASHEET = Datasheet(
        collection="Photographs of stained blood smears through a microscope; hospital, device and "
        "magnification are not stated.",
        labels="Boxes drawn by the publishers; not every red cell is boxed.",
        personal_data="None: photographs of cells without any field of a patient.",
        consent="Unknown: not stated by the publishers.",
        patients_separable="No, neither patient nor slide is recorded; number blocks stand in.",
        known_biases="Stain and size tell the three classes apart almost alone; each photograph "
        "was aimed at a white cell.",
        intended_use="Development and testing of pipelines for microscopy.",
        unsuitable_use="Counting of cells, white-cell subtypes, any clinical use.",
    )
    EXPECTED_LAYOUT = "BCCD/{JPEGImages/BloodImage_<n>.jpg,Annotations/BloodImage_<n>.xml}"
    # Number blocks would chain up if equal photographs united them.
    ON_DUPLICATES = "share_group"

    def record_features(self) -> dict[str, Any]:
        """One cell."""
        return {"pathology": pathology_features()}

    def class_names(self) -> dict[str, tuple[str, ...]]:
        """The three kinds of cells in the order of their frequency."""
        return {"cell_type": CLASSES}

    def read_source(self, manual_dir: Path, quarantine: Quarantine) -> Iterator[SourceRecord]:
        """Yields the cells by photograph, then in the order of the boxes."""
        nested = manual_dir / "BCCD"
        root = nested if nested.is_dir() else manual_dir
        images, notes = subfolders(root, ("JPEGImages", "Annotations"), others_allowed=True)
        for path in files(images, (".jpg", ".jpeg")):
            block = number_block(path.stem)
            try:
                boxes = read_boxes(notes / f"{path.stem}.xml")
                chosen = chosen_boxes(path.stem, boxes, quarantine)
            except UnreadableRecord as error:
                quarantine.add(path.stem, str(error))
                continue
            # One decoding for all cells of a photograph, and none where no cell is asked for.
            photograph = functools.cache(functools.partial(_read_pixels, path))
            for i in chosen:
                label = _NAMES.index(boxes[i].name)
                yield SourceRecord(
                    sample_id=f"{path.stem}/{i}",
                    group_id=block,
                    record=functools.partial(_record, photograph, boxes[i], label),
                    stratum=CLASSES[label],
                    audit=functools.partial(_audit, photograph, boxes[i]),
                )


def _read_pixels(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    content = read_image(path).encoded
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"))


def _audit(photograph: Photograph, box: Box) -> AuditKey:
    return bytes_audit(cut(photograph(), box).tobytes())


def _record(photograph: Photograph, box: Box, label: int) -> dict[str, Any]:
    encoded = io.BytesIO()
    Image.fromarray(cut(photograph(), box)).save(encoded, "PNG", compress_level=1)
    return {
        "pathology": {
            "tiles": [encoded.getvalue()],
            "heights": np.asarray([WINDOW], np.int32),
            "widths": np.asarray([WINDOW], np.int32),
            "microns_per_pixel": np.float32(0),
        },
        "targets": {"cell_type": label},
    }
