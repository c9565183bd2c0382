"""mri.volume; slices are tested in test_images.py."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Pair

from multimed_jax.layers.decode_errors import DecodeError
from multimed_jax.modalities import mri
from tests.layers.test_volumes import resampled
from tests.modalities.streams import assert_missing, check_tokenizer, decode_one
from tests.modalities.test_ct import join
from tests.modalities.test_images import image_record, noise

SPEC = mri.SPEC.with_options(
    side=24, patch=8, volume_size=(4, 12, 12), tubelet=(2, 4, 4), spacing_mm=(2.0, 1.0, 1.0)
)


def scan(voxels: np.ndarray, spacing_mm=(0.0, 0.0, 0.0)) -> dict:
    return {
        "mri": {
            "voxels": voxels,
            "spacing_mm": np.array(spacing_mm, np.float32),
            "sequence": b"T1",
        }
    }


def signal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).gamma(2.0, 300.0, shape).astype(np.float32)


def normalised(values: np.ndarray, of: np.ndarray) -> np.ndarray:
    low, high = np.percentile(of.astype(np.float64), (0.5, 99.5))
    return np.interp(values, [low, high], [-1.0, 1.0])


def test_streams():
    assert [(s.name, s.patch_shape, s.num_axes) for s in SPEC.streams] == [
        ("mri.slice", (8, 8), 2),
        ("mri.volume", (2, 4, 4), 3),
    ]


def test_a_volume_is_resampled_and_normalised_by_percentiles():
    voxels = signal(3, 8, 10)
    parts = decode_one(SPEC, scan(voxels, (2.0, 1.5, 0.8)))
    expected = normalised(resampled(voxels.astype(float), (3, 12, 8)), voxels)
    np.testing.assert_allclose(join(parts, (3, 12, 8)), expected, atol=1e-4)
    # The scale of a scanner means nothing, and neither does one bright voxel.
    scaled = decode_one(SPEC, scan(voxels * 37 - 500, (2.0, 1.5, 0.8)))
    np.testing.assert_allclose(scaled.parts, parts.parts, atol=1e-3)
    spiked = signal(8, 20, 20)
    before = decode_one(SPEC, scan(spiked.copy()))
    spiked[0, 0, 0] = 1e9
    after = decode_one(SPEC, scan(spiked))
    assert np.abs(before.parts - after.parts)[1:].max() < 0.05


def test_windows_share_the_scale_of_their_volume():
    voxels = signal(9, 20, 12)
    voxels[:4] *= 0.1
    record = scan(voxels, (2.0, 1.0, 1.0))
    whole = normalised(voxels, voxels)
    assert SPEC.windows is not None and SPEC.windows.count(record, SPEC.options) == 6
    for window, (d, r) in enumerate((d, r) for d in (0, 2, 5) for r in (0, 8)):
        decoded = SPEC.windows.decode(record, SPEC.options, window)
        assert {k: len(v.parts) for k, v in decoded.items()} == SPEC.count(record, SPEC.options)
        joined = join(decoded["mri.volume"], (4, 12, 12))
        np.testing.assert_allclose(joined, whole[d : d + 4, r : r + 12], atol=1e-4)
    image = image_record("mri", noise(30, 20))
    assert SPEC.windows.count(image, SPEC.options) == 1
    (one,) = SPEC.windows.decode(image, SPEC.options, 0).values()
    assert (one.parts == decode_one(SPEC, image).parts).all()


def test_training_draws_crops_and_augments_when_asked():
    voxels = signal(9, 30, 30)
    record = scan(voxels, (2.0, 1.0, 1.0))
    crops = {decode_one(SPEC, record, np.random.default_rng(s)).parts.tobytes() for s in range(6)}
    assert len(crops) > 3
    small = scan(signal(4, 12, 12), (2.0, 1.0, 1.0))
    plain = decode_one(SPEC, small).parts
    assert (decode_one(SPEC, small, np.random.default_rng(0)).parts == plain).all()
    jittered = SPEC.with_options(augment=True, flip=True)
    assert (decode_one(jittered, small, np.random.default_rng(0)).parts != plain).any()


def test_blank_and_sparse_volumes_are_finite():
    for value in (0.0, -5.0, 1e20):
        parts = decode_one(SPEC, scan(np.full((3, 9, 9), value, np.float32)))
        assert (parts.parts == -1).all()
    sparse = np.zeros((8, 20, 20), np.float32)
    sparse[4, 10, 10] = 7.0
    parts = decode_one(SPEC, scan(sparse))
    assert np.isfinite(parts.parts).all() and parts.parts.max() > -1
    assert np.isfinite(SPEC.features(scan(sparse), SPEC.options)).all()


def test_missing_switched_off_and_damaged():
    assert_missing(SPEC, {})
    assert_missing(SPEC, scan(np.zeros((0, 0, 0), np.float32)))
    assert SPEC.features(scan(np.zeros((0, 0, 0), np.float32)), SPEC.options).shape == (512,)
    assert_missing(SPEC.with_options(streams=("slice",)), scan(signal(3, 9, 9)))
    assert_missing(SPEC.with_options(streams=("volume",)), image_record("mri", noise(9, 9)))
    for bad in (np.nan, np.inf, -np.inf, 1e35):
        voxels = signal(3, 9, 9)
        voxels[1, 2, 3] = bad
        for function in (lambda r, o: SPEC.decode(r, o, None), SPEC.features, SPEC.preview):
            with pytest.raises(DecodeError, match="accepted: finite values"):
                function(scan(voxels), SPEC.options)
    with pytest.raises(DecodeError, match="depth, row, column"):
        SPEC.count(scan(signal(9, 9)), SPEC.options)
    with pytest.raises(DecodeError, match="spacing"):
        SPEC.count(scan(signal(3, 9, 9), (np.nan, 1.0, 1.0)), SPEC.options)


def test_features_and_preview():
    voxels = signal(16, 24, 8)
    got = SPEC.features(scan(voxels), SPEC.options)
    assert got.shape == (512,) and got.dtype == np.float32
    means = voxels.astype(float).reshape(8, 2, 8, 3, 8, 1).mean(axis=(1, 3, 5))
    np.testing.assert_allclose(got, normalised(means, voxels).ravel(), atol=1e-4)
    preview = SPEC.preview(scan(voxels), SPEC.options)
    expected = (normalised(voxels[8], voxels) + 1) * 127.5
    np.testing.assert_allclose(preview.values, expected, atol=0.51)


def test_tokenizer():
    check_tokenizer(SPEC, *(decode_one(SPEC, scan(signal(4, 12, 12, seed=s))) for s in (1, 2)))


# ------------------------------------------------------------------------------- NIfTI


def check_nifti(path) -> None:
    """Tubelets of one window that holds the whole volume, against nibabel's own scaling."""
    image = nibabel.load(path)
    assert isinstance(image, Nifti1Pair)
    data = np.asarray(image.dataobj, np.float64)
    zooms = image.header.get_zooms()[:3]
    if data.ndim == 4:
        data = data[..., 0]
    # Stored as (x, y, z): depth is z.
    voxels, spacing = data.transpose(2, 1, 0), tuple(float(z) for z in zooms[::-1])
    spec = mri.SPEC.with_options(
        volume_size=voxels.shape, tubelet=(2, 5, 3), spacing_mm=spacing, streams=("volume",)
    )
    parts = decode_one(spec, scan(voxels.astype(np.float32), spacing))
    np.testing.assert_allclose(
        join(parts, voxels.shape), normalised(voxels, voxels), atol=2e-3, rtol=0
    )


@pytest.mark.parametrize("dtype", ["<i2", ">i2", "<f4"])
def test_generated_nifti(tmp_path, dtype):
    data = (np.random.default_rng(0).gamma(2.0, 200.0, (9, 11, 6))).astype(dtype)
    image = nibabel.Nifti1Image(data, np.diag([0.9, 1.1, 3.0, 1.0]))
    nibabel.save(image, tmp_path / "a.nii.gz")
    check_nifti(tmp_path / "a.nii.gz")


def test_real_nifti(shared_data):
    paths = sorted((shared_data / "nifti_format_samples").glob("data/*.nii*"))
    assert len(paths) == 4
    for path in paths:
        check_nifti(path)
