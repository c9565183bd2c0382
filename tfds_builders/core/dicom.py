"""Single CT slices in DICOM: Hounsfield units, and the little that is kept of the header.

`dicom_header` reads the file; only the tags of `_TAGS` are asked for. Requires pydicom.
Source: DICOM PS3.3, C.7.5.1.1.2 (pixel padding) and C.11.1 (modality LUT).
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from jaxtyping import Int16

from tfds_builders.core.dicom_header import (
    PIXEL_TAGS,
    Values,
    age_in_years,
    check_one_grey_frame,
    number,
    patient_hash,
    pixel_spacing_mm,
    read_header,
    sex_of,
    stored_values,
    term,
)
from tfds_builders.core.records import UnreadableRecord

# Air by definition of the Hounsfield scale (water is 0).
AIR_HU = -1000
_TAGS = (
    *PIXEL_TAGS,
    "SOPClassUID",
    "Modality",
    "Manufacturer",
    "PatientID",
    "PatientSex",
    "PatientAge",
    "PixelSpacing",
    "SpacingBetweenSlices",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "RescaleIntercept",
    "RescaleSlope",
    "RescaleType",
    "ModalityLUTSequence",
)


@dataclasses.dataclass(frozen=True)
class CtSlice:
    """A CT slice and the little that is kept of its header.

    Attributes:
        hu: Hounsfield units, rounded; pixels outside of the reconstruction are air.
        spacing_mm: (depth, row, column); 0 where the header does not say.
        patient: salted hash of the patient's id, 16 hexadecimal digits; see `patient_hash`.
        sex: "female", "male" or "".
        age_years: None where unknown.
        manufacturer: of the scanner in capitals, "" where unknown.
    """

    hu: Int16[np.ndarray, "1 row column"]
    spacing_mm: tuple[float, float, float]
    patient: str
    sex: str
    age_years: float | None
    manufacturer: str


def read_ct_slice(path: Path, salt: str, accept_burned_in: bool = False) -> CtSlice:
    """Reads a DICOM file with one CT slice.

    Args:
        path: of the file.
        salt: of the patient's hash, the same for all files of a source.
        accept_burned_in: read a file whose header says that text is drawn into its pixels.

    Raises:
        UnreadableRecord: no DICOM file, no CT, several frames or colours, no (or a senseless)
            rescaling to Hounsfield units, pixels that are missing or do not decode, no patient,
            burned-in annotation.
        UserError: pydicom is not installed.
    """
    header, values = read_header(path, _TAGS, accept_burned_in)
    if values.get("Modality") != "CT":
        raise UnreadableRecord(f"has the modality {term(values.get('Modality'))}; accepted: 'CT'")
    # MONOCHROME1 only says that low values are shown bright; Hounsfield units do not change.
    check_one_grey_frame(values)
    slope, intercept = _rescaling(values)
    stored = stored_values(header, values)
    with np.errstate(over="ignore"):  # clipped below
        scaled = np.rint(stored * slope + intercept)
    info = np.iinfo(np.int16)
    hu = np.clip(scaled, info.min, info.max).astype(np.int16)
    hu[_padded(stored, values)] = AIR_HU
    # A slice's thickness is no distance between slices and is not used.
    depth = max(0.0, number(values, "SpacingBetweenSlices"))
    return CtSlice(
        hu=hu[None],
        spacing_mm=(depth, *pixel_spacing_mm(values)),
        patient=patient_hash(values, salt),
        sex=sex_of(values),
        age_years=age_in_years(values),
        manufacturer=str(values.get("Manufacturer") or "").strip(" \0").upper(),
    )


def _rescaling(values: Values) -> tuple[float, float]:
    if "ModalityLUTSequence" in values:
        raise UnreadableRecord("has a lookup table in place of a rescaling to Hounsfield units")
    unit = values.get("RescaleType") or "HU"
    if unit != "HU":
        raise UnreadableRecord(f"is rescaled to {term(unit)}; accepted: 'HU', or nothing")
    for name in ("RescaleSlope", "RescaleIntercept"):
        if values.get(name) in (None, ""):
            raise UnreadableRecord(f"has no {name}, so its values are no Hounsfield units")
    slope, intercept = number(values, "RescaleSlope"), number(values, "RescaleIntercept")
    if slope <= 0:
        raise UnreadableRecord(f"has the rescale slope {slope:g}; accepted: above 0")
    return slope, intercept


def _padded(stored: np.ndarray, values: Values) -> np.ndarray:
    """Where a pixel holds the padding value, or lies between it and the limit of its range.

    Writers mix signs: -2000 also occurs as 63536, the same 16 bits read without a sign. The values
    are therefore brought to the type of the pixels first.
    """
    ends = []
    for name in ("PixelPaddingValue", "PixelPaddingRangeLimit"):
        if values.get(name) is None:
            continue
        bits = 8 * stored.dtype.itemsize
        value = int(number(values, name)) % 2**bits
        if np.issubdtype(stored.dtype, np.signedinteger) and value >= 2 ** (bits - 1):
            value -= 2**bits
        ends.append(value)
    if values.get("PixelPaddingValue") is None:
        return np.zeros(stored.shape, bool)
    return (stored >= min(ends)) & (stored <= max(ends))
