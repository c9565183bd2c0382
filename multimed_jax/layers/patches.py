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
from jaxtyping import Float, Int, Shaped, UInt8

from multimed_jax.layers.augment import augment
from multimed_jax.layers.decode_errors import DecodeError
from multimed_jax.layers.images import WHITE, read_levels
from multimed_jax.types import Parts, Preview, UserError

# Logistic baselines see a grey image as this many pixels a side, aspect ignored; a colour image as
# means of fewer, larger blocks and a histogram of each channel.
FEATURE_SIDE = 16
COLOUR_SIDE = 8
COLOUR_BINS = 8
NUM_GREY_FEATURES = FEATURE_SIDE**2
NUM_COLOUR_FEATURES = 3 * (COLOUR_SIDE**2 + COLOUR_BINS)
_COLOUR_PIXELS = 64  # side of the image that both are taken from
PREVIEW_SIDE = 256
BLACK = -1.0  # on the scale of patches
LEVELS = "levels"  # what `prepare_image` calls its array
_GAIN = np.float32(2.0 / WHITE)


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


def read_pixels(
    image: Mapping[str, Any], size: tuple[int, int], *, colour: bool = False
) -> Float[np.ndarray, "h w *channels"]:
    """The record's image at `size`, black at -1 and white at 1.

    Raises:
        DecodeError: as `read_grey`.
    """
    return scale_levels(read_image(image, size, colour=colour))


def read_image(
    image: Mapping[str, Any], size: tuple[int, int], *, colour: bool = False
) -> Shaped[np.ndarray, "h w *channels"]:
    """The record's image at `size`, as levels from 0 to 255. Raises DecodeError as `read_grey`."""
    return read_levels(encoded_bytes(image), size, stored_size(image), colour=colour)


def scale_levels(
    levels: Shaped[np.ndarray, "..."], out: Float[np.ndarray, "..."] | None = None
) -> Float[np.ndarray, "..."]:
    """Levels from 0 (black) to 255 (white) as -1 to 1, written to `out` where it is given."""
    out = np.multiply(levels, _GAIN, out=out)
    out -= np.float32(1.0)
    return out


class LevelParts(Parts):
    """Parts on [-1, 1] that are kept as bytes until they lie in their batch: a quarter of the room.

    `parts` are the scaled values, made when they are asked for.

    Attributes:
        levels: from 0 (-1) to 255 (1).
    """

    def __init__(
        self,
        levels: UInt8[np.ndarray, "n *patch_shape"],
        coords: Float[np.ndarray, "n A"],
        item: Int[np.ndarray, "n"],  # noqa: F821
    ):
        for name, value in (("levels", levels), ("coords", coords), ("item", item)):
            object.__setattr__(self, name, value)

    levels: UInt8[np.ndarray, "n *patch_shape"]

    @property
    def parts(self) -> Float[np.ndarray, "n *patch_shape"]:  # type: ignore[override]
        return scale_levels(self.levels)

    def __len__(self) -> int:
        return len(self.levels)

    def write(self, out: Shaped[np.ndarray, "n *patch_shape"]) -> None:
        scale_levels(self.levels, out)


def prepare_image(
    image: Mapping[str, Any], side: int, *, colour: bool = False
) -> dict[str, np.ndarray]:
    """The image with its longer side at `side`; `finish_image` makes patches of it.

    Raises:
        DecodeError: as `read_grey`.
    """
    size = fitted_size(*stored_size(image), side)
    return {LEVELS: read_image(image, size, colour=colour)}


def finish_image(
    prepared: Mapping[str, np.ndarray],
    patch: int,
    rng: np.random.Generator | None,
    *,
    flip: bool = False,
) -> Parts:
    """Patches of a prepared image, scaled so that black is -1 and white is 1.

    Args:
        prepared: of `prepare_image`.
        patch: side of a patch, in pixels.
        rng: augments (mildly, see `layers.augment`) where given.
        flip: whether augmenting mirrors.
    """
    levels = prepared[LEVELS]
    if rng is None:
        return level_parts(levels, patch, BLACK)
    pixels = augment(scale_levels(levels), rng, flip=flip)
    return whole_parts(*patchify(pixels, patch, BLACK))


def level_parts(levels: Shaped[np.ndarray, "h w *channels"], patch: int, fill: float) -> Parts:
    """Patches of the scaled image; `fill` is BLACK or WHITE of the [-1, 1] scale."""
    if levels.dtype != np.uint8:
        return whole_parts(*patchify(scale_levels(levels), patch, fill))
    parts, coords = patchify(levels, patch, 0 if fill == BLACK else 255)
    return LevelParts(parts, coords, np.zeros(len(parts), np.int32))


def whole_parts(
    parts: Shaped[np.ndarray, "n *patch_shape"], coords: Float[np.ndarray, "n A"]
) -> Parts:
    """Parts of one item."""
    return Parts(parts, coords, np.zeros(len(parts), np.int32))


def image_features(image: Mapping[str, Any] | None) -> Float[np.ndarray, "256"]:
    """16 x 16 mean grey values on [-1, 1], row by row; zeros where the record lacks the image."""
    if not encoded_bytes(image):
        return np.zeros(NUM_GREY_FEATURES, np.float32)
    assert image is not None
    return read_pixels(image, (FEATURE_SIDE, FEATURE_SIDE)).ravel()


def colour_features(image: Mapping[str, Any] | None) -> Float[np.ndarray, "216"]:
    """8 x 8 x 3 means on [-1, 1], then the shares of each channel's values in 8 equal bins.

    Zeros where the record lacks the image.
    """
    if not encoded_bytes(image):
        return np.zeros(NUM_COLOUR_FEATURES, np.float32)
    assert image is not None
    side = _COLOUR_PIXELS
    pixels = read_pixels(image, (side, side), colour=True)
    block = side // COLOUR_SIDE
    means = pixels.reshape(COLOUR_SIDE, block, COLOUR_SIDE, block, 3).mean(axis=(1, 3))
    bins = np.minimum((pixels + 1) * (COLOUR_BINS / 2), COLOUR_BINS - 1).astype(np.int64)
    flat = (bins + COLOUR_BINS * np.arange(3)).ravel()
    shares = np.bincount(flat, minlength=3 * COLOUR_BINS) / np.float32(side * side)
    return np.concatenate([means.ravel(), shares], dtype=np.float32)


def image_preview(image: Mapping[str, Any] | None, *, colour: bool = False) -> Preview:
    """The image as uint8, its longer side at most 256; one black pixel where it is missing."""
    if not encoded_bytes(image):
        return Preview("image", np.zeros((1, 1), np.uint8))
    assert image is not None
    stored = stored_size(image)
    size = fitted_size(*stored, min(PREVIEW_SIDE, max(stored)))
    return Preview("image", to_bytes(read_pixels(image, size, colour=colour)))


def to_bytes(pixels: Float[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
    """Values on [-1, 1] as 0 (black) to 255 (white)."""
    return np.clip(np.rint((pixels + 1) * (WHITE / 2)), 0, WHITE).astype(np.uint8)
