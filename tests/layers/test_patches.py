from __future__ import annotations

import io
import zlib

import numpy as np
import pytest
from PIL import Image

from multimed_jax.layers import images, patches
from multimed_jax.layers.decode_errors import DecodeError
from multimed_jax.types import UserError


def encode(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(*shape: int, high: int = 256, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(3).integers(0, high, shape).astype(dtype)


def luma(rgb: np.ndarray) -> np.ndarray:
    return rgb.astype(float) @ np.array([0.299, 0.587, 0.114])


def test_grey_and_colour_modes():
    grey, rgb = noise(9, 11), noise(9, 11, 3)
    assert (images.read_grey(encode(Image.fromarray(grey)), (9, 11)) == grey).all()
    got = images.read_grey(encode(Image.fromarray(rgb)), (9, 11))
    np.testing.assert_allclose(got, luma(rgb), atol=1.0)
    palette = Image.fromarray(rgb).quantize(16)
    got = images.read_grey(encode(palette), (9, 11))
    np.testing.assert_allclose(got, luma(np.asarray(palette.convert("RGB"))), atol=1.0)
    bits = noise(9, 11, high=2, dtype=bool)
    assert (images.read_grey(encode(Image.fromarray(bits)), (9, 11)) == bits * 255).all()


def test_transparent_pixels_are_black():
    rgba = noise(9, 11, 4)
    expected = luma(rgba[..., :3]) * rgba[..., 3] / 255
    got = images.read_grey(encode(Image.fromarray(rgba)), (9, 11))
    np.testing.assert_allclose(got, expected, atol=1.5)
    two = Image.merge("LA", [Image.fromarray(rgba[..., 0]), Image.fromarray(rgba[..., 3])])
    expected = rgba[..., 0].astype(float) * rgba[..., 3] / 255
    np.testing.assert_allclose(images.read_grey(encode(two), (9, 11)), expected, atol=1.5)


@pytest.mark.parametrize("depth", [8, 12, 16])
def test_sixteen_bits_scale_by_their_depth(depth):
    values = noise(9, 11, high=2**depth, dtype=np.uint16)
    values[0, 0] = 2**depth - 1
    got = images.read_grey(encode(Image.fromarray(values)), (9, 11))
    np.testing.assert_allclose(got, values / (2**depth - 1) * 255, rtol=1e-5, atol=1e-3)
    small = images.read_grey(encode(Image.fromarray(values)), (3, 4))
    assert small.shape == (3, 4) and abs(small.mean() - got.mean()) < 12


def test_large_jpeg_keeps_its_means():
    row = np.linspace(0, 255, 640).astype(np.uint8)
    encoded = encode(Image.fromarray(np.tile(row, (400, 1))), "JPEG", quality=95)
    got = images.read_grey(encoded, (20, 32), (400, 640))
    np.testing.assert_allclose(got[10, 1:-1], row.reshape(32, 20).mean(1)[1:-1], atol=2.0)


@pytest.mark.parametrize(
    "encoded",
    [
        b"",
        b"not an image",
        encode(Image.fromarray(noise(40, 40)))[:-900],
        encode(Image.fromarray(noise(40, 40)), "JPEG")[:-300],
        encode(Image.fromarray(noise(40, 40)), "BMP"),
    ],
    ids=["empty", "text", "cut png", "cut jpeg", "bmp"],
)
def test_damaged_images_are_refused(encoded):
    with pytest.raises(DecodeError, match="accepted: complete JPEG or PNG"):
        images.read_grey(encoded, (8, 8))


def test_every_truncation_is_an_error_or_an_image():
    for kind in ("PNG", "JPEG"):
        encoded = encode(Image.fromarray(noise(17, 13)), kind)
        whole = images.read_grey(encoded, (17, 13))
        for stop in range(len(encoded)):
            try:
                got = images.read_grey(encoded[:stop], (17, 13), (17, 13))
            except DecodeError:
                continue
            # Pillow takes a file of which only check sums or end markers are cut.
            assert stop > len(encoded) - 24
            np.testing.assert_array_equal(got, whole)


@pytest.mark.parametrize("side", [9_000, 20_000])
def test_bomb_is_refused_by_its_header(side):
    header = io.BytesIO()
    one = Image.new("L", (1, 1))
    one.save(header, "PNG")
    data = bytearray(header.getvalue())
    data[16:24] = side.to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    with pytest.raises(DecodeError, match=str(images.MAX_PIXELS)):
        images.read_grey(bytes(data), (8, 8))


def test_size_must_be_the_stated_one():
    with pytest.raises(DecodeError, match="9 x 11"):
        images.read_grey(encode(Image.fromarray(noise(9, 11))), (8, 8), (11, 9))
    with pytest.raises(DecodeError, match="at least 1 x 1"):
        patches.count_patches({"encoded": b"x", "height": 0, "width": 4}, 8, 2)


def test_count_equals_patchify_for_all_sizes():
    for height in range(1, 20):
        for width in range(1, 20):
            for side, patch in ((8, 3), (7, 7), (16, 4)):
                new = patches.fitted_size(height, width, side)
                assert max(new) == side and min(new) >= 1
                parts, coords = patches.patchify(np.zeros(new, np.float32), patch, -1.0)
                assert len(parts) == patches.num_patches(height, width, side, patch)
                assert len({tuple(c) for c in coords.tolist()}) == len(parts)


def test_patchify_keeps_channels_and_places():
    image = np.arange(4 * 6 * 3).reshape(4, 6, 3)
    parts, coords = patches.patchify(image, 2, 0)
    assert parts.shape == (6, 2, 2, 3)
    for part, (row, column) in zip(parts, coords.astype(int), strict=True):
        assert (part == image[2 * row : 2 * row + 2, 2 * column : 2 * column + 2]).all()


def test_augment_moves_the_image_and_keeps_it_mild():
    image = np.zeros((32, 32), np.float32)
    image[16, 16] = 1.0
    seen = set()
    for seed in range(40):
        out = patches.augment(image, np.random.default_rng(seed))
        place = np.unravel_index(out.argmax(), out.shape)
        seen.add(place)
        assert max(abs(int(place[0]) - 16), abs(int(place[1]) - 16)) <= 2
        assert 0.75 < out.max() <= 1.0
    assert len(seen) > 5
    assert patches.augment(np.zeros((1, 64), np.float32), np.random.default_rng(1)).shape == (1, 64)


def test_geometry_is_checked():
    with pytest.raises(UserError, match="1 <= patch <= side"):
        patches.check_geometry(8, 0)
