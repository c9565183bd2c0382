"""A DICOM series in a folder, CT or MR, as one volume in the orientation of `core.nifti`.

The slices are ordered by their position along the normal of the first slice, and the axes of the
array brought to (superior, posterior, left) by permuting and flipping, never by interpolation.

    axial slices, ImagePositionPatient z = 30, 10, 20     record: depth 0, 1, 2 = 10, 20, 30

Source: DICOM PS3.3, C.7.6.2.1.1 (position and orientation: x to the left, y to the back, z to the
head). Requires pydicom.
"""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32

from tfds_builders.core.dicom import read_ct_slice
from tfds_builders.core.dicom_header import (
    PIXEL_TAGS,
    check_one_grey_frame,
    number,
    pixel_spacing_mm,
    read_header,
    stored_values,
    term,
)
from tfds_builders.core.nifti import Volume
from tfds_builders.core.records import UnreadableRecord

_TAGS = (
    *PIXEL_TAGS,
    "Modality",
    "SeriesInstanceUID",
    "PixelSpacing",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "RescaleIntercept",
    "RescaleSlope",
)
# Of the distance of slices: a series with a slice missing or doubled is refused.
_SPACING_TOLERANCE = 0.05
_NO_SALT = "volume"  # the hash of the patient's id that comes with a slice is not used


@dataclasses.dataclass(frozen=True)
class _Slice:
    pixels: np.ndarray
    position: np.ndarray
    axes: np.ndarray  # directions of rising row and of rising column, [2, 3]
    spacing_mm: tuple[float, float]
    series: str


def read_series(
    folder: Path, modality: Literal["CT", "MR"], accept_burned_in: bool = False
) -> Volume:
    """Reads every file of a folder as a slice of one series.

    Args:
        folder: that holds nothing else.
        modality: of every slice.
        accept_burned_in: read files whose header says that text is drawn into their pixels.

    Returns:
        CT in Hounsfield units, MR in the unit of the files with their scaling applied.

    Raises:
        UnreadableRecord: no file, a file that is no slice of this kind, several series, slices of
            unequal size or orientation, a gap, or two slices at one place.
        UserError: pydicom is not installed.
    """
    paths = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    if not paths:
        raise UnreadableRecord("is a folder without files; accepted: the slices of one series")
    slices = [_read(path, modality, accept_burned_in) for path in paths]
    first = slices[0]
    for other in slices:
        if other.series != first.series or other.pixels.shape != first.pixels.shape:
            raise UnreadableRecord("holds slices of several series or sizes; accepted: one")
        if not np.allclose(other.axes, first.axes, atol=1e-3):
            raise UnreadableRecord("holds slices of several orientations; accepted: one")
    normal = np.cross(first.axes[1], first.axes[0])  # column x row: feet to head if axial
    along = np.array([float(s.position @ normal) for s in slices])
    order = np.argsort(along, kind="stable")
    gaps = np.diff(along[order])
    spacing = float(np.median(gaps)) if len(gaps) else 0.0
    if len(gaps) and (spacing <= 0 or np.abs(gaps - spacing).max() > _SPACING_TOLERANCE * spacing):
        raise UnreadableRecord("has slices at uneven distances: one is missing or doubled")
    stack = np.stack([slices[i].pixels for i in order]).astype(np.float32)
    axes = np.stack([normal, first.axes[0], first.axes[1]])
    return _turned(stack, axes, (spacing, *first.spacing_mm))


def _read(path: Path, modality: str, accept_burned_in: bool) -> _Slice:
    header, values = read_header(path, _TAGS, accept_burned_in)
    if values.get("Modality") != modality:
        raise UnreadableRecord(f"has the modality {term(values.get('Modality'))}, not {modality!r}")
    orientation, position = (
        values.get("ImageOrientationPatient"),
        values.get("ImagePositionPatient"),
    )
    try:
        across, down = np.asarray(orientation, np.float64).reshape(2, 3)
        place = np.asarray(position, np.float64).reshape(3)
    except (TypeError, ValueError):
        raise UnreadableRecord("has a slice without position or orientation") from None
    if modality == "CT":
        pixels: Any = read_ct_slice(path, _NO_SALT, accept_burned_in).hu[0]
    else:
        check_one_grey_frame(values)
        slope, intercept = number(values, "RescaleSlope", 1), number(values, "RescaleIntercept")
        pixels = stored_values(header, values) * slope + intercept
    axes = np.stack([down, across])
    if not np.isfinite(place).all() or not np.allclose(axes @ axes.T, np.eye(2), atol=1e-3):
        raise UnreadableRecord("has a slice whose orientation is no pair of directions")
    return _Slice(
        pixels, place, axes, pixel_spacing_mm(values), str(values.get("SeriesInstanceUID"))
    )


def _turned(
    stack: Float32[np.ndarray, "depth row column"],
    axes: np.ndarray,
    spacing_mm: tuple[float, float, float],
) -> Volume:
    """The array with its axes as close as they come to (head, back, left)."""
    body = axes[:, ::-1]  # columns: along the head, the back, the left
    order = max(
        itertools.permutations(range(3)),
        key=lambda p: sum(abs(body[axis, place]) for place, axis in enumerate(p)),
    )
    turned = stack.transpose(order)
    for place, axis in enumerate(order):
        if body[axis, place] < 0:
            turned = np.flip(turned, place)
    spacing = tuple(spacing_mm[axis] for axis in order)
    return Volume(np.ascontiguousarray(turned), (spacing[0], spacing[1], spacing[2]), 1)
