"""Projection radiographs in DICOM: one grey view as PNG, bright bone, and little of the header.

Source: DICOM PS3.3, C.7.6.3.1.2 (photometric interpretation: MONOCHROME1 shows low values bright)
and C.8.7.1 (imager pixel spacing, at the detector). Requires pydicom.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8, UInt16

from tfds_builders.core.base import age_years
from tfds_builders.core.dicom_header import (
    PIXEL_TAGS,
    Values,
    age_in_years,
    check_one_grey_frame,
    number,
    pixel_spacing_mm,
    read_header,
    sex_of,
    stored_values,
    term,
)
from tfds_builders.core.picture_records import Payload, png
from tfds_builders.core.records import UnreadableRecord, array_audit

_TAGS = (
    *PIXEL_TAGS,
    "Modality",
    "PatientSex",
    "PatientAge",
    "PixelSpacing",
    "ImagerPixelSpacing",
)


def radiograph(
    path: Path, modalities: Sequence[str] = (), accept_burned_in: bool = False
) -> Payload:
    """Reads a view; `more` has `sex` and `age_years`, "" and NaN where the header lacks them.

    Values run from the least to the greatest of the view, as 8 bits where no more are stored,
    else as 16; MONOCHROME1 is turned round. Display windows are not applied, so nothing is cut.

    Args:
        path: of the file.
        modalities: accepted ones such as "MG"; every one where it is empty.
        accept_burned_in: read a file whose header says that text is drawn into its pixels.

    Raises:
        UnreadableRecord: no DICOM file, another modality, several frames or colours, pixels that
            are missing or do not decode, burned-in annotation.
        UserError: pydicom is not installed.
    """
    header, values = read_header(path, _TAGS, accept_burned_in)
    if modalities and values.get("Modality") not in modalities:
        raise UnreadableRecord(
            f"has the modality {term(values.get('Modality'))}; accepted: {', '.join(modalities)}"
        )
    check_one_grey_frame(values)
    levels = _levels(stored_values(header, values), values)
    value = {
        "encoded": png(levels),
        "height": levels.shape[0],
        "width": levels.shape[1],
        "spacing_mm": np.asarray(_spacing_mm(values), np.float32),
    }
    more = {"sex": sex_of(values), "age_years": age_years(age_in_years(values))}
    return Payload(value, array_audit(levels), more)


def _levels(
    stored: np.ndarray, values: Values
) -> UInt8[np.ndarray, "row column"] | UInt16[np.ndarray, "row column"]:
    kind = np.uint8 if number(values, "BitsStored", 16) <= 8 else np.uint16
    scaled = stored.astype(np.float64) - float(stored.min())
    scaled *= np.iinfo(kind).max / max(float(scaled.max()), 1.0)
    if values.get("PhotometricInterpretation") == "MONOCHROME1":
        scaled = scaled.max() - scaled
    return np.rint(scaled).astype(kind)


def _spacing_mm(values: Values) -> tuple[float, float]:
    """(row, column); at the detector where the header has no calibrated one."""
    found = pixel_spacing_mm(values)
    return found if any(found) else pixel_spacing_mm(values, "ImagerPixelSpacing")
