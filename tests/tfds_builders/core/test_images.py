"""Image files that must be refused, each with its reason."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.tfds_builders.images import jpeg, smooth_image, write
from tfds_builders.core.images import read_image
from tfds_builders.core.records import UnreadableRecord


def png_header(width: int, height: int) -> bytes:
    """A PNG file that claims a size and holds hardly any data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 9))


def test_a_good_file_is_kept_byte_by_byte(tmp_path):
    write(tmp_path / "a.jpg", jpeg(smooth_image(0, (31, 17))))
    image = read_image(tmp_path / "a.jpg")
    assert image.encoded == (tmp_path / "a.jpg").read_bytes()
    assert (image.height, image.width) == (17, 31)
    assert image.value((0.5, 0.25))["spacing_mm"].tolist() == [0.5, 0.25]


@pytest.mark.parametrize("kept", [0.3, 0.7, 0.97])
def test_a_truncated_jpeg_is_unreadable(tmp_path, kept):
    content = jpeg(smooth_image(0, (200, 200)))
    write(tmp_path / "a.jpg", content[: int(len(content) * kept)])
    with pytest.raises(UnreadableRecord, match="does not decode"):
        read_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("size", [(100_000, 100_000), (9_000, 9_000), (12_000, 10_000)])
def test_a_bomb_is_refused_from_its_header(tmp_path, size):
    write(tmp_path / "a.png", png_header(*size))
    with pytest.raises(UnreadableRecord, match="pixels"):
        read_image(tmp_path / "a.png")


def test_another_format_and_a_missing_file(tmp_path):
    write(tmp_path / "a.jpg", b"GIF89a" + b"\0" * 40)
    with pytest.raises(UnreadableRecord, match="no JPEG or PNG"):
        read_image(tmp_path / "a.jpg")
    with pytest.raises(UnreadableRecord, match="cannot be opened"):
        read_image(tmp_path / "b.jpg")


def test_16_bit_images_are_scaled_for_the_audit_not_clipped(tmp_path):
    shallow = np.asarray(smooth_image(4), np.uint16)
    Image.fromarray(shallow).save(tmp_path / "a.png")
    Image.fromarray(shallow * 200).save(tmp_path / "b.png")
    a, b = read_image(tmp_path / "a.png").audit, read_image(tmp_path / "b.png").audit
    assert a.perceptual == b.perceptual
    assert b.thumbnail is not None
    assert len(set(b.thumbnail)) > 20
