"""Geometry of images as patches, on the host (NumPy only).

An image keeps its aspect: its longer side becomes `side`, its last row and column of patches are
padded with black. With side 6 and patch 2, an image of 100 x 50 becomes 6 x 3 pixels and

    part 0 | part 1 .        coords of a part: (row, column) in patches
    part 2 | part 3 .        . is padding
    part 4 | part 5 .

so its number of parts follows from height and width alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from multimed_jax.layers.decode_errors import DecodeError
from multimed_jax.layers.images import WHITE, read_grey
from multimed_jax.types import Parts, Preview, UserError

# Logistic baselines see an image as this many pixels a side, aspect ignored.
FEATURE_SIDE = 16
PREVIEW_SIDE = 256
# Training-time augmentation: contrast +-10 %, brightness +-5 % of the range, shift by up to 1/16
# of the side. No flips: left and right mean something in a body.
CONTRAST_JITTER = 0.10
BRIGHTNESS_JITTER = 0.10  # on the [-1, 1] scale
SHIFT_FRACTION = 16


def check_geometry(side: int, patch: int) -> None:
    """Raises UserError unless 1 <= patch <= side."""
    if not 1 <= patch <= side:
        raise UserError(
            f"an image modality has side {side} and patch {patch}; accepted: 1 <= patch <= side"
        )


def encoded_bytes(image: Mapping[str, Any] | None) -> bytes:
    """The encoded image of a record; empty where the record lacks the modality."""
    if image is None:
        return b""
    encoded = image["encoded"]
    return encoded.item() if isinstance(encoded, np.ndarray) else bytes(encoded)


def stored_size(image: Mapping[str, Any]) -> tuple[int, int]:
    """Height and width as the record states them. Raises DecodeError unless both are positive."""
    height, width = int(image["height"]), int(image["width"])
    if height < 1 or width < 1:
        raise DecodeError(f"an image states {height} x {width} pixels; accepted: at least 1 x 1")
    return height, width


def fitted_size(height: int, width: int, side: int) -> tuple[int, int]:
    """Height and width after the longer one became `side`; rounded to nearest, at least 1."""
    longer = max(height, width)
    scaled = ((2 * length * side + longer) // (2 * longer) for length in (height, width))
    new_height, new_width = (max(1, length) for length in scaled)
    return new_height, new_width


def num_patches(height: int, width: int, side: int, patch: int) -> int:
    """Patches of an image of this stored size."""
    new_height, new_width = fitted_size(height, width, side)
    return -(-new_height // patch) * -(-new_width // patch)


def patchify(
    pixels: Shaped[np.ndarray, "h w *channels"], patch: int, fill: float
) -> tuple[Shaped[np.ndarray, "n patch patch *channels"], Float[np.ndarray, "n 2"]]:
    """Patches in reading order, and their (row, column)."""
    height, width = pixels.shape[:2]
    channels = pixels.shape[2:]
    rows, columns = -(-height // patch), -(-width // patch)
    if (rows * patch, columns * patch) != (height, width):
        whole = np.full((rows * patch, columns * patch, *channels), fill, pixels.dtype)
        whole[:height, :width] = pixels
        pixels = whole
    blocks = pixels.reshape(rows, patch, columns, patch, *channels).swapaxes(1, 2)
    parts = np.ascontiguousarray(blocks).reshape(rows * columns, patch, patch, *channels)
    coords = np.empty((rows, columns, 2), np.float32)
    coords[..., 0] = np.arange(rows)[:, None]
    coords[..., 1] = np.arange(columns)
    return parts, coords.reshape(-1, 2)


def count_patches(image: Mapping[str, Any] | None, side: int, patch: int) -> int:
    """Patches of a record's image from its stated size; 0 where the record lacks it."""
    if not encoded_bytes(image):
        return 0
    assert image is not None
    return num_patches(*stored_size(image), side, patch)


def decode_patches(
    image: Mapping[str, Any],
    side: int,
    patch: int,
    rng: np.random.Generator | None,
) -> Parts:
    """Grey patches scaled so that black is -1 and white is 1.

    Args:
        image: the record's image: `encoded`, `height`, `width`.
        side: of the resampled image, in pixels.
        patch: side of a patch, in pixels.
        rng: augments (mildly; see the constants above) where given.

    Raises:
        DecodeError: as `read_grey`.
    """
    stored = stored_size(image)
    grey = read_grey(encoded_bytes(image), fitted_size(*stored, side), stored)
    pixels = grey * np.float32(2.0 / WHITE) - np.float32(1.0)
    if rng is not None:
        pixels = augment(pixels, rng)
    parts, coords = patchify(pixels, patch, fill=-1.0)
    return Parts(parts, coords, np.zeros(len(parts), np.int32))


def augment(pixels: Float[np.ndarray, "h w"], rng: np.random.Generator) -> Float[np.ndarray, "h w"]:
    """Contrast and brightness jitter and a small shift; black comes in at the edges."""
    contrast, brightness = rng.uniform(-1.0, 1.0, 2).astype(np.float32)
    reach = max(pixels.shape) // SHIFT_FRACTION
    down, right = rng.integers(-reach, reach + 1, 2)
    jittered = pixels * (1 + CONTRAST_JITTER * contrast) + BRIGHTNESS_JITTER * brightness
    out = np.full_like(pixels, -1.0)
    height, width = pixels.shape
    down = int(np.clip(down, 1 - height, height - 1))
    right = int(np.clip(right, 1 - width, width - 1))
    source = jittered[max(0, -down) : height - max(0, down), max(0, -right) : width - max(0, right)]
    out[max(0, down) : height + min(0, down), max(0, right) : width + min(0, right)] = source
    return np.clip(out, -1.0, 1.0, dtype=np.float32)


def image_features(image: Mapping[str, Any] | None) -> Float[np.ndarray, "256"]:
    """16 x 16 mean grey values on [-1, 1], row by row; zeros where the record lacks the image."""
    if not encoded_bytes(image):
        return np.zeros(FEATURE_SIDE**2, np.float32)
    assert image is not None
    grey = read_grey(encoded_bytes(image), (FEATURE_SIDE, FEATURE_SIDE), stored_size(image))
    return (grey * np.float32(2.0 / WHITE) - np.float32(1.0)).ravel()


def image_preview(image: Mapping[str, Any] | None) -> Preview:
    """The image as grey uint8, its longer side at most 256; one black pixel where it is missing."""
    if not encoded_bytes(image):
        return Preview("image", np.zeros((1, 1), np.uint8))
    assert image is not None
    stored = stored_size(image)
    size = fitted_size(*stored, min(PREVIEW_SIDE, max(stored)))
    grey = read_grey(encoded_bytes(image), size, stored)
    return Preview("image", np.clip(np.rint(grey), 0, WHITE).astype(np.uint8))
