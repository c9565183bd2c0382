from __future__ import annotations

import io

import numpy as np
import pytest
from flax import nnx
from PIL import Image

from multimed_jax.layers.decode_errors import DecodeError
from multimed_jax.modalities import pathology
from multimed_jax.types import UserError
from tests.modalities.streams import assert_missing, check_tokenizer, decode_one, run, to_batch
from tests.modalities.test_oct import colour, join

SPEC = pathology.SPEC.with_options(side=24, patch=8, bag_side=16, max_tiles=4)


def encode(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def tiles(*pixels: np.ndarray) -> dict:
    return {
        "pathology": {
            "tiles": [encode(p) for p in pixels],
            "heights": np.array([p.shape[0] for p in pixels], np.int32),
            "widths": np.array([p.shape[1] for p in pixels], np.int32),
            "microns_per_pixel": np.float32(0.5),
        }
    }


def fitted(pixels: np.ndarray, side: int) -> np.ndarray:
    """Resized by Pillow with its aspect kept, on [-1, 1]."""
    scale = side / max(pixels.shape[:2])
    height, width = (max(1, int(n * scale + 0.5)) for n in pixels.shape[:2])
    small = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(small) / 127.5 - 1


def bag_of(number: int, side: int = 16) -> dict:
    return tiles(*[colour(side, side, seed) for seed in range(number)])


def test_streams():
    assert [(s.name, s.patch_shape, s.num_axes) for s in SPEC.streams] == [
        ("pathology.tile", (8, 8, 3), 2),
        ("pathology.bag", (16, 16, 3), 1),
    ]
    for wrong in ({"streams": ()}, {"bag_side": 7}, {"max_tiles": 0}, {"patch": 25}):
        with pytest.raises(UserError, match="accepted"):
            SPEC.with_options(**wrong)


@pytest.mark.parametrize("size", [(24, 24), (17, 31), (64, 64), (9, 100)])
def test_one_tile_is_patches(size):
    pixels = colour(*size)
    parts = decode_one(SPEC, tiles(pixels))
    joined = join(parts)
    expected = fitted(pixels, 24)
    inside = np.s_[: expected.shape[0], : expected.shape[1]]
    np.testing.assert_allclose(joined[inside], expected, atol=1e-5)
    joined[inside] = 1
    assert (joined == 1).all(), "padding is white"


def test_several_tiles_are_a_bag():
    pixels = [colour(16, 16, 1), colour(40, 20, 2), np.full((30, 30), 90, np.uint8)]
    parts = decode_one(SPEC, tiles(*pixels))
    assert parts.parts.shape == (3, 16, 16, 3)
    assert (parts.coords == 0).all() and parts.item.tolist() == [0, 1, 2]
    np.testing.assert_allclose(parts.parts[0], fitted(pixels[0], 16), atol=1e-5)
    np.testing.assert_allclose(parts.parts[1, :, :8], fitted(pixels[1], 16), atol=1e-5)
    assert (parts.parts[1, :, 8:] == 1).all()
    np.testing.assert_allclose(parts.parts[2], 90 / 127.5 - 1, atol=1e-5)


def test_windows_hold_every_tile():
    for number in (2, 4, 5, 8, 11):
        record = bag_of(number)
        every = [colour(16, 16, seed) / np.float32(127.5) - 1 for seed in range(number)]
        assert SPEC.windows is not None
        windows = SPEC.windows.count(record, SPEC.options)
        assert windows == -(-number // 4)
        seen = set()
        for window in range(windows):
            found = SPEC.windows.decode(record, SPEC.options, window)["pathology.bag"]
            assert {"pathology.bag": len(found.parts)} == SPEC.count(record, SPEC.options)
            assert found.item.tolist() == list(range(len(found.parts)))
            for part in found.parts:
                seen.add(int(np.argmin([np.abs(part - tile).max() for tile in every])))
        assert seen == set(range(number))
    assert SPEC.windows is not None
    single = tiles(colour(20, 20))
    assert SPEC.windows.count(single, SPEC.options) == 1
    (whole,) = SPEC.windows.decode(single, SPEC.options, 0).values()
    assert (whole.parts == decode_one(SPEC, single).parts).all()


def test_training_draws_a_subset():
    record = bag_of(9)
    every = np.stack([colour(16, 16, seed) / np.float32(127.5) - 1 for seed in range(9)])
    drawn = []
    for seed in range(20):
        parts = decode_one(SPEC, record, np.random.default_rng(seed)).parts
        index = [int(np.argmin(np.abs(every - part).max(axis=(1, 2, 3)))) for part in parts]
        np.testing.assert_allclose(parts, every[index], atol=1e-6)
        assert index == sorted(set(index))
        drawn.append(tuple(index))
    assert len(set(drawn)) > 10 and set().union(*drawn) == set(range(9))
    look = decode_one(SPEC, record).parts
    index = [int(np.argmin(np.abs(every - part).max(axis=(1, 2, 3)))) for part in look]
    assert index == [1, 3, 5, 7]


@pytest.mark.parametrize("record", [tiles(colour(30, 20)), bag_of(3)], ids=["tile", "bag"])
def test_augmentation_keeps_the_count_and_white(record):
    plain = decode_one(SPEC, record)
    assert (decode_one(SPEC, record, np.random.default_rng(0)).parts == plain.parts).all()
    jittered = SPEC.with_options(augment=True)
    shapes = set()
    for seed in range(12):
        one, two = (decode_one(jittered, record, np.random.default_rng(seed)) for _ in range(2))
        assert (one.parts == two.parts).all() and (one.parts != plain.parts).any()
        assert np.abs(one.parts).max() <= 1
        shapes.add(tuple(one.coords.max(axis=0)))
    assert (decode_one(jittered, record).parts == plain.parts).all()
    if "tile" in next(iter(SPEC.count(record, SPEC.options))):
        assert shapes == {(2.0, 1.0), (1.0, 2.0)}, "quarter turns exchange rows and columns"


def test_switched_off_streams():
    bags = SPEC.with_options(streams=("bag",))
    assert bags.count(tiles(colour(20, 20)), bags.options) == {"pathology.bag": 1}
    assert decode_one(bags, tiles(colour(20, 20))).parts.shape == (1, 16, 16, 3)
    assert_missing(SPEC.with_options(streams=("tile",)), bag_of(3))


def test_missing_and_damaged():
    assert_missing(SPEC, {})
    assert_missing(SPEC, tiles())
    for number in (1, 3):
        whole = bag_of(number)["pathology"]
        cut = whole | {"tiles": [*whole["tiles"][:-1], whole["tiles"][-1][:-300]]}
        assert SPEC.count({"pathology": cut}, SPEC.options) == SPEC.count(
            {"pathology": whole}, SPEC.options
        )
        wrong = whole | {"heights": whole["heights"] + 1}
        short = whole | {"widths": whole["widths"][:-1]}
        empty = whole | {"tiles": [*whole["tiles"][:-1], b""]}
        for value, reason in (
            (cut, "accepted: complete JPEG or PNG"),
            (wrong, "states 17 x 16"),
            (short, "equal numbers"),
            (empty, "no bytes"),
        ):
            for function in (lambda r, o: SPEC.decode(r, o, None), SPEC.features):
                with pytest.raises(DecodeError, match=reason):
                    function({"pathology": value}, SPEC.options)


def test_object_arrays_of_bytes_are_read_as_lists_are():
    record = bag_of(3)
    stored = np.empty(3, object)
    stored[:] = record["pathology"]["tiles"]
    again = {"pathology": record["pathology"] | {"tiles": stored}}
    assert (decode_one(SPEC, again).parts == decode_one(SPEC, record).parts).all()


def test_features_are_mean_and_deviation_over_tiles():
    pixels = [np.kron(colour(8, 8, seed), np.ones((8, 8, 1), np.uint8)) for seed in range(3)]
    each = np.stack([SPEC.features(tiles(p), SPEC.options)[:216] for p in pixels])
    for tile, got in zip(pixels, each, strict=True):
        np.testing.assert_allclose(got[:192], tile[::8, ::8].ravel() / 127.5 - 1, atol=1e-5)
        hist = [np.histogram(tile[..., c], bins=8, range=(0, 255))[0] / 4096 for c in range(3)]
        np.testing.assert_allclose(got[192:], np.concatenate(hist), atol=1e-2)
    bag = SPEC.features(tiles(*pixels), SPEC.options)
    assert bag.shape == (432,) and bag.dtype == np.float32
    np.testing.assert_allclose(bag[:216], each.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(bag[216:], each.std(axis=0), atol=1e-5)
    assert not SPEC.features(tiles(pixels[0]), SPEC.options)[216:].any()


def test_preview():
    pixels = colour(30, 20)
    assert (SPEC.preview(tiles(pixels), SPEC.options).values == pixels).all()
    mosaic = SPEC.preview(bag_of(5, side=96), SPEC.options).values
    assert mosaic.shape == (192, 288, 3)
    assert (mosaic[96:, 96:192] == colour(96, 96, 4)).all() and (mosaic[96:, 192:] == 255).all()
    assert SPEC.preview(bag_of(20), SPEC.options).values.shape == (288, 288, 3)


def test_tokenizers():
    check_tokenizer(SPEC, *(decode_one(SPEC, tiles(colour(24, 24, s))) for s in (1, 2)))
    check_tokenizer(SPEC, decode_one(SPEC, bag_of(3)), decode_one(SPEC, bag_of(2)))


def test_a_token_of_a_bag_knows_its_tile_alone():
    """Order of the tiles and place inside a tile (whole cells of 8 pixels) do not matter."""
    (stream,) = [s for s in SPEC.streams if s.name == "pathology.bag"]
    module = SPEC.make_tokenizer(stream, 12, SPEC.options, nnx.Rngs(0))
    bag = decode_one(SPEC, bag_of(3))
    tokens = run(module, to_batch([bag], 3))
    turned = type(bag)(np.roll(bag.parts[::-1], 8, axis=2), bag.coords, bag.item)
    np.testing.assert_allclose(run(module, to_batch([turned], 3)), tokens[:, ::-1], atol=1e-5)
    assert np.abs(tokens[0, 0] - tokens[0, 1]).max() > 1e-3


def test_real_colour_files(shared_data):
    paths = sorted((shared_data / "bccd_blood_cells").glob("BCCD/JPEGImages/*.jpg"))[:5]
    assert len(paths) == 5
    pixels = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    encoded = {
        "tiles": [path.read_bytes() for path in paths],
        "heights": np.array([p.shape[0] for p in pixels]),
        "widths": np.array([p.shape[1] for p in pixels]),
        "microns_per_pixel": 0.0,
    }
    spec = SPEC.with_options(max_tiles=5, bag_side=32)
    parts = decode_one(spec, {"pathology": encoded})
    for part, tile in zip(parts.parts, pixels, strict=True):
        expected = fitted(tile, 32)
        # JPEG may be decoded at a fraction of its size: close, not equal.
        difference = np.abs(part[: expected.shape[0]] - expected)
        assert difference.mean() < 0.02 and difference.max() < 0.25
        assert (part[expected.shape[0] :] == 1).all()
