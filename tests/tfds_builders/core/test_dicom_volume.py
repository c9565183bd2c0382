"""DICOM series: order, orientation and spacing against coordinates of single voxels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tfds_builders.dicoms import make_ct, save
from tfds_builders.core.dicom_volume import read_series
from tfds_builders.core.records import UnreadableRecord

ROW_MM, COLUMN_MM, GAP_MM = 0.5, 0.75, 2.0
# (direction of rising column, of rising row), to the left, back and head.
PLANES = {
    "axial": ([1, 0, 0], [0, 1, 0]),
    "axial, feet first": ([-1, 0, 0], [0, 1, 0]),
    "coronal": ([1, 0, 0], [0, 0, -1]),
    "sagittal": ([0, 1, 0], [0, 0, -1]),
    "oblique": ([np.cos(0.3), np.sin(0.3), 0], [-np.sin(0.3), np.cos(0.3), 0]),
}


def write_series(folder: Path, plane: str, **changes: Any) -> np.ndarray:
    """A series of 4 slices of 3 x 5; returns (value, left, back, head in mm) of every voxel."""
    across, down = (np.array(v, float) for v in PLANES[plane])
    normal = np.cross(across, down)
    rows = []
    for k in range(4):
        pixels = (100 * k + np.arange(15).reshape(3, 5)).astype(np.int16)
        place = np.array([-20.0, 5.0, 30.0]) - GAP_MM * k * normal  # written against the normal
        tags = {
            "ImagePositionPatient": [float(f"{v:.6f}") for v in place],
            "ImageOrientationPatient": [float(f"{v:.6f}") for v in [*across, *down]],
            "PixelSpacing": [ROW_MM, COLUMN_MM],
            "SeriesInstanceUID": "1.2",
            "Modality": "MR",
            "RescaleIntercept": "0",
            **(changes if k == 2 else {}),
        }
        tags = {name: value for name, value in tags.items() if value is not None}
        save(make_ct(pixels, **tags), folder / f"{(7 * k) % 4}.dcm")
        for r in range(3):
            for c in range(5):
                point = place + ROW_MM * r * down + COLUMN_MM * c * across
                rows.append([pixels[r, c], *point])
    return np.array(rows)


@pytest.mark.parametrize("plane", list(PLANES))
def test_voxels_run_to_head_back_and_left(tmp_path, plane):
    known = {int(row[0]): row[1:] for row in write_series(tmp_path, plane)}
    volume = read_series(tmp_path, "MR")
    voxels = volume.voxels
    origin = known[int(voxels[0, 0, 0])]
    for axis, body in ((0, 2), (1, 1), (2, 0)):
        index = [0, 0, 0]
        index[axis] = 1
        step = known[int(voxels[tuple(index)])] - origin
        assert np.argmax(np.abs(step)) == body and step[body] > 0
        np.testing.assert_allclose(np.linalg.norm(step), volume.spacing_mm[axis], atol=1e-4)
    assert sorted(voxels.ravel().astype(int).tolist()) == sorted(known)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"ImagePositionPatient": [-20, 5, 29.5]}, "uneven distances"),
        ({"SeriesInstanceUID": "9"}, "several series"),
        ({"ImageOrientationPatient": [0, 1, 0, 1, 0, 0]}, "several orientations"),
        ({"ImageOrientationPatient": None}, "without position or orientation"),
        ({"Modality": "CT"}, "has the modality 'CT', not 'MR'"),
    ],
)
def test_series_that_are_refused(tmp_path, changes, match):
    write_series(tmp_path, "axial", **changes)
    with pytest.raises(UnreadableRecord, match=match):
        read_series(tmp_path, "MR")
