from __future__ import annotations

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from multimed_jax.layers.decode_errors import DecodeError
from multimed_jax.modalities import ct
from multimed_jax.types import UserError
from tests.layers.test_volumes import resampled
from tests.modalities.streams import assert_missing, check_tokenizer, decode_one

GEOMETRY = {
    "side": 24,
    "patch": 8,
    "volume_size": (4, 12, 12),
    "tubelet": (2, 4, 4),
    "spacing_mm": (2.0, 1.0, 1.0),
}
SPEC = ct.SPEC.with_options(**GEOMETRY)
ONE = SPEC.with_options(windows_hu=((40.0, 400.0),))


def scan(hu: np.ndarray, spacing_mm=(0.0, 0.0, 0.0)) -> dict:
    return {"ct": {"hu": hu, "spacing_mm": np.array(spacing_mm, np.float32)}}


def random_hu(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-3100, 3000, shape).astype(np.int16)


def windowed(hu: np.ndarray, windows) -> np.ndarray:
    """DICOM's linear window in its plain form, from -1 to 1."""
    channels = []
    for centre, width in windows:
        low, high = centre - width / 2, centre + width / 2
        channels.append(np.interp(hu, [low, high], [-1.0, 1.0]))
    return channels[0] if len(channels) == 1 else np.stack(channels, -1)


def join(parts, shape) -> np.ndarray:
    """Slices and volumes put together again by the coordinates; padding must be black."""
    axes = parts.coords.shape[1]
    side = parts.parts.shape[1 : 1 + axes]
    grid = parts.coords.astype(int).max(axis=0) + 1
    whole = [int(g) * s for g, s in zip(grid, side, strict=True)]
    out = np.full((*whole, *parts.parts.shape[1 + axes :]), np.nan, np.float32)
    for part, place in zip(parts.parts, parts.coords.astype(int), strict=True):
        out[tuple(slice(c * s, (c + 1) * s) for c, s in zip(place, side, strict=True))] = part
    inside = tuple(slice(n) for n in shape)
    found = out[inside].copy()
    out[inside] = -1
    assert (out == -1).all()
    return found


def test_streams():
    assert [(s.name, s.patch_shape, s.num_axes) for s in SPEC.streams] == [
        ("ct.slice", (8, 8, 2), 2),
        ("ct.volume", (2, 4, 4, 2), 3),
    ]
    (only,) = ONE.with_options(streams=("volume",)).streams
    assert (only.name, only.patch_shape) == ("ct.volume", (2, 4, 4))


@pytest.mark.parametrize("size", [(24, 24), (40, 31), (1, 60), (12, 12)])
@pytest.mark.parametrize("spec", [SPEC, ONE], ids=["two windows", "one"])
def test_a_slice_is_windowed_and_resized(spec, size):
    hu = random_hu(1, *size)
    parts = decode_one(spec, scan(hu))
    scale = 24 / max(size)
    new = tuple(max(1, int(n * scale + 0.5)) for n in size)
    # Padding of -3024 must not darken its neighbours: it is air before anything is averaged.
    expected = windowed(
        resampled(np.clip(hu[0], -1000, 3071).astype(float), new), spec.options.windows_hu
    )
    np.testing.assert_allclose(join(parts, new), expected, atol=1e-4)


def test_background_values_of_all_makers_are_air():
    for value in (-1000, -1024, -2000, -2048, -3024):
        assert ct.prepare(np.array([value], np.int16)).tolist() == [-1000.0]
    air, water, bone = (
        decode_one(ONE, scan(np.full((1, 8, 8), v, np.int16))).parts for v in (-2048, 40, 1000)
    )
    assert (air == -1).all() and (water == 0).all() and (bone == 1).all()
    wide = ONE.with_options(windows_hu=((-1000.0, 2000.0),))
    assert (decode_one(wide, scan(np.full((1, 8, 8), -3024, np.int16))).parts == 0).all()


def test_a_volume_is_resampled_to_its_spacing():
    hu = random_hu(3, 8, 10)
    parts = decode_one(SPEC, scan(hu, (2.0, 1.5, 0.8)))
    expected = windowed(
        resampled(np.clip(hu, -1000, 3071).astype(float), (3, 12, 8)), SPEC.options.windows_hu
    )
    np.testing.assert_allclose(join(parts, (3, 12, 8)), expected, atol=1e-4)
    assert parts.coords.max(axis=0).tolist() == [1, 2, 1]
    unknown = decode_one(SPEC, scan(hu, (0.0, 1.5, 0.8)))
    expected = windowed(
        resampled(np.clip(hu, -1000, 3071).astype(float), (3, 10, 12)), SPEC.options.windows_hu
    )
    np.testing.assert_allclose(join(unknown, (3, 10, 12)), expected, atol=1e-4)


def test_windows_are_parts_of_the_whole_and_as_long_as_count_says():
    hu = random_hu(9, 20, 12)
    record = scan(hu, (2.0, 1.0, 1.0))
    whole = windowed(np.clip(hu, -1000, 3071), ONE.options.windows_hu)
    assert ONE.windows is not None
    assert ONE.windows.count(record, ONE.options) == 6
    seen = np.zeros(hu.shape, bool)
    starts = [(d, r, 0) for d in (0, 2, 5) for r in (0, 8)]
    for window, (d, r, c) in enumerate(starts):
        decoded = ONE.windows.decode(record, ONE.options, window)
        assert {k: len(v.parts) for k, v in decoded.items()} == ONE.count(record, ONE.options)
        cut = np.s_[d : d + 4, r : r + 12, c : c + 12]
        joined = join(decoded["ct.volume"], (4, 12, 12))
        np.testing.assert_allclose(joined, whole[cut], atol=1e-4)
        seen[cut] = True
    assert seen.all()
    centre = join(decode_one(ONE, record), (4, 12, 12))
    np.testing.assert_allclose(centre, whole[2:6, 4:16], atol=1e-4)


def test_records_of_one_window_look_the_same_in_it():
    assert ONE.windows is not None
    for record in (scan(random_hu(1, 30, 30)), scan(random_hu(3, 9, 9), (2.0, 1.0, 1.0))):
        assert ONE.windows.count(record, ONE.options) == 1
        (whole,) = ONE.decode(record, ONE.options, None).values()
        (window,) = ONE.windows.decode(record, ONE.options, 0).values()
        assert (whole.parts == window.parts).all() and (whole.coords == window.coords).all()


def test_training_draws_crops_around_the_body():
    hu = np.full((12, 40, 40), -1024, np.int16)
    hu[8, 31, 7] = 40
    record = scan(hu, (2.0, 1.0, 1.0))
    places = set()
    for seed in range(12):
        parts = decode_one(ONE, record, np.random.default_rng(seed))
        joined = join(parts, (4, 12, 12))
        assert joined.max() == 0, "the one voxel of the body is in every crop"
        places.add(np.unravel_index(joined.argmax(), joined.shape))
    assert len(places) > 3
    again = decode_one(ONE, record, np.random.default_rng(0)).parts
    assert (again == decode_one(ONE, record, np.random.default_rng(0)).parts).all()


@pytest.mark.parametrize("shape", [(1, 30, 20), (5, 30, 20)])
def test_augmentation_keeps_the_count(shape):
    record = scan(random_hu(*shape))
    plain = decode_one(SPEC, record)
    assert (decode_one(SPEC, record, np.random.default_rng(1)).parts == plain.parts).all()
    jittered = SPEC.with_options(augment=True, flip=True)
    one = decode_one(jittered, record, np.random.default_rng(1))
    assert (one.parts != plain.parts).any() and np.abs(one.parts).max() <= 1
    assert (decode_one(jittered, record).parts == plain.parts).all()


def test_missing_switched_off_and_damaged():
    assert_missing(SPEC, {})
    assert_missing(SPEC, scan(np.zeros((0, 0, 0), np.int16)))
    assert_missing(SPEC, scan(np.zeros((0, 512, 512), np.int16)))
    assert_missing(SPEC.with_options(streams=("slice",)), scan(random_hu(3, 9, 9)))
    assert_missing(SPEC.with_options(streams=("volume",)), scan(random_hu(1, 9, 9)))
    flat = scan(random_hu(9, 9)[None, None])
    broken = scan(np.full((2, 4, 4), np.nan, np.float32))
    far = scan(random_hu(3, 9, 9), (1e9, 1.0, 1.0))
    for record, reason in ((flat, "depth, row, column"), (broken, "not finite"), (far, "spacing")):
        with pytest.raises(DecodeError, match=reason):
            SPEC.decode(record, SPEC.options, None)
    for wrong in ((), ((40.0, 0.0),), ((40.0,),)):
        with pytest.raises(UserError, match="windows_hu"):
            SPEC.with_options(windows_hu=wrong)


def test_blank_scans_are_finite():
    for shape in [(1, 9, 9), (3, 9, 9)]:
        record = scan(np.full(shape, -1024, np.int16))
        assert (decode_one(SPEC, record).parts[..., 0] == -1).all()
        assert np.isfinite(SPEC.features(record, SPEC.options)).all()


def test_features_are_means_of_a_wide_window():
    hu = random_hu(1, 32, 48)
    got = SPEC.features(scan(hu), SPEC.options)
    assert got.shape == (256 + 512,) and got.dtype == np.float32 and not got[256:].any()
    means = np.clip(hu[0], -1000, 3071).astype(float).reshape(16, 2, 16, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(got[:256], np.clip(means / 1000, -1, 1).ravel(), atol=1e-4)
    hu = random_hu(16, 24, 8)
    got = SPEC.features(scan(hu), SPEC.options)
    means = np.clip(hu, -1000, 3071).astype(float).reshape(8, 2, 8, 3, 8, 1).mean(axis=(1, 3, 5))
    assert not got[:256].any()
    np.testing.assert_allclose(got[256:], np.clip(means / 1000, -1, 1).ravel(), atol=1e-4)


def test_preview_is_the_middle_slice():
    hu = random_hu(5, 30, 20)
    preview = SPEC.preview(scan(hu), SPEC.options)
    expected = (windowed(np.clip(hu[2], -1000, 3071), ((50.0, 400.0),)) + 1) * 127.5
    assert preview.kind == "image" and preview.values.dtype == np.uint8
    np.testing.assert_allclose(preview.values, expected, atol=0.51)


def test_tokenizers():
    for shape in [(1, 30, 20), (4, 12, 12)]:
        one, two = (decode_one(SPEC, scan(random_hu(*shape, seed=s))) for s in (1, 2))
        check_tokenizer(SPEC, one, two)


# ------------------------------------------------------------------------------- DICOM


def write_dicom(path, stored: np.ndarray, signed: bool, slope: float, intercept: float) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = pydicom.Dataset()
    data.file_meta = meta
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    data.Rows, data.Columns = stored.shape
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.SamplesPerPixel = 15, 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.PixelRepresentation = int(signed)
    data.RescaleSlope, data.RescaleIntercept = str(slope), str(intercept)
    data.PixelSpacing = ["0.7", "0.7"]
    data.PixelData = stored.tobytes()
    data.save_as(path, enforce_file_format=True)


def check_dicom(path) -> None:
    """Patches against the windowing equation of DICOM PS3.3 C.11.2.1.3 on pydicom's pixels."""
    data = pydicom.dcmread(path)
    hu = data.pixel_array.astype(float) * float(data.RescaleSlope) + float(data.RescaleIntercept)
    height, width = hu.shape
    spec = ct.SPEC.with_options(side=max(hu.shape), patch=min(16, height, width))
    parts = decode_one(spec, scan(np.rint(hu).astype(np.int16)[None], (0, 0.7, 0.7)))
    joined = join(parts, (height, width))
    for channel, (centre, span) in enumerate(spec.options.windows_hu):
        expected = ((np.maximum(hu, -1000) - centre) / span + 0.5).clip(0, 1) * 2 - 1
        # Rescaled values lie up to half a unit beside the whole ones that a record holds.
        np.testing.assert_allclose(joined[..., channel], expected, atol=1.01 / span + 1e-4)


@pytest.mark.parametrize(
    ("signed", "slope", "intercept", "padding"),
    [(False, 1.0, -1024.0, 0), (True, 1.0, -1024.0, -2000), (True, 1.000244, 0.0, -1024)],
)
def test_generated_dicom(tmp_path, signed, slope, intercept, padding):
    stored = np.random.default_rng(1).integers(0, 2500, (40, 36))
    stored[:8] = padding
    write_dicom(
        tmp_path / "a.dcm",
        stored.astype(np.int16 if signed else np.uint16),
        signed,
        slope,
        intercept,
    )
    check_dicom(tmp_path / "a.dcm")


def test_real_dicom(shared_data):
    paths = sorted((shared_data / "siim_tcga_ct_age_contrast").glob("dicom_dir/*.dcm"))[::5]
    assert paths
    for path in paths:
        check_dicom(path)
