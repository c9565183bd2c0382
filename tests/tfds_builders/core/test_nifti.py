"""NIfTI volumes: orientation, spacing, scaling and byte order against nibabel and by hand."""

from __future__ import annotations

import itertools
import struct
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from tfds_builders.core.nifti import Series, is_nifti, read_volume
from tfds_builders.core.records import UnreadableRecord

SHAPE = (5, 4, 3)
STORED = np.arange(60, dtype=np.int16).reshape(SHAPE)
RAS = np.diag([1.0, 2.0, 3.0, 1.0])


def save(path: Path, voxels: Any = STORED, affine=RAS, cls: Any = nib.Nifti1Image):
    image = cls(voxels, affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return path


def refused(path: Path, match: str, series: Series = "first"):
    with pytest.raises(UnreadableRecord, match=match):
        read_volume(path, series)


def by_nibabel(path):
    """The first volume by nibabel's own canonical axes (R, A, S), turned to (S, P, L)."""
    image = nib.as_closest_canonical(nib.load(path))
    voxels = np.asarray(image.get_fdata())
    voxels = voxels.reshape((*voxels.shape[:3], -1))[..., 0]
    return voxels[::-1, ::-1].transpose(2, 1, 0), image.header.get_zooms()[2::-1]


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, -1), (-1, -1, -1)])
def test_one_bright_voxel_lies_where_the_affine_puts_it(tmp_path, axes, signs):
    # Body axes: 0 right to left (+x is right in NIfTI), 1 back to front, 2 up.
    affine = np.zeros((4, 4))
    mm = (1.0, 2.0, 3.0)
    for i, axis in enumerate(axes):
        affine[axis, i] = signs[i] * mm[i]
    affine[3, 3] = 1
    voxels = np.zeros(SHAPE, np.int16)
    voxels[1, 3, 2] = 7
    volume = read_volume(save(tmp_path / "x.nii", voxels, affine), "refuse")
    corners = np.array(list(itertools.product(*[(0, n - 1) for n in SHAPE])))
    world = corners @ affine[:3, :3].T
    point = affine[:3, :3] @ [1, 3, 2]
    size = np.abs(affine[:3, :3]).sum(axis=1)
    # depth counts upwards from the lowest, rows backwards from the front, columns from the right.
    expected = (
        (point[2] - world[:, 2].min()) / size[2],
        (world[:, 1].max() - point[1]) / size[1],
        (world[:, 0].max() - point[0]) / size[0],
    )
    assert np.argwhere(volume.voxels == 7).tolist() == [[round(n) for n in expected]]
    assert volume.spacing_mm == (size[2], size[1], size[0])


def test_oblique_volumes_take_the_closest_axes(tmp_path):
    angle = np.deg2rad(20)
    turn = np.array(
        [[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]]
    )
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-0.5, 0.5, 4.0])
    path = save(tmp_path / "x.nii", affine=affine)
    expected, zooms = by_nibabel(path)
    volume = read_volume(path, "refuse")
    np.testing.assert_array_equal(volume.voxels, expected)
    assert volume.spacing_mm == pytest.approx((4.0, 0.5, 0.5))
    assert zooms == pytest.approx(volume.spacing_mm)


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
@pytest.mark.parametrize("cls", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("dtype", ["<i2", ">i2", "<f4", ">f8", "u1"])
def test_formats(tmp_path, name, cls, dtype):
    path = save(tmp_path / name, STORED.astype(dtype), cls=cls)
    volume = read_volume(path, "refuse")
    assert volume.voxels.dtype == np.float32
    np.testing.assert_array_equal(volume.voxels, STORED[::-1, ::-1].transpose(2, 1, 0))


def test_the_headers_scaling(tmp_path):
    path = save(tmp_path / "x.nii")
    raw = bytearray(path.read_bytes())
    raw[112:120] = struct.pack("<ff", 2.5, -1024.0)  # scl_slope, scl_inter
    path.write_bytes(bytes(raw))
    volume = read_volume(path, "refuse")
    np.testing.assert_array_equal(
        volume.voxels, (STORED * 2.5 - 1024)[::-1, ::-1].transpose(2, 1, 0)
    )
    raw[112:116] = struct.pack("<f", 0.0)  # by the format a slope of 0 means: not scaled
    path.write_bytes(bytes(raw))
    np.testing.assert_array_equal(read_volume(path, "refuse").voxels[0, 0, 0], STORED[-1, -1, 0])


@pytest.mark.parametrize(("unit", "factor"), [("meter", 1000), ("micron", 0.001), ("unknown", 1)])
def test_units_of_length(tmp_path, unit, factor):
    image = nib.Nifti1Image(STORED, RAS)
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / "x.nii")
    spacing = read_volume(tmp_path / "x.nii", "refuse").spacing_mm
    assert spacing == pytest.approx((3 * factor, 2 * factor, factor))


def test_series(tmp_path):
    series = np.stack([STORED, STORED + 1000], -1)
    path = save(tmp_path / "x.nii.gz", series)
    refused(path, "is a series of 2 volumes; accepted: 1", "refuse")
    volume = read_volume(path, "first")
    assert volume.num_in_series == 2
    np.testing.assert_array_equal(volume.voxels, STORED[::-1, ::-1].transpose(2, 1, 0))
    single = save(tmp_path / "y.nii", STORED[..., None])
    assert read_volume(single, "refuse").voxels.shape == SHAPE[::-1]
    refused(save(tmp_path / "z.nii", np.zeros((*SHAPE, 1, 3), np.float32)), "vectors as voxels")


def test_an_affine_without_an_inverse(tmp_path):
    flat = RAS.copy()
    flat[:3, 2] = flat[:3, 1]
    path = save(tmp_path / "x.nii")
    for sform in (flat[:3], np.full((3, 4), np.nan), np.zeros((3, 4))):
        raw = bytearray(path.read_bytes())
        raw[252:256] = struct.pack("<hh", 0, 1)  # qform_code, sform_code
        raw[280:328] = sform.astype("<f4").tobytes()
        path.write_bytes(bytes(raw))
        refused(path, "has an affine without an inverse")
    raw[252:256] = struct.pack("<hh", 0, 0)
    path.write_bytes(bytes(raw))
    refused(path, "states no orientation")


def test_small_voxels_are_no_fault(tmp_path):
    path = save(tmp_path / "x.nii", affine=np.diag([1e-3, 1e-3, 1e-3, 1]))
    assert read_volume(path, "refuse").spacing_mm == pytest.approx((1e-3,) * 3)


def test_voxels_that_are_no_numbers(tmp_path):
    broken = STORED.astype(np.float32)
    broken[0, 0, 0] = np.nan
    refused(save(tmp_path / "x.nii", broken), "not finite")
    refused(save(tmp_path / "x.nii", STORED.astype(np.float64) * 1e300), "not finite")
    refused(save(tmp_path / "x.nii", STORED.astype(np.complex64)), "of type complex64")
    colours = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    refused(save(tmp_path / "x.nii", colours), "accepted: integers and floats")
    refused(save(tmp_path / "x.nii", STORED[..., 0]), "has the shape")


def test_damaged_files(tmp_path):
    path = save(tmp_path / "x.nii.gz")
    content = path.read_bytes()
    for damaged in (b"", b"text", content[:60], content[:-30], b"\0" * 400):
        path.write_bytes(damaged)
        refused(path, "is no NIfTI file|cannot be read|has the shape|no orientation")
    refused(tmp_path / "none.nii", "cannot be opened")
    plain = save(tmp_path / "y.nii")
    plain.write_bytes(plain.read_bytes()[:-4])
    refused(plain, "voxels that cannot be read")
    nib.save(nib.AnalyzeImage(STORED, None), tmp_path / "z.img")
    refused(tmp_path / "z.img", "no NIfTI file")


def test_any_damage_is_refused_or_read(tmp_path):
    path = save(tmp_path / "x.nii")
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    num_refused = 0
    for _ in range(300):
        damaged = bytearray(content)
        for at in rng.integers(0, 352, 3):
            damaged[at] = rng.integers(256)
        path.write_bytes(bytes(damaged))
        try:
            volume = read_volume(path, "first")
        except UnreadableRecord:
            num_refused += 1
        else:
            assert np.isfinite(volume.voxels).all()
            assert np.isfinite(volume.spacing_mm).all()
    assert 0 < num_refused < 300


def test_names():
    assert [is_nifti(Path(n)) for n in ("a.nii", "a.NII.GZ", "a.gz", "a.hdr")] == [1, 1, 0, 0]


def test_real_files(shared_data):
    paths = sorted((shared_data / "nifti_format_samples/data").iterdir())
    assert [path.name.split(".")[0] for path in paths] == [
        "anatomical",
        "example4d",
        "example_nifti2",
        "functional",
    ]
    for path in paths:
        volume = read_volume(path, "first")
        expected, zooms = by_nibabel(path)
        np.testing.assert_array_equal(volume.voxels, expected.astype(np.float32))
        assert volume.spacing_mm == pytest.approx(zooms, rel=1e-5)
    # SOURCE.md: 33x41x25 voxels of 2 mm, 20 volumes in the functional series.
    assert read_volume(paths[0], "refuse").voxels.shape == (25, 41, 33)
    assert read_volume(paths[3], "first").num_in_series == 20
