from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from multimed_jax.layers.decode_errors import DecodeError
from multimed_jax.modalities import oct
from multimed_jax.types import UserError
from tests.modalities.streams import assert_missing, check_tokenizer, decode_one
from tests.modalities.test_images import image_record, noise

SPEC = oct.SPEC.with_options(side=24, patch=8)


def colour(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def join(parts) -> np.ndarray:
    """The padded image, put together again by the coordinates."""
    rows, columns = parts.coords.astype(int).max(axis=0) + 1
    out = np.full((rows * 8, columns * 8, *parts.parts.shape[3:]), np.nan, np.float32)
    for part, (row, column) in zip(parts.parts, parts.coords.astype(int), strict=True):
        out[row * 8 : (row + 1) * 8, column * 8 : (column + 1) * 8] = part
    return out


def test_streams_and_their_choice():
    assert [(s.name, s.patch_shape) for s in SPEC.streams] == [
        ("oct.scan", (8, 8)),
        ("oct.photo", (8, 8, 3)),
    ]
    (only,) = SPEC.with_options(streams=("photo",)).streams
    assert only.name == "oct.photo"
    for wrong in ((), ("scan", "scan"), ("tile",)):
        with pytest.raises(UserError, match="accepted: one or more of scan, photo"):
            SPEC.with_options(streams=wrong)


@pytest.mark.parametrize("size", [(24, 24), (17, 31), (1, 300), (100, 9)])
def test_colour_files_are_photographs(size):
    pixels = colour(*size)
    record = image_record("oct", pixels)
    assert set(SPEC.count(record, SPEC.options)) == {"oct.photo"}
    joined = join(decode_one(SPEC, record))
    scale = 24 / max(size)
    new = max(1, int(size[0] * scale + 0.5)), max(1, int(size[1] * scale + 0.5))
    expected = Image.fromarray(pixels).resize((new[1], new[0]), Image.Resampling.BILINEAR)
    inside = joined[: new[0], : new[1]].copy()
    np.testing.assert_allclose(inside, np.asarray(expected) / 127.5 - 1, atol=1e-5)
    joined[: new[0], : new[1]] = -1
    assert (joined == -1).all()


def test_grey_files_are_scans():
    pixels = noise(24, 24)
    for kind in ("PNG", "JPEG"):
        record = image_record("oct", pixels, kind)
        assert SPEC.count(record, SPEC.options) == {"oct.scan": 9}
    scan = join(decode_one(SPEC, image_record("oct", pixels)))
    np.testing.assert_allclose(scan, pixels / 127.5 - 1, atol=1e-5)


def test_a_grey_scan_stored_as_rgb_follows_its_file_unless_photographs_are_off():
    pixels = noise(24, 24)
    record = image_record("oct", np.repeat(pixels[..., None], 3, axis=-1))
    photo = decode_one(SPEC, record).parts
    assert photo.shape == (9, 8, 8, 3) and (photo == photo[..., :1]).all()
    grey_only = SPEC.with_options(streams=("scan",))
    scan = join(decode_one(grey_only, record))
    np.testing.assert_allclose(scan, pixels / 127.5 - 1, atol=1e-5)
    colour_only = SPEC.with_options(streams=("photo",))
    again = decode_one(colour_only, image_record("oct", pixels)).parts
    np.testing.assert_allclose(again, photo, atol=1e-6)


def test_missing_and_damaged():
    assert_missing(SPEC, {})
    empty = {"encoded": b"", "height": 0, "width": 0, "spacing_mm": np.zeros(2, np.float32)}
    assert_missing(SPEC, {"oct": empty})
    record = image_record("oct", colour(40, 40), "JPEG")
    cut = {"oct": record["oct"] | {"encoded": record["oct"]["encoded"][:-200]}}
    assert SPEC.count(cut, SPEC.options) == {"oct.photo": 9}
    with pytest.raises(DecodeError, match="accepted: complete JPEG or PNG"):
        SPEC.decode(cut, SPEC.options, None)
    headless = {"oct": record["oct"] | {"encoded": b"\xff\xd8 no"}}
    for function in (SPEC.count, lambda r, o: SPEC.decode(r, o, None), SPEC.features):
        with pytest.raises(DecodeError, match="accepted: complete JPEG or PNG"):
            function(headless, SPEC.options)
    wrong = {"oct": record["oct"] | {"height": 41}}
    with pytest.raises(DecodeError, match="41 x 40"):
        SPEC.decode(wrong, SPEC.options, None)


@pytest.mark.parametrize("pixels", [noise(40, 30), colour(40, 30)], ids=["grey", "rgb"])
def test_augmentation_keeps_the_count(pixels):
    record = image_record("oct", pixels)
    plain = decode_one(SPEC, record)
    assert (decode_one(SPEC, record, np.random.default_rng(0)).parts == plain.parts).all()
    jittered = SPEC.with_options(augment=True)
    one, two = (decode_one(jittered, record, np.random.default_rng(0)) for _ in range(2))
    assert (one.parts == two.parts).all() and (one.parts != plain.parts).any()
    assert np.abs(one.parts).max() <= 1


def test_features_have_one_length_and_a_block_for_each_stream():
    grey = SPEC.features(image_record("oct", noise(32, 32)), SPEC.options)
    rgb = SPEC.features(image_record("oct", colour(64, 64)), SPEC.options)
    assert grey.shape == rgb.shape == (256 + 216,) and grey.dtype == rgb.dtype == np.float32
    assert grey[:256].any() and not grey[256:].any()
    assert rgb[256:].any() and not rgb[:256].any()
    shares = rgb[-24:].reshape(3, 8)
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-5)
    for channel in range(3):
        counts = np.histogram(colour(64, 64)[..., channel], bins=8, range=(0, 255))[0] / 64**2
        np.testing.assert_allclose(shares[channel], counts, atol=2e-3)
    alone = SPEC.with_options(streams=("scan",))
    assert alone.features(image_record("oct", noise(32, 32)), alone.options).shape == (256,)


def test_preview_shows_colour():
    pixels = colour(30, 20)
    assert (SPEC.preview(image_record("oct", pixels), SPEC.options).values == pixels).all()
    assert SPEC.preview(image_record("oct", noise(300, 20)), SPEC.options).values.shape == (256, 17)


def test_tokenizers():
    for make in (noise, colour):
        one, two = (decode_one(SPEC, image_record("oct", make(30, 40, seed))) for seed in (1, 2))
        check_tokenizer(SPEC, one, two)


def test_real_photographs_and_scans(shared_data):
    photos = sorted((shared_data / "odir5k_preprocessed").glob("preprocessed_images/*.jpg"))[:6]
    scans = sorted((shared_data / "kermany_oct_val").glob("OCT2017/val/*/*.jpeg"))[:6]
    assert photos and scans
    for stream, paths in (("oct.photo", photos), ("oct.scan", scans)):
        for path in paths:
            with Image.open(path) as image:
                width, height = image.size
                small = image.resize((64, 64), Image.Resampling.BOX)
            record = {"oct": {"encoded": path.read_bytes(), "height": height, "width": width}}
            assert set(SPEC.count(record, SPEC.options)) == {stream}
            joined = join(decode_one(SPEC, record))
            means = np.asarray(small, float) / 127.5 - 1
            assert abs(joined.mean() - means.mean()) < 0.05 or height != width
