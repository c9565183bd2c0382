"""Resampling of volumes and parts of them, on the host (Pillow and NumPy, one thread).

Linear interpolation that averages where it shrinks: a triangle as wide as two output steps. Ends of
the axes coincide (not the centres of their last samples), and nothing outside of the volume counts.
Rows and columns go through Pillow, slice by slice; matrix products would be as fast on one thread,
but take many times as long where several loaders share the cores.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Shaped
from PIL import Image

Prepare = Callable[[np.ndarray], Float[np.ndarray, "..."]]


@functools.lru_cache(maxsize=256)
def triangle_weights(
    num_in: int, num_out: int, start: int, stop: int
) -> tuple[int, Float[np.ndarray, "rows columns"]]:
    """Weights of the samples of an axis in output samples `start` to `stop` of `num_out`.

    Returns:
        First input sample that is needed, and the weights of it and those behind it by output
        sample; rows sum to 1.
    """
    step = num_in / num_out
    reach = max(step, 1.0)
    centre = (np.arange(start, stop) + 0.5) * step
    first = max(0, int(np.floor(centre[0] - reach)))
    last = min(num_in, int(np.ceil(centre[-1] + reach)) + 1)
    offset = np.arange(first, last) + 0.5 - centre[:, None]
    weights = np.maximum(0.0, 1.0 - np.abs(offset) / reach)
    return first, _normalised(weights)


@functools.lru_cache(maxsize=64)
def box_weights(num_in: int, num_out: int) -> Float[np.ndarray, "num_out num_in"]:
    """Means over equal intervals of the axis; shares of samples count where they are cut."""
    edges = np.arange(num_out + 1) * (num_in / num_out)
    sample = np.arange(num_in)
    overlap = np.minimum(edges[1:, None], sample + 1) - np.maximum(edges[:-1, None], sample)
    return _normalised(np.maximum(overlap, 0.0))


def resample_crop(
    voxels: Shaped[np.ndarray, "D H W"],
    shape: Sequence[int],
    start: Sequence[int],
    extent: Sequence[int],
    prepare: Prepare,
) -> Float[np.ndarray, "d h w"]:
    """A crop of the volume as it would be at another shape; the rest is never computed.

    Args:
        voxels: the volume as stored.
        shape: of the whole volume after resampling.
        start: of the crop, in resampled voxels.
        extent: of the crop.
        prepare: stored values to float32, applied before the filter.
    """
    first, weights = triangle_weights(len(voxels), shape[0], start[0], start[0] + extent[0])
    box = []
    for axis in (2, 1):
        step = voxels.shape[axis] / shape[axis]
        end = min((start[axis] + extent[axis]) * step, voxels.shape[axis])
        box.append((start[axis] * step, end))
    (left, right), (top, bottom) = box
    slices = [
        _resize(prepare(voxels[first + index]), extent[1:], (left, top, right, bottom))
        for index in range(weights.shape[1])
    ]
    return _mixed(weights, slices)


def block_means(
    voxels: Shaped[np.ndarray, "D H W"], grid: tuple[int, int, int], prepare: Prepare
) -> Float[np.ndarray, "d h w"]:
    """Means over a grid of equal blocks that covers the volume.

    A row or column that two blocks share counts in one of them.
    """
    slices = [
        _resize(prepare(voxel_slice), grid[1:], None, Image.Resampling.BOX)
        for voxel_slice in voxels
    ]
    return _mixed(box_weights(len(voxels), grid[0]), slices)


def _resize(
    pixels: Float[np.ndarray, "H W"],
    size: Sequence[int],
    box: tuple[float, float, float, float] | None,
    resampling: Image.Resampling = Image.Resampling.BILINEAR,
) -> Float[np.ndarray, "h w"]:
    height, width = pixels.shape
    whole = box is None or box == (0, 0, width, height)
    if whole and (height, width) == tuple(size):
        return pixels
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(image.resize((size[1], size[0]), resampling, box=box))


def _mixed(
    weights: Float[np.ndarray, "rows D"], slices: Sequence[Float[np.ndarray, "h w"]]
) -> Float[np.ndarray, "rows h w"]:
    out = np.zeros((len(weights), *slices[0].shape), np.float32)
    for row, weight in zip(out, weights, strict=True):
        for index in np.flatnonzero(weight).tolist():
            row += weight[index] * slices[index]
    return out


def _normalised(weights: np.ndarray) -> Float[np.ndarray, "rows columns"]:
    weights = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    weights.flags.writeable = False  # it is cached
    return weights
