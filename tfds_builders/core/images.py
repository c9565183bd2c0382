"""Image files: read whole, checked by decoding once, and described for the duplicate audit."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tfds_builders.core.records import AuditKey, UnreadableRecord

FORMATS = ("JPEG", "PNG")
# The largest detector images of radiography have about 25 million pixels; far beyond that a file
# is a decompression bomb, refused from its header before any pixel is allocated.
MAX_PIXELS = 64_000_000
THUMBNAIL_SIDE = 32
_HASH_SIDE = 8


@dataclasses.dataclass(frozen=True)
class ImageFile:
    """An image file that decodes.

    Attributes:
        encoded: the file's bytes, unchanged.
        height: in pixels.
        width: in pixels.
        audit: for the duplicate audit.
    """

    encoded: bytes
    height: int
    width: int
    audit: AuditKey

    def value(self, spacing_mm: tuple[float, float] = (0.0, 0.0)) -> dict[str, Any]:
        """The canonical value of an image modality."""
        return {
            "encoded": self.encoded,
            "height": self.height,
            "width": self.width,
            "spacing_mm": np.asarray(spacing_mm, np.float32),
        }


def read_image(path: Path) -> ImageFile:
    """Reads and decodes a JPEG or PNG file.

    Raises:
        UnreadableRecord: where the file is missing, truncated, of another format or larger than
            `MAX_PIXELS`.
    """
    try:
        encoded = path.read_bytes()
    except OSError as error:
        raise UnreadableRecord(f"cannot be opened ({error.strerror})") from error
    return decode_image(encoded)


def decode_image(encoded: bytes) -> ImageFile:
    """As `read_image`, from the bytes of a file."""
    grey, height, width = _decode(encoded)
    return ImageFile(encoded, height, width, _audit(encoded, grey))


def look_of(encoded: bytes) -> AuditKey:
    """The audit key of the bytes of an image file; errors as of `read_image`."""
    return _audit(encoded, _decode(encoded)[0])


def _audit(encoded: bytes, grey: Image.Image) -> AuditKey:
    return AuditKey(
        digest=hashlib.sha256(encoded).digest(),
        perceptual=perceptual_hash(grey),
        thumbnail=make_thumbnail(grey),
    )


def _decode(encoded: bytes) -> tuple[Image.Image, int, int]:
    try:
        with warnings.catch_warnings():
            # Pillow only warns of images between one and two times its own limit.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(encoded), formats=FORMATS)
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise UnreadableRecord(f"has {width} x {height} pixels, above {MAX_PIXELS}")
            return _to_grey(image), height, width
    except Image.UnidentifiedImageError as error:
        raise UnreadableRecord(f"is no {' or '.join(FORMATS)} file") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableRecord(f"has more than {MAX_PIXELS} pixels") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        raise UnreadableRecord(f"does not decode: {str(error)[:80]}") from error


def _to_grey(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        # Pillow clips 16-bit values on conversion; scale them to 8 bits instead.
        values = np.asarray(image, np.float64)
        values = 255 * (values - values.min()) / max(np.ptp(values), 1)
        return Image.fromarray(values.astype(np.uint8))
    return image.convert("L")


def perceptual_hash(grey: Image.Image) -> int:
    """64-bit hash of the low frequencies: signs of an 8 x 8 cosine transform about its median.

    Source: the DCT image hash of Zauner, "Implementation and Benchmarking of Perceptual Image
    Hash Functions" (2010), section 3.2.1, with the first coefficient left out of the median.
    """
    size = (THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    pixels = np.asarray(grey.resize(size, Image.Resampling.LANCZOS), np.float64)
    low = (_COSINES @ pixels @ _COSINES.T).ravel()
    bits = low > np.median(low[1:])
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def make_thumbnail(grey: Image.Image) -> bytes:
    """32 x 32 grey levels, each the mean of its area."""
    size = (THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    return grey.resize(size, Image.Resampling.BOX).tobytes()


def _cosine_rows() -> np.ndarray:
    """The first 8 rows of the orthonormal cosine transform (type II) of 32 points."""
    k = np.arange(_HASH_SIDE)[:, None]
    x = np.arange(THUMBNAIL_SIDE)[None, :] + 0.5
    rows = np.cos(np.pi * k * x / THUMBNAIL_SIDE) * np.sqrt(2 / THUMBNAIL_SIDE)
    rows[0] /= np.sqrt(2)
    return rows


_COSINES = _cosine_rows()
