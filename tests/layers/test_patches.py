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


def test_grey_and_colour_modes_as_colour():
    grey, rgb, rgba = noise(9, 11), noise(9, 11, 3), noise(9, 11, 4)
    got = images.read_colour(encode(Image.fromarray(rgb)), (9, 11))
    assert got.dtype == np.float32 and (got == rgb).all()
    assert (images.read_colour(encode(Image.fromarray(grey)), (9, 11)) == grey[..., None]).all()
    palette = Image.fromarray(rgb).quantize(16)
    got = images.read_colour(encode(palette), (9, 11))
    assert (got == np.asarray(palette.convert("RGB"))).all()
    got = images.read_colour(encode(Image.fromarray(rgba)), (9, 11))
    np.testing.assert_allclose(got, rgba[..., :3] * (rgba[..., 3:] / 255), atol=1.0)
    deep = noise(9, 11, high=4096, dtype=np.uint16)
    deep[0, 0] = 4095
    got = images.read_colour(encode(Image.fromarray(deep)), (9, 11))
    np.testing.assert_allclose(got, np.repeat(deep[..., None] / 4095 * 255, 3, -1), atol=0.51)
    small = images.read_colour(encode(Image.fromarray(rgb)), (4, 5), (9, 11))
    expected = Image.fromarray(rgb).resize((5, 4), Image.Resampling.BILINEAR)
    assert (small == np.asarray(expected)).all()


def test_the_header_tells_colour():
    grey, rgb = Image.fromarray(noise(40, 40)), Image.fromarray(noise(40, 40, 3))
    for kind in ("PNG", "JPEG"):
        # Cut behind the header: the pixels are not needed.
        assert not images.is_colour(encode(grey, kind)[:-300])
        assert images.is_colour(encode(rgb, kind)[:-300])
    assert images.is_colour(encode(rgb.convert("CMYK"), "JPEG"))
    assert images.is_colour(encode(grey.convert("RGB")))
    assert images.is_colour(encode(rgb.quantize(16)))
    shades = grey.convert("P", palette=Image.Palette.WEB)
    shades.putpalette([level for level in range(256) for _ in range(3)])
    assert not images.is_colour(encode(shades))
    for mode in ("1", "LA"):
        assert not images.is_colour(encode(grey.convert(mode)))
    assert not images.is_colour(encode(Image.fromarray(noise(4, 4, high=9000, dtype=np.uint16))))
    assert images.is_colour(encode(rgb.convert("RGBA")))
    for damaged in (b"", b"not an image", encode(rgb)[:20]):
        with pytest.raises(DecodeError, match="accepted: complete JPEG or PNG"):
            images.is_colour(damaged)


def test_deep_values_of_any_type_and_byte_order():
    values = noise(9, 11, high=60_000, dtype=np.uint16)
    values[0, 0] = 59_999
    expected = values / 65_535 * 255
    png = encode(Image.fromarray(values))
    np.testing.assert_allclose(images.read_grey(png, (9, 11)), expected, rtol=1e-5)
    # Signed containers hold what is under 0 as black.
    for dtype in (np.int32, np.dtype(">u2"), np.dtype("<u2")):
        got = images._scale_deep(values.astype(dtype))
        np.testing.assert_allclose(got, expected, rtol=1e-5)
    signed = values.astype(np.int32) - 30_000
    got = images._scale_deep(signed)
    np.testing.assert_allclose(got, np.maximum(signed, 0) / 65_535 * 255, rtol=1e-5)
    assert (images._scale_deep(np.full((2, 2), -7)) == 0).all()
    blank = np.zeros((4, 5), np.uint16)
    assert (images.read_grey(encode(Image.fromarray(blank)), (4, 5)) == 0).all()


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
    for read in (images.read_grey, images.read_colour):
        with pytest.raises(DecodeError, match="accepted: complete JPEG or PNG"):
            read(encoded, (8, 8))


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
    for read in (images.read_grey, images.read_colour):
        with pytest.raises(DecodeError, match=str(images.MAX_PIXELS)):
            read(bytes(data), (8, 8))


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


def test_geometry_is_checked():
    with pytest.raises(UserError, match="1 <= patch <= side"):
        patches.check_geometry(8, 0)


def test_colour_features_are_means_and_shares():
    blocks = noise(8, 8, 3)
    image = np.kron(blocks, np.ones((8, 8, 1), np.uint8))
    value = {"encoded": encode(Image.fromarray(image)), "height": 64, "width": 64}
    got = patches.colour_features(value)
    assert got.shape == (patches.NUM_COLOUR_FEATURES,) and got.dtype == np.float32
    np.testing.assert_allclose(got[:192], blocks.ravel() / 127.5 - 1, atol=1e-5)
    for channel in range(3):
        expected = np.histogram(blocks[..., channel] / 127.5 - 1, bins=8, range=(-1, 1))[0] / 64
        start = 192 + 8 * channel
        np.testing.assert_allclose(got[start : start + 8], expected, atol=1e-6)
    assert not patches.colour_features(None).any()
