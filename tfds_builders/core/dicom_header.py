"""The header of a DICOM file: only tags that were asked for by name, and none that is private.

What a header holds beyond the allow-list is skipped while the file is read, so it can reach no
record, message or log. Messages show a value only where it is one of the standard's own terms:
free text in a coded field may be a name. Requires pydicom. Source: DICOM PS3.3, C.7.6.1.1.1 (burned
in annotation), C.7.6.3 (image pixel), C.7.3.1.1.1 (modality); PS3.15, annex E (de-identification).
"""

from __future__ import annotations

import hashlib
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from multimed_jax.types import UserError
from tfds_builders.core.records import UnreadableRecord

# No detector makes larger images; a header that claims one is damaged, and nothing is allocated.
MAX_PIXELS = 64_000_000
# Asked of every file, whatever else is read of it.
_PRIVACY_TAGS = ("BurnedInAnnotation",)
# What `pixel_array` needs.
PIXEL_TAGS = (
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PlanarConfiguration",
    "PixelData",
)
_TERMS = re.compile(
    r"CT|MR|CR|DX|MG|US|XA|RF|NM|PT|OT|SR|SEG|SC|OP|OPT|SM|IO|PX|ES|XC|ECG|RT(IMAGE|DOSE|PLAN)"
    r"|MONOCHROME[12]|PALETTE COLOR|RGB|YBR_\w{1,16}|HU|OD|US|MGML|Z_EFF|ED|EDW|HU_MOD|PCT",
    re.ASCII,
)
_AGE = re.compile(r"(\d{1,3})([YMWD])", re.ASCII)
_YEARS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}

Values = Mapping[str, Any]


def read_header(
    path: Path, tags: Sequence[str], accept_burned_in: bool = False
) -> tuple[Any, dict[str, Any]]:
    """Reads the tags of the given names, and no other.

    Args:
        path: of the file.
        tags: names of the standard's dictionary, such as "Rows".
        accept_burned_in: read a file whose header says that text is drawn into its pixels.

    Returns:
        The pydicom dataset with these tags, for `pixel_array`, and their values by name.

    Raises:
        UnreadableRecord: no DICOM file, one that does not parse, or burned-in annotation.
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
    names = [*tags, *_PRIVACY_TAGS]
    try:
        with warnings.catch_warnings():
            # pydicom warns of values that break the rules of their type; those used are checked.
            warnings.simplefilter("ignore")
            header = pydicom.dcmread(path, specific_tags=names)
            _forget_the_rest(header)
            # A value is only converted, and found to be faulty, when it is asked for.
            values = {name: header[name].value for name in names if name in header}
    # The causes are cut off: what pydicom says of a faulty value quotes the value.
    except InvalidDicomError:
        raise UnreadableRecord("is no DICOM file") from None
    except OSError as error:
        raise UnreadableRecord(f"cannot be opened ({error.strerror or 'cut short'})") from None
    except Exception as error:  # damaged files raise whatever their bytes lead pydicom to
        raise UnreadableRecord(f"does not parse: {type(error).__name__}") from None
    burned_in = str(values.get("BurnedInAnnotation") or "").strip().upper()
    if burned_in not in ("", "NO") and not accept_burned_in:
        raise UnreadableRecord(
            "has burned-in annotation, which may name the patient (--accept_burned_in takes it)"
        )
    return header, values


def _forget_the_rest(header: Any) -> None:
    """Of what precedes the data set only the encoding of the pixels is needed."""
    header.preamble = None
    for tag in [tag for tag in header.file_meta if tag.keyword != "TransferSyntaxUID"]:
        del header.file_meta[tag.tag]


def term(value: Any) -> str:
    """A coded value for a message: as it is where the standard has it, else that it is unknown."""
    text = "" if value is None else str(value).strip()
    if not text:
        return repr(value)
    return repr(text) if _TERMS.fullmatch(text) else "an unknown term"


def stored_values(header: Any, values: Values) -> np.ndarray:
    """The pixels of one grey frame as they are stored, [row, column].

    Raises:
        UnreadableRecord: too many pixels, or pixels that are missing or do not decode.
    """
    rows, columns = number(values, "Rows"), number(values, "Columns")
    if not 0 < rows * columns <= MAX_PIXELS:
        raise UnreadableRecord(
            f"has {rows:g} x {columns:g} pixels; accepted: 1 to {MAX_PIXELS} in all"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            stored = header.pixel_array
    except Exception as error:  # see above; also a compression whose decoder is not installed
        raise UnreadableRecord(f"has pixels that do not decode: {type(error).__name__}") from None
    if not np.issubdtype(stored.dtype, np.integer) or stored.ndim != 2:
        raise UnreadableRecord(f"has pixels of type {stored.dtype} and shape {stored.shape}")
    return stored


def check_one_grey_frame(values: Values) -> None:
    """Raises UnreadableRecord for several frames, or for colours."""
    frames = number(values, "NumberOfFrames", 1)
    samples = number(values, "SamplesPerPixel", 1)
    if frames != 1 or samples != 1:
        raise UnreadableRecord(
            f"has {frames:g} frame(s) of {samples:g} sample(s) per pixel; accepted: 1 of 1"
        )
    colours = values.get("PhotometricInterpretation")
    if colours not in ("MONOCHROME1", "MONOCHROME2"):
        raise UnreadableRecord(
            f"has the photometric interpretation {term(colours)}; "
            "accepted: MONOCHROME1, MONOCHROME2"
        )


def number(values: Values, name: str, absent: float = 0.0) -> float:
    """A tag's value; `absent` where the header lacks it or leaves it empty.

    Raises:
        UnreadableRecord: no number, several, or one that is not finite.
    """
    value = values.get(name)
    if value is None or value == "":
        return absent
    try:
        found = float(value)
    except (TypeError, ValueError):  # several values, bytes of an unknown type, text
        raise UnreadableRecord(f"has a {name} that is no number") from None
    if not math.isfinite(found):
        raise UnreadableRecord(f"has a {name} that is not finite")
    return found


def pixel_spacing_mm(values: Values, name: str = "PixelSpacing") -> tuple[float, float]:
    """(row, column) spacing; 0 where the header does not say."""
    try:
        row, column = (float(mm) for mm in values.get(name) or (0, 0))
    except (TypeError, ValueError):
        raise UnreadableRecord(f"has a {name} that is not two numbers") from None
    if not (0 <= row < math.inf and 0 <= column < math.inf):
        raise UnreadableRecord(f"has a {name} of {row:g} and {column:g}; accepted: from 0")
    return row, column


def age_in_years(values: Values) -> float | None:
    """PatientAge such as "063Y" in years, None where it is absent or no age."""
    match = _AGE.fullmatch(str(values.get("PatientAge") or "").strip())
    return int(match[1]) * _YEARS[match[2]] if match else None


def sex_of(values: Values) -> str:
    """PatientSex as "female" or "male", "" where it says neither."""
    return {"F": "female", "M": "male"}.get(str(values.get("PatientSex") or "").strip(), "")


def patient_hash(values: Values, salt: str) -> str:
    """16 hexadecimal digits for the PatientID: for splits inside a build.

    Ids can be listed and hashed, so this hash alone does not protect them: a builder that uses it
    declares its group ids private, and the base class writes them as keyed hashes.

    Raises:
        UnreadableRecord: the header has no PatientID.
    """
    patient = str(values.get("PatientID") or "").strip()
    if not patient:
        raise UnreadableRecord("has no PatientID, so its patient cannot be kept in one split")
    key = hashlib.sha256(salt.encode()).digest()
    return hashlib.blake2b(
        patient.encode("utf-8", "surrogatepass"), key=key, digest_size=8
    ).hexdigest()
