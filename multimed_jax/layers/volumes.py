"""Geometry of volumes: resampling, windows and crops, on the host (NumPy only).

A volume [depth, row, column] is resampled to `spacing_mm` where its own spacing is known on all
axes. Where it is not, its rows and columns are scaled by one factor until they fit into
`volume_size`, and its depth is cut down to that size where it is larger. What then exceeds
`volume_size` is read in windows of exactly that size, spread evenly from end to end:

    resampled axis of 10, size 4      0 1 2 3 4 5 6 7 8 9
    3 windows                         [- - -]
                                            [- - -]
                                                  [- - -]

so that every window has as many parts as the first one, whatever is in it. Training reads one crop
around a random voxel of the foreground; a single look (`decode` without a generator) is the centre.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Shaped

from multimed_jax.layers.decode_errors import DecodeError
from multimed_jax.layers.patches import check_geometry
from multimed_jax.layers.stream_kinds import check_kinds
from multimed_jax.layers.tubelets import num_tubelets
from multimed_jax.types import Record, UserError

SLICE, VOLUME = "slice", "volume"
# Distances between voxels that a scanner can have, with room on both sides; others are faults of a
# header, and would make volumes of any size.
SPACING_MM = (0.01, 100.0)
# Statistics of a volume are taken from at most about this many voxels, evenly spread.
SAMPLED_VOXELS = 400_000


@dataclasses.dataclass(frozen=True)
class VolumeOptions:
    """Geometry of slices and volumes; axes are (depth, row, column).

    Attributes:
        streams: "slice" (single slices), "volume" or both. A record of a kind that is switched off
            counts as missing.
        side: longer side of a resampled slice, in pixels.
        patch: side of a patch of a slice, in pixels.
        volume_size: most voxels of a window of a volume.
        tubelet: voxels of a part of a volume.
        spacing_mm: distance of voxels after resampling, where the volume's own is known.
        max_windows: windows of a volume that are read at evaluation; of more, an evenly spread
            choice.
        augment: jitter intensity and shift the input a little in training.
        flip: where `augment` is set, also mirror half of the inputs, left for right.
    """

    streams: tuple[str, ...] = (SLICE, VOLUME)
    side: int = 96
    patch: int = 12
    volume_size: tuple[int, ...] = (24, 72, 72)
    tubelet: tuple[int, ...] = (4, 12, 12)
    spacing_mm: tuple[float, ...] = (5.0, 4.0, 4.0)
    max_windows: int = 8
    augment: bool = False
    flip: bool = False

    def __post_init__(self):
        """Raises UserError for a geometry that leaves no part."""
        check_kinds(self.streams, (SLICE, VOLUME))
        check_geometry(self.side, self.patch)
        sizes = (self.volume_size, self.tubelet, self.spacing_mm)
        if any(len(size) != 3 for size in sizes) or not all(
            1 <= t <= n for t, n in zip(self.tubelet, self.volume_size, strict=True)
        ):
            raise UserError(
                f"an image modality has volume_size {self.volume_size}, tubelet {self.tubelet} and "
                f"spacing_mm {self.spacing_mm}; accepted: three numbers each, "
                "1 <= tubelet <= volume_size on every axis"
            )
        low, high = SPACING_MM
        if not all(low <= mm <= high for mm in self.spacing_mm) or self.max_windows < 1:
            raise UserError(
                f"an image modality has spacing_mm {self.spacing_mm} and max_windows "
                f"{self.max_windows}; accepted: {low} to {high} mm, at least 1 window"
            )

    @property
    def extent(self) -> float:
        """Most tubelets along an axis of a window."""
        return max(-(-n // t) for n, t in zip(self.volume_size, self.tubelet, strict=True))


@dataclasses.dataclass(frozen=True)
class VolumePlan:
    """How a volume of some stored shape is read.

    Attributes:
        shape: of the whole volume after resampling.
        extent: of every window.
        grid: windows along each axis.
        num_windows: that are read.
    """

    shape: tuple[int, ...]
    extent: tuple[int, ...]
    grid: tuple[int, ...]
    num_windows: int

    def start(self, window: int) -> tuple[int, ...]:
        """First voxel of a window."""
        assert 0 <= window < self.num_windows
        total = math.prod(self.grid)
        index = window
        if self.num_windows < total:
            # The middle of equal stretches of the list of all windows.
            index = ((2 * window + 1) * total) // (2 * self.num_windows)
        place = np.unravel_index(index, self.grid)
        return tuple(
            (int(i) * (n - e)) // max(1, number - 1)
            for i, n, e, number in zip(place, self.shape, self.extent, self.grid, strict=True)
        )

    def num_parts(self, tubelet: Sequence[int]) -> int:
        """Tubelets of every window."""
        return num_tubelets(self.extent, tubelet)

    def centre(self) -> tuple[int, ...]:
        """First voxel of the crop around the middle of the volume."""
        return tuple((n - e) // 2 for n, e in zip(self.shape, self.extent, strict=True))


def read_voxels(
    record: Record, name: str, key: str
) -> tuple[Shaped[np.ndarray, "D H W"], Mapping[str, Any]] | None:
    """The volume of a record and its value; None where the record lacks it (0 voxels).

    Raises:
        DecodeError: an array that has not three axes or does not hold numbers.
    """
    value = record.get(name)
    if value is None or key not in value:
        return None
    voxels = np.asarray(value[key])
    if not voxels.size:
        return None
    if voxels.ndim != 3 or voxels.dtype.kind not in "iuf":
        raise DecodeError(
            f"a volume has shape {voxels.shape} and type {voxels.dtype}; accepted: numbers "
            "[depth, row, column]"
        )
    return voxels, value


def spacing_of(value: Mapping[str, Any]) -> tuple[float, ...] | None:
    """Spacing in mm by axis, or None where one of them is unknown (0).

    Raises:
        DecodeError: not three numbers, or a distance outside `SPACING_MM` that is not 0.
    """
    spacing = tuple(np.asarray(value["spacing_mm"], np.float64).ravel().tolist())
    low, high = SPACING_MM
    if len(spacing) != 3 or not all(mm == 0 or low <= mm <= high for mm in spacing):
        raise DecodeError(
            f"a volume has a spacing of {spacing} mm; accepted: three distances of {low} to {high} "
            "mm, or 0 where unknown"
        )
    return spacing if all(spacing) else None


def plan_volume(
    shape: Sequence[int], spacing_mm: tuple[float, ...] | None, options: VolumeOptions
) -> VolumePlan:
    """How a volume is resampled and cut, from its stored shape and spacing."""
    size = options.volume_size
    if spacing_mm is not None:
        steps = zip(shape, spacing_mm, options.spacing_mm, strict=True)
        resampled = tuple(max(1, int(n * mm / to + 0.5)) for n, mm, to in steps)
    else:
        scale = min(size[1] / shape[1], size[2] / shape[2])
        across = [min(m, max(1, int(n * scale + 0.5))) for n, m in zip(shape, size, strict=True)]
        resampled = (min(shape[0], size[0]), *across[1:])
    extent = tuple(min(n, m) for n, m in zip(resampled, size, strict=True))
    grid = tuple(-(-n // e) for n, e in zip(resampled, extent, strict=True))
    return VolumePlan(resampled, extent, grid, min(math.prod(grid), options.max_windows))


def sampled(voxels: Shaped[np.ndarray, "D H W"]) -> tuple[np.ndarray, tuple[int, ...]]:
    """Evenly spread voxels for statistics, about `SAMPLED_VOXELS` at most, and the steps taken."""
    steps = [1, 1, 1]
    while voxels.size > SAMPLED_VOXELS * math.prod(steps):
        # The axis with most samples left is thinned first.
        axis = int(np.argmax([n / step for n, step in zip(voxels.shape, steps, strict=True)]))
        steps[axis] += 1
    return voxels[:: steps[0], :: steps[1], :: steps[2]], tuple(steps)


def random_start(
    plan: VolumePlan,
    voxels: Shaped[np.ndarray, "D H W"],
    foreground: Callable[[np.ndarray], Bool[np.ndarray, "..."]],
    rng: np.random.Generator,
) -> tuple[int, ...]:
    """First voxel of a training crop around a random voxel of the foreground.

    Args:
        plan: of the volume.
        voxels: as stored.
        foreground: stored values to whether they show the body.
        rng: chooses; nothing is drawn where the volume fits into one window.
    """
    if plan.shape == plan.extent:
        return (0, 0, 0)
    few, steps = sampled(voxels)
    inside = np.flatnonzero(foreground(few))
    pick = int(inside[rng.integers(len(inside))]) if len(inside) else int(rng.integers(few.size))
    place = np.unravel_index(pick, few.shape)
    jitter = rng.uniform(-0.25, 0.25, 3)
    start = []
    for axis in range(3):
        stored = (int(place[axis]) * steps[axis] + 0.5) / voxels.shape[axis]
        extent = plan.extent[axis]
        first = stored * plan.shape[axis] + (jitter[axis] - 0.5) * extent
        start.append(int(np.clip(round(first), 0, plan.shape[axis] - extent)))
    return tuple(start)
