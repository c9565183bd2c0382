"""Single CT slices in DICOM: an allow-list of tags, Hounsfield units, a salted hash of the patient.

Only the tags of `_TAGS` are read; no other part of a header reaches a record. Requires pydicom.
Tags and terms. Source: DICOM PS3.3, sections C.7.6.3 (image pixel), C.7.5.1.1.2 (pixel padding)
and C.11.1 (modality LUT).
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int16

from multimed_jax.types import UserError
from tfds_builders.core.records import UnreadableRecord

# Air by definition of the Hounsfield scale (water is 0).
AIR_HU = -1000
# No detector makes larger slices; a header that claims one is damaged, and nothing is allocated.
MAX_PIXELS = 64_000_000
_AGE = re.compile(r"(\d{1,3})([YMWD])", re.ASCII)
_YEARS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}
_TAGS = (
    "SOPClassUID",
    "Modality",
    "Manufacturer",
    "PatientID",
    "PatientSex",
    "PatientAge",
    "PixelSpacing",
    "SpacingBetweenSlices",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "RescaleIntercept",
    "RescaleSlope",
    "RescaleType",
    "ModalityLUTSequence",
    "PixelData",
)


@dataclasses.dataclass(frozen=True)
class CtSlice:
    """A CT slice and the little that is kept of its header.

    Attributes:
        hu: Hounsfield units, rounded; pixels outside of the reconstruction are air.
        spacing_mm: (depth, row, column); 0 where the header does not say.
        patient: salted hash of the patient's id, 16 hexadecimal digits.
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


def read_ct_slice(path: Path, salt: str) -> CtSlice:
    """Reads a DICOM file with one CT slice.

    Args:
        path: of the file.
        salt: of the patient's hash, the same for all files of a source.

    Raises:
        UnreadableRecord: no DICOM file, no CT, several frames or colours, no (or a senseless)
            rescaling to Hounsfield units, pixels that are missing or do not decode, no patient.
        UserError: pydicom is not installed.
    """
    try:
        import pydicom
        from pydicom.errors import InvalidDicomError
    except ImportError:
        raise UserError(
            "reading DICOM files needs pydicom, which is not installed: "
            "pip install multimed-jax[formats]"
        ) from None
    try:
        with warnings.catch_warnings():
            # pydicom warns of values that break the rules of their type; those used are checked.
            warnings.simplefilter("ignore")
            header = pydicom.dcmread(path, specific_tags=list(_TAGS))
            # A value is only converted, and found to be faulty, when it is asked for.
            values = {name: header[name].value for name in _TAGS if name in header}
    except InvalidDicomError as error:
        raise UnreadableRecord("is no DICOM file") from error
    except OSError as error:
        raise UnreadableRecord(f"cannot be opened ({error.strerror or 'cut short'})") from error
    except Exception as error:  # damaged files raise whatever their bytes lead pydicom to
        raise UnreadableRecord(f"does not parse: {type(error).__name__}") from error
    _check_kind(values)
    slope, intercept = _rescaling(values)
    stored = _stored_values(header, values)
    with np.errstate(over="ignore"):  # clipped below
        scaled = np.rint(stored * slope + intercept)
    info = np.iinfo(np.int16)
    hu = np.clip(scaled, info.min, info.max).astype(np.int16)
    hu[_padded(stored, values)] = AIR_HU
    patient = str(values.get("PatientID") or "").strip()
    if not patient:
        raise UnreadableRecord("has no PatientID, so its patient cannot be kept in one split")
    return CtSlice(
        hu=hu[None],
        spacing_mm=_spacing(values),
        patient=hashlib.blake2b(
            patient.encode(), key=hashlib.sha256(salt.encode()).digest(), digest_size=8
        ).hexdigest(),
        sex={"F": "female", "M": "male"}.get(str(values.get("PatientSex") or "").strip(), ""),
        age_years=_age(values),
        manufacturer=str(values.get("Manufacturer") or "").strip(" \0").upper(),
    )


def _check_kind(values: dict[str, Any]) -> None:
    modality = values.get("Modality")
    if modality != "CT":
        raise UnreadableRecord(f"has the modality {modality!r}; accepted: 'CT'")
    frames = _number(values, "NumberOfFrames", 1)
    samples = _number(values, "SamplesPerPixel", 1)
    if frames != 1 or samples != 1:
        raise UnreadableRecord(
            f"has {frames:g} frame(s) of {samples:g} sample(s) per pixel; accepted: 1 of 1"
        )
    # MONOCHROME1 only says that low values are shown bright; Hounsfield units do not change.
    colours = values.get("PhotometricInterpretation")
    if colours not in ("MONOCHROME1", "MONOCHROME2"):
        raise UnreadableRecord(
            f"has the photometric interpretation {colours!r}; accepted: MONOCHROME1, MONOCHROME2"
        )


def _rescaling(values: dict[str, Any]) -> tuple[float, float]:
    if "ModalityLUTSequence" in values:
        raise UnreadableRecord("has a lookup table in place of a rescaling to Hounsfield units")
    unit = values.get("RescaleType") or "HU"
    if unit != "HU":
        raise UnreadableRecord(f"is rescaled to {unit!r}; accepted: 'HU', or nothing")
    for name in ("RescaleSlope", "RescaleIntercept"):
        if values.get(name) in (None, ""):
            raise UnreadableRecord(f"has no {name}, so its values are no Hounsfield units")
    slope, intercept = _number(values, "RescaleSlope"), _number(values, "RescaleIntercept")
    if slope <= 0:
        raise UnreadableRecord(f"has the rescale slope {slope:g}; accepted: above 0")
    return slope, intercept


def _stored_values(header: Any, values: dict[str, Any]) -> np.ndarray:
    rows, columns = _number(values, "Rows"), _number(values, "Columns")
    if not 0 < rows * columns <= MAX_PIXELS:
        raise UnreadableRecord(
            f"has {rows:g} x {columns:g} pixels; accepted: 1 to {MAX_PIXELS} in all"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            stored = header.pixel_array
    except Exception as error:  # see above; also a compression whose decoder is not installed
        raise UnreadableRecord(f"has pixels that do not decode: {type(error).__name__}") from error
    if not np.issubdtype(stored.dtype, np.integer) or stored.ndim != 2:
        raise UnreadableRecord(f"has pixels of type {stored.dtype} and shape {stored.shape}")
    return stored


def _padded(stored: np.ndarray, values: dict[str, Any]) -> np.ndarray:
    """Where a pixel holds the padding value, or lies between it and the limit of its range.

    Writers mix signs: -2000 also occurs as 63536, the same 16 bits read without a sign. The values
    are therefore brought to the type of the pixels first.
    """
    ends = []
    for name in ("PixelPaddingValue", "PixelPaddingRangeLimit"):
        if values.get(name) is None:
            continue
        bits = 8 * stored.dtype.itemsize
        number = int(_number(values, name)) % 2**bits
        if np.issubdtype(stored.dtype, np.signedinteger) and number >= 2 ** (bits - 1):
            number -= 2**bits
        ends.append(number)
    if values.get("PixelPaddingValue") is None:
        return np.zeros(stored.shape, bool)
    return (stored >= min(ends)) & (stored <= max(ends))


def _spacing(values: dict[str, Any]) -> tuple[float, float, float]:
    """A slice's thickness is no distance between slices and is not used."""
    depth = max(0.0, _number(values, "SpacingBetweenSlices"))
    try:
        row, column = (float(mm) for mm in values.get("PixelSpacing") or (0, 0))
    except (TypeError, ValueError) as error:
        raise UnreadableRecord("has a PixelSpacing that is not two numbers") from error
    if not (0 <= row < math.inf and 0 <= column < math.inf):
        raise UnreadableRecord(f"has a PixelSpacing of {row:g} and {column:g}; accepted: from 0")
    return depth, row, column


def _number(values: dict[str, Any], name: str, absent: float = 0.0) -> float:
    """A tag's value; `absent` where the header lacks it or leaves it empty."""
    value = values.get(name)
    if value is None or value == "":
        return absent
    try:
        number = float(value)
    except (TypeError, ValueError) as error:  # several values, bytes of an unknown type, text
        raise UnreadableRecord(f"has a {name} that is no number") from error
    if not math.isfinite(number):
        raise UnreadableRecord(f"has a {name} that is not finite")
    return number


def _age(values: dict[str, Any]) -> float | None:
    match = _AGE.fullmatch(str(values.get("PatientAge") or "").strip())
    return int(match[1]) * _YEARS[match[2]] if match else None
