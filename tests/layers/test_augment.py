from __future__ import annotations

import numpy as np
import pytest

from multimed_jax.layers.augment import augment, draw_stain, stained, turned


def test_augment_moves_the_image_and_keeps_it_mild():
    image = np.zeros((32, 32), np.float32)
    image[16, 16] = 1.0
    seen = set()
    for seed in range(40):
        out = augment(image, np.random.default_rng(seed))
        place = np.unravel_index(out.argmax(), out.shape)
        seen.add(place)
        assert max(abs(int(place[0]) - 16), abs(int(place[1]) - 16)) <= 2
        assert 0.75 < out.max() <= 1.0
    assert len(seen) > 5
    assert augment(np.zeros((1, 64), np.float32), np.random.default_rng(1)).shape == (1, 64)


@pytest.mark.parametrize("shape", [(32, 32), (32, 16, 3), (8, 32, 32), (8, 16, 32, 2)])
def test_every_shape_moves_along_its_axes_of_space(shape):
    num_axes = 3 if shape[0] == 8 else 2
    spot = np.full(shape, -0.5, np.float32)
    centre = tuple(n // 2 for n in shape[:num_axes])
    spot[centre] = 0.9
    offsets = []
    for seed in range(30):
        out = augment(spot, np.random.default_rng(seed), num_axes)
        assert out.shape == shape and out.dtype == np.float32 and np.abs(out).max() <= 1
        place = np.argwhere(out > 0.5)[:, :num_axes]
        assert (place == place[0]).all(), "channels move together"
        offsets.append(place[0] - centre)
    assert (np.abs(offsets).max(axis=0) == max(shape[:num_axes]) // 16).all()


def test_flip_is_left_for_right_and_asked_for():
    image = np.tile(np.linspace(-0.5, 0.5, 15, dtype=np.float32), (15, 1))  # no shift: under 16
    rising = {
        flip: [
            bool(augment(image, np.random.default_rng(s), flip=flip)[7, 14] > 0) for s in range(30)
        ]
        for flip in (False, True)
    }
    assert all(rising[False]) and 5 < sum(rising[True]) < 25
    upright = augment(image.T, np.random.default_rng(0), flip=True)
    assert upright[14, 7] > upright[0, 7]


def test_fill_comes_in_at_the_edges():
    image = np.zeros((32, 32), np.float32)
    outs = [augment(image, np.random.default_rng(s), fill=1.0) for s in range(10)]
    assert any((out == 1.0).any() for out in outs) and all(out.min() > -0.2 for out in outs)


def test_stain_keeps_white_and_scales_what_is_taken_away():
    rng = np.random.default_rng(0)
    factors = np.stack([draw_stain(rng) for _ in range(200)])
    assert 0.7 < factors.min() < 0.85 and 1.15 < factors.max() < 1.35
    assert (np.ptp(factors, axis=1) > 0).all()
    image = rng.uniform(-0.4, 1, (5, 4, 3)).astype(np.float32)
    image[0] = 1.0
    out = stained(image, factors[0])
    assert (out[0] == 1).all()
    np.testing.assert_allclose(1 - out[1:], (1 - image[1:]) * factors[0], rtol=1e-5, atol=1e-6)


def test_turned_gives_the_eight_symmetries():
    image = np.arange(6, dtype=np.float32).reshape(2, 3)
    seen = {turned(image, np.random.default_rng(s)).tobytes() for s in range(60)}
    every = {
        np.ascontiguousarray(m).tobytes()
        for k in range(4)
        for m in (np.rot90(image, k), np.fliplr(np.rot90(image, k)))
    }
    assert seen == every and len(every) == 8
