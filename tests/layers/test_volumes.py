from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import ndimage

from multimed_jax.layers.decode_errors import DecodeError
from multimed_jax.layers.grid_resample import block_means, resample_crop
from multimed_jax.layers.tubelets import cut_tubelets, num_tubelets
from multimed_jax.layers.volumes import (
    SAMPLED_VOXELS,
    VolumeOptions,
    plan_volume,
    random_start,
    sampled,
    spacing_of,
)
from multimed_jax.types import UserError


def as_is(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, np.float32)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def resampled(volume: np.ndarray, shape) -> np.ndarray:
    """The rule, sample by sample: a triangle around each output sample's middle."""
    for axis, num_out in enumerate(shape):
        step = volume.shape[axis] / num_out
        reach = max(1.0, step)
        rows = []
        for out in range(num_out):
            weight = np.array(
                [
                    max(0.0, 1 - abs(i + 0.5 - (out + 0.5) * step) / reach)
                    for i in range(volume.shape[axis])
                ]
            )
            rows.append(np.tensordot(volume, weight / weight.sum(), axes=(axis, 0)))
        volume = np.stack(rows, axis=axis)
    return volume


@pytest.mark.parametrize("shape", [(5, 7, 9), (2, 3, 4), (9, 15, 11), (1, 1, 1), (5, 3, 20)])
def test_resampling_is_the_triangle_rule_and_crops_are_parts_of_it(shape):
    volume = noise(5, 7, 9)
    whole = resampled(volume.astype(float), shape)
    got = resample_crop(volume, shape, (0, 0, 0), shape, as_is)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, whole, atol=1e-5)
    start = tuple(n // 3 for n in shape)
    extent = tuple(n - s - (n > 4) for n, s in zip(shape, start, strict=True))
    crop = resample_crop(volume, shape, start, extent, as_is)
    cut = tuple(slice(s, s + e) for s, e in zip(start, extent, strict=True))
    np.testing.assert_allclose(crop, whole[cut], atol=1e-5)


def test_a_crop_of_the_stored_size_is_resampled_too():
    volume = noise(6, 6, 6)
    crop = resample_crop(volume, (12, 12, 12), (0, 0, 0), (6, 6, 6), as_is)
    np.testing.assert_allclose(crop, resampled(volume, (12, 12, 12))[:6, :6, :6], atol=1e-5)


def test_enlarging_agrees_with_scipy():
    volume = noise(4, 5, 6)
    got = resample_crop(volume, (12, 15, 18), (0, 0, 0), (12, 15, 18), as_is)
    expected = np.asarray(ndimage.zoom(volume, 3, order=1, grid_mode=True, mode="nearest"))
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_block_means():
    volume = noise(6, 8, 10)
    expected = volume.reshape(3, 2, 4, 2, 5, 2).mean(axis=(1, 3, 5))
    np.testing.assert_allclose(block_means(volume, (3, 4, 5), as_is), expected, atol=1e-6)
    assert block_means(noise(1, 1, 1), (8, 8, 8), as_is).shape == (8, 8, 8)


def test_values_are_prepared_before_they_are_averaged():
    volume = np.array([[[0, 100]]], np.int16)
    prepare = lambda v: np.minimum(v, 10).astype(np.float32)  # noqa: E731
    assert resample_crop(volume, (1, 1, 1), (0, 0, 0), (1, 1, 1), prepare).item() == 5


@pytest.mark.parametrize("space", [(4, 6, 6), (3, 5, 7), (1, 1, 1)])
@pytest.mark.parametrize("channels", [(), (2,)])
def test_tubelets_put_together_are_the_volume(space, channels):
    volume = noise(*space, *channels)
    tubelet = (2, 3, 2)
    parts, coords = cut_tubelets(volume, tubelet, -9.0)
    assert parts.shape == (num_tubelets(space, tubelet), *tubelet, *channels)
    assert coords.dtype == np.float32
    grid = [-(-n // t) for n, t in zip(space, tubelet, strict=True)]
    assert coords.tolist() == [list(map(float, c)) for c in itertools.product(*map(range, grid))]
    joined = np.full([g * t for g, t in zip(grid, tubelet, strict=True)] + [*channels], np.nan)
    for part, coord in zip(parts, coords.astype(int), strict=True):
        at = tuple(slice(c * t, (c + 1) * t) for c, t in zip(coord, tubelet, strict=True))
        joined[at] = part
    inside = tuple(slice(n) for n in space)
    assert (joined[inside] == volume).all()
    joined[inside] = -9.0
    assert (joined == -9.0).all()


OPTIONS = VolumeOptions(volume_size=(4, 6, 6), tubelet=(2, 3, 3), spacing_mm=(2.0, 1.0, 1.0))


def test_known_spacing_fixes_the_shape_and_windows_cover_it():
    plan = plan_volume((10, 9, 5), (1.6, 1.5, 0.5), OPTIONS)
    assert plan.shape == (8, 14, 3)  # 16 mm, 13.5 mm and 2.5 mm
    assert plan.extent == (4, 6, 3) and plan.grid == (2, 3, 1) and plan.num_windows == 6
    starts = [plan.start(w) for w in range(6)]
    assert starts == [(d, r, 0) for d in (0, 4) for r in (0, 4, 8)]
    assert plan.centre() == (2, 4, 0)
    seen = np.zeros(plan.shape, bool)
    for start in starts:
        seen[tuple(slice(s, s + e) for s, e in zip(start, plan.extent, strict=True))] = True
    assert seen.all()
    assert plan.num_parts(OPTIONS.tubelet) == 2 * 2 * 1


def test_unknown_spacing_fits_the_volume_into_one_window():
    assert plan_volume((10, 24, 12), None, OPTIONS).shape == (4, 6, 3)
    assert plan_volume((3, 2, 3), None, OPTIONS).shape == (3, 4, 6)
    for shape in [(1, 1, 1), (500, 3, 1000), (2, 1000, 1)]:
        plan = plan_volume(shape, None, OPTIONS)
        assert plan.num_windows == 1 and plan.start(0) == plan.centre() == (0, 0, 0)


def test_too_many_windows_are_thinned_evenly():
    options = VolumeOptions(
        volume_size=(4, 6, 6), tubelet=(2, 3, 3), spacing_mm=(1.0, 1.0, 1.0), max_windows=3
    )
    plan = plan_volume((36, 6, 6), (1.0, 1.0, 1.0), options)
    assert plan.grid == (9, 1, 1) and plan.num_windows == 3
    assert [plan.start(w) for w in range(3)] == [(4, 0, 0), (16, 0, 0), (28, 0, 0)]


def test_spacing():
    assert spacing_of({"spacing_mm": np.array([5, 0.7, 0.7], np.float32)}) is not None
    assert spacing_of({"spacing_mm": np.array([0, 0.7, 0.7], np.float32)}) is None
    for wrong in ([1, 1], [-1, 1, 1], [np.nan, 1, 1], [np.inf, 1, 1], [1e6, 1, 1]):
        with pytest.raises(DecodeError, match="accepted: three distances"):
            spacing_of({"spacing_mm": np.array(wrong)})


def test_statistics_see_few_voxels_evenly():
    small = noise(3, 4, 5)
    assert sampled(small)[0] is not None and sampled(small)[1] == (1, 1, 1)
    large = np.broadcast_to(np.float32(0), (300, 512, 512))
    few, steps = sampled(large)
    assert SAMPLED_VOXELS / 3 < few.size <= 1.1 * SAMPLED_VOXELS
    assert few.shape == tuple(-(-n // s) for n, s in zip(large.shape, steps, strict=True))


def test_random_crops_hold_foreground_and_stay_inside():
    volume = np.zeros((10, 40, 40), np.int16)
    volume[7, 30, 5] = 1
    plan = plan_volume(volume.shape, (2.0, 1.0, 1.0), OPTIONS)
    starts = {
        random_start(plan, volume, lambda v: v > 0, np.random.default_rng(s)) for s in range(50)
    }
    assert len(starts) > 5
    for start in starts:
        for s, e, n, spot in zip(start, plan.extent, plan.shape, (7, 30, 5), strict=True):
            assert 0 <= s <= n - e and s <= spot < s + e
    blank = {
        random_start(plan, volume, lambda v: v > 9, np.random.default_rng(s)) for s in range(50)
    }
    assert len(blank) > 20
    assert all(
        0 <= s <= n - e
        for start in blank
        for s, n, e in zip(start, plan.shape, plan.extent, strict=True)
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"streams": ()},
        {"streams": ("slice", "slice")},
        {"streams": ("tile",)},
        {"volume_size": (4, 6)},
        {"tubelet": (5, 3, 3)},
        {"tubelet": (0, 3, 3)},
        {"spacing_mm": (0.0, 1.0, 1.0)},
        {"max_windows": 0},
        {"patch": 97},
    ],
    ids=str,
)
def test_illegal_geometry(wrong):
    values = {"volume_size": (4, 6, 6), "tubelet": (2, 3, 3)} | wrong
    with pytest.raises(UserError, match="accepted"):
        VolumeOptions(**values)
