"""Volumes as 3-D patches (tubelets), on the host (NumPy only).

A volume of 2 x 6 x 6 voxels and tubelets of 2 x 3 x 3 make 1 x 2 x 2 parts, in reading order:

    part 0 | part 1        coords of a part: (depth, row, column) in tubelets, from the
    part 2 | part 3        window's first voxel; what a volume lacks to whole tubelets is padding
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Shaped


def num_tubelets(extent: Sequence[int], tubelet: Sequence[int]) -> int:
    """Tubelets that cover a volume."""
    return math.prod(-(-length // side) for length, side in zip(extent, tubelet, strict=True))


def cut_tubelets(
    voxels: Shaped[np.ndarray, "D H W *channels"], tubelet: Sequence[int], fill: float
) -> tuple[Shaped[np.ndarray, "n d h w *channels"], Float[np.ndarray, "n 3"]]:
    """Tubelets in reading order, and their (depth, row, column)."""
    space, channels = voxels.shape[:3], voxels.shape[3:]
    grid = tuple(-(-length // side) for length, side in zip(space, tubelet, strict=True))
    whole = tuple(number * side for number, side in zip(grid, tubelet, strict=True))
    if whole != space:
        padded = np.full((*whole, *channels), fill, voxels.dtype)
        padded[: space[0], : space[1], : space[2]] = voxels
        voxels = padded
    (a, b, c), (d, h, w) = grid, tubelet
    blocks = voxels.reshape(a, d, b, h, c, w, *channels)
    blocks = np.moveaxis(blocks, (0, 2, 4), (0, 1, 2))
    parts = np.ascontiguousarray(blocks).reshape(a * b * c, d, h, w, *channels)
    coords = np.stack(np.meshgrid(*map(np.arange, grid), indexing="ij"), axis=-1)
    return parts, coords.reshape(-1, 3).astype(np.float32)
