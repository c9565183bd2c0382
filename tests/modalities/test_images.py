"""Grey images of all modalities obey the same laws."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from multimed_jax.layers.decode_errors import DecodeError
from multimed_jax.layers.images import read_colour, read_grey
from multimed_jax.modalities import mri, oct, xray
from multimed_jax.types import UserError
from tests.modalities.streams import assert_missing, check_tokenizer, decode_one

SPECS = [
    mri.SPEC.with_options(side=24, patch=8, streams=("slice",)),
    xray.SPEC.with_options(side=24, patch=8),
    oct.SPEC.with_options(side=24, patch=8, streams=("scan",)),
]
SIZES = [(1, 1), (1, 7), (7, 1), (1, 300), (23, 24), (24, 24), (25, 24), (17, 31), (100, 9)]


def image_record(name: str, pixels: np.ndarray, kind: str = "PNG") -> dict:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    height, width = pixels.shape[:2]
    return {
        name: {
            "encoded": buffer.getvalue(),
            "height": np.int32(height),
            "width": np.int32(width),
            "spacing_mm": np.zeros(2, np.float32),
        }
    }


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)


def join(parts, patch: int) -> np.ndarray:
    """The padded image, put together again by the coordinates."""
    rows, columns = parts.coords.astype(int).max(axis=0) + 1
    out = np.full((rows * patch, columns * patch), np.nan, np.float32)
    for part, (row, column) in zip(parts.parts, parts.coords.astype(int), strict=True):
        out[row * patch : (row + 1) * patch, column * patch : (column + 1) * patch] = part
    return out


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.name)
@pytest.mark.parametrize("size", SIZES)
def test_decode_equals_pillow(spec, size):
    pixels = noise(*size)
    parts = decode_one(spec, image_record(spec.name, pixels))
    height, width = size
    scale = 24 / max(size)
    new = max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))
    expected = Image.fromarray(pixels).resize((new[1], new[0]), Image.Resampling.BILINEAR)
    joined = join(parts, 8)
    assert joined.shape == tuple(-(-n // 8) * 8 for n in new)
    np.testing.assert_allclose(
        joined[: new[0], : new[1]], np.asarray(expected) / 127.5 - 1, rtol=0, atol=1e-5
    )
    padding = np.ones_like(joined, bool)
    padding[: new[0], : new[1]] = False
    assert (joined[padding] == -1).all()


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.name)
def test_missing(spec):
    empty = {"encoded": b"", "height": 0, "width": 0, "spacing_mm": np.zeros(2, np.float32)}
    assert_missing(spec, {})
    assert_missing(spec, {spec.name: empty})


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.name)
def test_truncated_is_refused_without_a_name(spec):
    record = image_record(spec.name, noise(40, 40), "JPEG")
    record["sample_id"] = "patient-7"
    record[spec.name]["encoded"] = record[spec.name]["encoded"][:-200]
    with pytest.raises(DecodeError, match="accepted: complete JPEG or PNG") as raised:
        spec.decode(record, spec.options, None)
    assert "patient-7" not in str(raised.value)


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.name)
def test_augmentation_is_off_by_default_and_keeps_the_count(spec):
    record = image_record(spec.name, noise(40, 30))
    plain = decode_one(spec, record)
    assert (decode_one(spec, record, np.random.default_rng(0)).parts == plain.parts).all()
    jittered = spec.with_options(augment=True)
    one = decode_one(jittered, record, np.random.default_rng(0))
    two = decode_one(jittered, record, np.random.default_rng(0))
    assert (one.parts == two.parts).all() and (one.parts != plain.parts).any()
    assert (decode_one(jittered, record).parts == plain.parts).all()
    assert np.abs(one.parts).max() <= 1


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.name)
def test_flip_mirrors_half_of_the_images(spec):
    record = image_record(spec.name, np.tile(np.linspace(80, 180, 24).astype(np.uint8), (24, 1)))
    rising = {}
    for flip in (False, True):
        flipping = spec.with_options(augment=True, flip=flip)
        joined = [
            join(decode_one(flipping, record, np.random.default_rng(s)), 8) for s in range(20)
        ]
        rising[flip] = sum(bool(image[12, 18] > image[12, 5]) for image in joined)
    assert rising[False] == 20 and 3 < rising[True] < 17


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.name)
def test_a_blank_image_is_finite(spec):
    for value in (0, 128, 255):
        record = image_record(spec.name, np.full((30, 20), value, np.uint8))
        parts = decode_one(spec, record)
        assert np.isfinite(parts.parts).all()
        assert np.isfinite(spec.features(record, spec.options)).all()


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.name)
def test_features_and_preview(spec):
    pixels = np.kron(noise(16, 16), np.ones((5, 3), np.uint8))
    record = image_record(spec.name, pixels)
    features = spec.features(record, spec.options)
    assert features.shape == (256,) and features.dtype == np.float32
    # Pillow's filter reaches into the neighbouring blocks, so only a smooth image is exact.
    smooth = np.tile(np.linspace(0, 255, 48).astype(np.uint8)[:, None], (1, 48))
    ramp = spec.features(image_record(spec.name, smooth), spec.options).reshape(16, 16)
    expected = smooth.reshape(16, 3, 48).mean(axis=(1, 2)) / 127.5 - 1
    np.testing.assert_allclose(ramp[1:-1, 8], expected[1:-1], atol=0.01)
    preview = spec.preview(record, spec.options)
    assert preview.kind == "image" and (preview.values == pixels).all()


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.name)
def test_tokenizer(spec):
    first = decode_one(spec, image_record(spec.name, noise(40, 40, 1)))
    check_tokenizer(spec, first, decode_one(spec, image_record(spec.name, noise(40, 40, 2))))
    check_tokenizer(spec, first, decode_one(spec, image_record(spec.name, noise(1, 9, 2))))


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.name)
def test_illegal_geometry(spec):
    with pytest.raises(UserError, match="patch 25"):
        spec.with_options(patch=25)


@pytest.mark.parametrize(
    ("spec", "folder", "pattern"),
    [
        (mri.SPEC, "kaggle_brain_tumor_mri_native", "Testing/*/*.jpg"),
        (xray.SPEC, "kermany_chest_xray_test_300px", "img/*.jpeg"),
        (oct.SPEC.with_options(streams=("scan",)), "kermany_oct_val", "OCT2017/val/*/*.jpeg"),
    ],
    ids=["mri", "xray", "oct"],
)
def test_real_files(shared_data, spec, folder, pattern):
    paths = sorted((shared_data / folder).glob(pattern))[:12]
    assert paths
    for path in paths:
        with Image.open(path) as image:
            width, height = image.size
            grey = image.convert("L")
        encoded = path.read_bytes()
        record = {spec.name: {"encoded": encoded, "height": height, "width": width}}
        decode_one(spec, record)
        whole = read_grey(encoded, (height, width))
        np.testing.assert_allclose(whole, np.asarray(grey, float), atol=1.0)
        # A JPEG may be decoded at a fraction of its size: close, not equal.
        small = grey.resize((16, 16), Image.Resampling.BILINEAR)
        features = spec.features(record, spec.options).reshape(16, 16)
        difference = np.abs(features - (np.asarray(small, float) / 127.5 - 1))
        assert difference.mean() < 0.01 and difference.max() < 0.1


@pytest.mark.parametrize("size", [(23, 17), (24, 24), (100, 9)])
def test_grey_in_colour_is_resampled_as_three_equal_channels(size):
    """Against Pillow's own resampling of the three channels."""
    pixels = noise(*size)
    found = read_colour(image_record("x", pixels)["x"]["encoded"], (20, 12))
    wanted = Image.fromarray(pixels).convert("RGB").resize((12, 20), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(found, np.asarray(wanted, np.float32))
    assert found.dtype == np.float32
