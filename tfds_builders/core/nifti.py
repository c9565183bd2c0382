"""NIfTI-1 and NIfTI-2 volumes (.nii, .nii.gz): scaled, in one orientation, axes in record order.

An array [depth, row, column] runs towards the patient's head, back and left: depth from inferior to
superior, rows from anterior to posterior, columns from right to left. That is the order in which
DICOM stores axial slices, so a volume of either format looks the same on a screen.

    NIfTI affine, file axes (i, j, k)      closest axes of the body        record
    anatomical: i -> L, j -> A, k -> S     flip j, order (k, j, i)         [S, P, L]

Axes are permuted and flipped, never interpolated: an oblique volume stays oblique, by at most 45
degrees. Requires nibabel. Source: NIfTI-1 data format, fields `sform`, `qform`, `scl_slope`,
`xyzt_units`.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32

from multimed_jax.types import UserError
from tfds_builders.core.records import UnreadableRecord

Series = Literal["first", "refuse"]
SERIES = ("first", "refuse")
EXTENSIONS = (".nii", ".nii.gz")
# The largest clinical series hold some 1,500 slices of 512 x 512; beyond that a header is damaged.
MAX_VOXELS = 1_000_000_000
# The three low bits of `xyzt_units`: unknown (taken as mm), metre, millimetre, micrometre.
_MM_OF_UNIT = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}


@dataclasses.dataclass(frozen=True)
class Volume:
    """A volume in the canonical orientation.

    Attributes:
        voxels: in the unit of the file, its scaling applied.
        spacing_mm: distance of voxels along (depth, row, column).
        num_in_series: volumes of the file; the first is read.
    """

    voxels: Float32[np.ndarray, "depth row column"]
    spacing_mm: tuple[float, float, float]
    num_in_series: int


def is_nifti(path: Path) -> bool:
    """Whether a file is named like a NIfTI volume."""
    return path.name.lower().endswith(EXTENSIONS)


def read_volume(path: Path, series: Series) -> Volume:
    """Reads a NIfTI file.

    Args:
        path: of the file.
        series: of a file with several volumes "first" reads the first, "refuse" none.

    Raises:
        UnreadableRecord: no NIfTI file, cut short, a series that is refused, an affine without an
            inverse or none at all, voxels that are colours, complex or not finite.
        UserError: nibabel is not installed.
    """
    try:
        import nibabel as nib
    except ImportError:
        raise UserError(
            "reading NIfTI files needs nibabel, which is not installed: "
            "pip install multimed-jax[formats]"
        ) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image: Any = nib.load(path)  # pyright: ignore[reportPrivateImportUsage]
    except FileNotFoundError as error:
        raise UnreadableRecord("cannot be opened (No such file or directory)") from error
    except Exception as error:  # damaged files raise whatever their bytes lead nibabel to
        raise UnreadableRecord(f"is no NIfTI file: {type(error).__name__}") from error
    # Nifti2Image, too, is a Nifti1Image; Analyze and others hold no orientation to trust.
    if not isinstance(image, nib.Nifti1Image):  # pyright: ignore[reportPrivateImportUsage]
        raise UnreadableRecord(f"is a {type(image).__name__}, no NIfTI file")
    num = _check_shape(image, series)
    to_record, spacing = _orientation(nib, image)
    try:
        first = (slice(None),) * 3 + (0,) * (len(image.shape) - 3)
        voxels = np.asarray(image.dataobj[first])  # scaled; only the first volume is read
    except Exception as error:  # see above: cut short, damaged compression
        raise UnreadableRecord(f"has voxels that cannot be read: {type(error).__name__}") from error
    turned = nib.orientations.apply_orientation(voxels, to_record).transpose(2, 1, 0)
    with np.errstate(over="ignore"):  # what does not fit is not finite, and refused
        turned = np.ascontiguousarray(turned, np.float32)
    if not np.isfinite(turned).all():
        raise UnreadableRecord("has voxels that are not finite")
    return Volume(turned, spacing, num)


def _check_shape(image: Any, series: Series) -> int:
    shape = image.shape
    if len(shape) < 3 or min(shape) < 1 or math.prod(shape[:3]) > MAX_VOXELS:
        raise UnreadableRecord(
            f"has the shape {shape}; accepted: at least three axes, of at most {MAX_VOXELS} voxels"
        )
    num = math.prod(shape[3:])
    if len(shape) > 4 and num > 1:
        raise UnreadableRecord(f"has vectors as voxels (shape {shape}); accepted: numbers")
    if num > 1 and series == "refuse":
        raise UnreadableRecord(f"is a series of {num} volumes; accepted: 1")
    if image.get_data_dtype().kind not in "iuf":
        raise UnreadableRecord(
            f"has voxels of type {image.get_data_dtype()}; accepted: integers and floats"
        )
    return num


def _orientation(nib: Any, image: Any) -> tuple[np.ndarray, tuple[float, float, float]]:
    """How to bring the file's axes to (left, posterior, superior), and the record's spacing."""
    header = image.header
    if int(header["sform_code"]) <= 0 and int(header["qform_code"]) <= 0:
        raise UnreadableRecord("states no orientation (sform_code and qform_code are 0)")
    affine = np.asarray(image.affine, np.float64)
    matrix = affine[:3, :3]
    lengths = np.sqrt((matrix**2).sum(axis=0))
    # Relative to its own scale, so that small voxels do not count as a fault.
    if (
        not np.isfinite(affine).all()
        or not lengths.all()
        or abs(np.linalg.det(matrix / lengths)) < 1e-6
    ):
        raise UnreadableRecord("has an affine without an inverse, so its axes are unknown")
    wanted = nib.orientations.axcodes2ornt(("L", "P", "S"))
    to_record = nib.orientations.ornt_transform(nib.orientations.io_orientation(affine), wanted)
    # ornt[i, 0] is the output axis of file axis i; the record's order is the reverse, (S, P, L).
    unit = int(header["xyzt_units"]) % 8
    if unit not in _MM_OF_UNIT:
        raise UnreadableRecord(f"has the unit of length {unit}; accepted: 0 to 3")
    mm = lengths * _MM_OF_UNIT[unit]
    by_body_axis = {int(axis): float(mm[i]) for i, (axis, _) in enumerate(to_record)}
    return to_record, (by_body_axis[2], by_body_axis[1], by_body_axis[0])
