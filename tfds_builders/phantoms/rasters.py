"""What the forward models of images share: a pixel grid, soft ellipses, PNG bytes."""

from __future__ import annotations

import io

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

SIDE = 32


def pixel_grid(side: int = SIDE) -> tuple[Float[np.ndarray, "S S"], Float[np.ndarray, "S S"]]:
    """(x, y) of each pixel centre in pixels from the image's centre; x right, y down."""
    axis = np.arange(side) - (side - 1) / 2
    return np.meshgrid(axis, axis, indexing="xy")  # type: ignore[return-value]


def soft_ellipse(
    centre: tuple[float, float],
    radii: tuple[float, float],
    edge: float = 0.4,
    side: int = SIDE,
) -> Float[np.ndarray, "S S"]:
    """1 inside, 0 outside, a logistic edge of about `edge` pixels between."""
    x, y = pixel_grid(side)
    radius = np.hypot((x - centre[0]) / radii[0], (y - centre[1]) / radii[1])
    return 1 / (1 + np.exp(np.clip((radius - 1) * min(radii) / edge, -50, 50)))


def to_grey(images: Float[np.ndarray, "B *shape"]) -> UInt8[np.ndarray, "B *shape"]:
    """8-bit grey or colour levels; what lies outside 0..255 is clipped."""
    return np.clip(np.rint(images), 0, 255).astype(np.uint8)


def to_png(image: UInt8[np.ndarray, "S S *rgb"]) -> bytes:
    """One grey or RGB image as PNG bytes."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="PNG")
    return file.getvalue()
