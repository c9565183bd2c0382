"""Encoded images to grey or RGB arrays, on the host (Pillow and NumPy only).

Input: JPEG or PNG bytes of any Pillow mode, 8 or 16 bits. Output: float32 on the 8-bit scale,
0 (black) to 255 (white), rows top to bottom, columns left to right as stored (orientation tags are
not applied: a record's height and width are those of the stored grid).
"""

from __future__ import annotations

import contextlib
import io
import struct
import warnings
import zlib
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Shaped
from PIL import Image

from multimed_jax.layers.decode_errors import DecodeError

FORMATS = ("JPEG", "PNG")
# A refusal by header, before any pixel is allocated. The largest detector plates of digital
# radiography have about 20 million pixels.
MAX_PIXELS = 64_000_000
WHITE = 255.0
# Bit depths at which detectors and archives store grey values in 16-bit containers.
BIT_DEPTHS = (8, 10, 12, 14, 16)
# A JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, but never below this multiple of the size
# asked for, so that the resampling filter still sees detail to average: at 4 the mean pixel of real
# slices and radiographs moves by under 1 % of the range (at 2 single pixels by 10 %).
JPEG_OVERSAMPLING = 4

_FAULTS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


def read_grey(
    encoded: bytes, size: tuple[int, int], stored_size: tuple[int, int] | None = None
) -> Float[np.ndarray, "h w"]:
    """Decodes to grey and resamples to `size` (height, width).

    Colour becomes ITU-R BT.601 luma; transparent pixels become black; 16-bit values are scaled by
    the smallest depth in `BIT_DEPTHS` that holds their maximum, so that a 12-bit plate in a 16-bit
    file is not black. Downsampling averages (bilinear filter with its support scaled).

    Args:
        encoded: JPEG or PNG bytes.
        size: height and width of the result.
        stored_size: height and width that the record states; must be those of the file.

    Raises:
        DecodeError: bytes that are no JPEG or PNG, truncated or damaged pixel data, more than
            `MAX_PIXELS` pixels, another size than the record states.
    """
    return np.asarray(read_levels(encoded, size, stored_size), np.float32)


def read_colour(
    encoded: bytes, size: tuple[int, int], stored_size: tuple[int, int] | None = None
) -> Float[np.ndarray, "h w 3"]:
    """Decodes to RGB and resamples to `size`; a grey image has three equal channels.

    Transparent pixels become black; 16 bits a channel become 8. Otherwise as `read_grey`.

    Raises:
        DecodeError: as `read_grey`.
    """
    return np.asarray(read_levels(encoded, size, stored_size, colour=True), np.float32)


def is_colour(encoded: bytes) -> bool:
    """Whether the file has colour channels, from its header alone.

    A JPEG has them with three or four components, a PNG by its colour type; a palette has them
    where one of its entries is no shade of grey. A grey picture that was stored as RGB counts as
    colour: telling would need its pixels.

    Raises:
        DecodeError: bytes whose header is no JPEG's or PNG's, or states too many pixels.
    """
    with _faults_named(encoded):
        image = _open(encoded)
        if image.mode == "P" and image.palette is not None:
            entries = np.frombuffer(bytes(image.palette.palette), np.uint8)
            entries = entries[: len(entries) // 3 * 3].reshape(-1, 3)
            return bool((entries != entries[:, :1]).any())
        return image.mode not in ("1", "L", "LA", "F") and not image.mode.startswith("I")


def read_levels(
    encoded: bytes,
    size: tuple[int, int],
    stored_size: tuple[int, int] | None = None,
    *,
    colour: bool = False,
) -> Shaped[np.ndarray, "h w *channels"]:
    """`read_grey` or `read_colour` in the smallest type that holds the same values.

    Returns:
        uint8, but float32 for grey images of 16 bits.

    Raises:
        DecodeError: as `read_grey`.
    """
    height, width = size
    with _faults_named(encoded):
        image = _open(encoded)
        _check_header(image, stored_size)
        mode = "RGB" if colour else "L"
        draft = image.draft(mode, (JPEG_OVERSAMPLING * width, JPEG_OVERSAMPLING * height))
        pixels = _to_colour(image) if colour else _to_grey(image)
    # A JPEG at a fraction of its size ends in a pixel that lies partly outside of the image.
    box = draft[1] if draft is not None else (0, 0, *pixels.size)
    if pixels.size != (width, height) or box != (0, 0, width, height):
        pixels = pixels.resize((width, height), Image.Resampling.BILINEAR, box=box)
    # Three equal channels are made of grey at the end: resampling one takes a third of the time.
    return np.asarray(_in_mode(pixels, "RGB") if colour else pixels)


def _open(encoded: bytes) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return Image.open(io.BytesIO(encoded), formats=FORMATS)


@contextlib.contextmanager
def _faults_named(encoded: bytes) -> Iterator[None]:
    """What Pillow raises for bytes that it cannot read becomes one sentence."""
    try:
        yield
    except DecodeError:
        raise
    except _FAULTS as error:
        raise DecodeError(
            f"an image of {len(encoded)} bytes cannot be decoded ({type(error).__name__}); "
            f"accepted: complete {' or '.join(FORMATS)} files of at most {MAX_PIXELS} pixels"
        ) from None


def _check_header(image: Image.Image, stored_size: tuple[int, int] | None) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise DecodeError(
            f"an image of {height} x {width} pixels is refused; accepted: at most {MAX_PIXELS}"
        )
    if stored_size is not None and stored_size != (height, width):
        raise DecodeError(
            f"an image of {height} x {width} pixels stands in a record that states "
            f"{stored_size[0]} x {stored_size[1]}; accepted: equal sizes"
        )


def _to_grey(image: Image.Image) -> Image.Image:
    """Mode L (8-bit) or F (on the 8-bit scale)."""
    if image.mode == "L":
        image.load()
        return image
    if image.mode.startswith("I"):
        return Image.fromarray(_scale_deep(np.asarray(image)))
    return _opaque(image).convert("L")


def _to_colour(image: Image.Image) -> Image.Image:
    """Mode RGB, or L where all channels are equal."""
    if image.mode.startswith("I"):
        return Image.fromarray(np.rint(_scale_deep(np.asarray(image))).astype(np.uint8))
    if image.mode == "L" and "transparency" not in image.info:
        return _in_mode(image, "L")
    return _in_mode(_opaque(image), "RGB")


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    """`image.convert`, which copies an image that is of this mode."""
    image.load()
    return image if image.mode == mode else image.convert(mode)


def _opaque(image: Image.Image) -> Image.Image:
    """The image over black, where parts of it are transparent."""
    if image.mode not in ("RGBA", "LA", "PA") and "transparency" not in image.info:
        return image
    image = image.convert("RGBA")
    black = Image.new("RGBA", image.size, (0, 0, 0, 255))
    return Image.alpha_composite(black, image)


def _scale_deep(values: np.ndarray) -> Float[np.ndarray, "h w"]:
    largest = int(values.max())
    depth = next((bits for bits in BIT_DEPTHS if largest < 2**bits), None)
    limit = float(2**depth - 1) if depth is not None else float(largest)
    return np.clip(values, 0, None).astype(np.float32) * np.float32(WHITE / limit)
