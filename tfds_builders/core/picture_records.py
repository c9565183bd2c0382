"""Records of one file each: read late, checked once, compared by exact content.

Sources of films, photographs, smears and slices hold pictures that look alike by nature, and the
look of a picture says nothing about its patient. What is found here are equal files (of arrays:
equal values) under two names; look-alikes are for `python -m tfds_builders audit`.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import struct
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int16, UInt8
from PIL import Image

from tfds_builders.core.images import MAX_PIXELS, ImageFile, read_image
from tfds_builders.core.records import (
    AuditKey,
    SourceRecord,
    UnreadableRecord,
    array_audit,
    bytes_audit,
)

# The lung window, centre -600 and width 1,500 HU. Source: Radiopaedia, "Windowing (CT)", typical
# values of the lungs; COVID-Net CT converts its sources to 8 bits by the same one.
LUNG_WINDOW_HU = (-1350.0, 150.0)


@dataclasses.dataclass(frozen=True)
class Payload:
    """What a file holds.

    Attributes:
        value: of the record's modality.
        audit: exact key of the content.
        more: further keys of the record that the file itself tells, such as the sex.
    """

    value: Mapping[str, Any]
    audit: AuditKey
    more: Mapping[str, Any] = dataclasses.field(default_factory=dict)


Reader = Callable[[], Payload]


def late_record(
    modality: str,
    read: Reader,
    *,
    sample_id: str,
    group_id: str,
    targets: Mapping[str, Any],
    stratum: str = "",
    official_split: str | None = None,
    more: Mapping[str, Any] | None = None,
) -> SourceRecord:
    """A record whose file is read when it is audited or written, not before.

    Args:
        modality: key of the payload, such as "xray".
        read: reads the file; may raise `UnreadableRecord`.
        sample_id: see `SourceRecord`, as the following ones.
        group_id: what must stay in one split.
        targets: of the record.
        stratum: for class quotas.
        official_split: by the publisher.
        more: further keys of the record.
    """
    return SourceRecord(
        sample_id=sample_id,
        group_id=group_id,
        record=functools.partial(_load, modality, read, targets, more or {}),
        stratum=stratum,
        official_split=official_split,
        audit=functools.partial(_audit, read),
    )


def _load(
    modality: str, read: Reader, targets: Mapping[str, Any], more: Mapping[str, Any]
) -> dict[str, Any]:
    payload = read()
    return {modality: payload.value, **more, **payload.more, "targets": targets}


def _audit(read: Reader) -> AuditKey:
    return read().audit


def picture(path: Path) -> Payload:
    """A JPEG or PNG file as an image of unknown spacing; errors as of `read_image`."""
    image = read_image(path)
    return Payload(image.value(), bytes_audit(image.encoded))


def film(path: Path) -> Payload:
    """As `picture`, compared by its look too: for sources whose groups are told by patient."""
    image = read_image(path)
    return Payload(image.value(), image.audit)


def tile(path: Path, microns_per_pixel: float) -> Payload:
    """One tile of histology or cytology: a JPEG or PNG file as it is, a TIFF file as PNG.

    Raises:
        UnreadableRecord: as `read_image`.
    """
    if path.suffix.lower() in (".tif", ".tiff"):
        return pixels_tile(_read_tiff(path), microns_per_pixel)
    image = read_image(path)
    value = tile_value(image.encoded, image.height, image.width, microns_per_pixel)
    return Payload(value, bytes_audit(image.encoded))


def pixels_tile(pixels: UInt8[np.ndarray, "h w 3"], microns_per_pixel: float) -> Payload:
    """A tile that the source holds as RGB values, as PNG."""
    height, width = pixels.shape[:2]
    value = tile_value(png(pixels), height, width, microns_per_pixel)
    return Payload(value, array_audit(pixels))


def tile_value(encoded: bytes, height: int, width: int, microns_per_pixel: float) -> dict[str, Any]:
    """The canonical value of a record of one tile."""
    return {
        "tiles": [encoded],
        "heights": np.asarray([height], np.int32),
        "widths": np.asarray([width], np.int32),
        "microns_per_pixel": np.float32(microns_per_pixel),
    }


def png(pixels: np.ndarray) -> bytes:
    """Grey or RGB values of 8 bits, or grey ones of 16, as a PNG file."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", compress_level=1)
    return out.getvalue()


def _read_tiff(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=("TIFF",)) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise UnreadableRecord(f"has {width} x {height} pixels, above {MAX_PIXELS}")
                return np.asarray(image.convert("RGB"))
    except Image.UnidentifiedImageError as error:
        raise UnreadableRecord("is no TIFF file") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableRecord(f"has more than {MAX_PIXELS} pixels") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        raise UnreadableRecord(f"does not decode: {str(error)[:80]}") from error


# ------------------------------------------------------------- CT published as grey pictures


def grey_slice(path: Path) -> Payload:
    """A CT slice published as an 8-bit picture, its levels read as the lung window.

    Neither format has Hounsfield units: `from_lung_window` says what is assumed. The spacing is
    not known.
    """
    return _ct_payload(_grey_hu(path)[None])


def grey_volume(paths: Sequence[Path]) -> Payload:
    """The slices of a scan, in the given order, as one volume; see `grey_slice`.

    Raises:
        UnreadableRecord: a slice does not decode, or the slices have several sizes.
    """
    slices = [_grey_hu(path) for path in paths]
    if len({one.shape for one in slices}) > 1:
        raise UnreadableRecord("has slices of several sizes; accepted: one")
    return _ct_payload(np.stack(slices))


def from_lung_window(levels: UInt8[np.ndarray, "..."]) -> Int16[np.ndarray, "..."]:
    """Grey levels 0 to 255 as Hounsfield units from -1,350 to 150, rounded.

    Where a publisher used another window the units are off by a linear map, and whatever lay
    outside of it is lost: such records tell shape and contrast, not density.
    """
    low, high = LUNG_WINDOW_HU
    return np.rint(low + levels.astype(np.float64) * (high - low) / 255).astype(np.int16)


def _grey_hu(path: Path) -> Int16[np.ndarray, "row column"]:
    return from_lung_window(_grey(read_image(path)))


def _grey(image: ImageFile) -> UInt8[np.ndarray, "row column"]:
    with Image.open(io.BytesIO(image.encoded)) as opened:
        if opened.mode.startswith("I") or opened.mode == "F":
            raise UnreadableRecord(f"has pixels of mode {opened.mode}; accepted: 8 bits")
        return np.asarray(opened.convert("L"))


def _ct_payload(hu: Int16[np.ndarray, "depth row column"]) -> Payload:
    return Payload({"hu": hu, "spacing_mm": np.zeros(3, np.float32)}, array_audit(hu))
