"""Tiny generated images for the tests of builders."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image


def smooth_image(seed: int, size: tuple[int, int] = (48, 40)) -> Image.Image:
    """A grey image of random smooth blobs; different seeds do not look alike."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (7, 6)).astype(np.uint8))
    return coarse.resize(size, Image.Resampling.BICUBIC)


def jpeg(image: Image.Image, quality: int = 92) -> bytes:
    """The image as the bytes of a JPEG file."""
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return out.getvalue()


def write(path: Path, content: bytes) -> None:
    """Writes a file and its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def jpeg_size(encoded: bytes) -> tuple[int, int]:
    """(height, width) from the frame header of a JPEG file, read without an image library."""
    at = 2
    while True:
        assert encoded[at] == 0xFF
        marker, length = encoded[at + 1], int.from_bytes(encoded[at + 2 : at + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height = int.from_bytes(encoded[at + 5 : at + 7], "big")
            return height, int.from_bytes(encoded[at + 7 : at + 9], "big")
        at += 2 + length
