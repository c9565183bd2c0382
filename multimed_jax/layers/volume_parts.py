"""Slices and volumes of numbers to parts, features and previews, whatever the numbers mean."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from flax import nnx
from jaxtyping import Bool, Float, Shaped

from multimed_jax.layers import patches
from multimed_jax.layers.augment import augment
from multimed_jax.layers.grid_resample import block_means, resample_crop
from multimed_jax.layers.patch_embed import PatchEmbed
from multimed_jax.layers.tubelets import cut_tubelets
from multimed_jax.layers.volumes import SLICE, VolumeOptions, VolumePlan, random_start
from multimed_jax.specs import StreamSpec
from multimed_jax.types import Parts, Preview

BLACK = -1.0
FEATURE_SIDE = 8
NUM_VOLUME_FEATURES = FEATURE_SIDE**3


@dataclasses.dataclass(frozen=True)
class Intensity:
    """What stored values mean.

    Attributes:
        prepare: stored values to float32, before any averaging.
        scale: prepared values to [-1, 1], with an axis of channels behind where there are several.
        foreground: prepared values to whether they show the body.
    """

    prepare: Callable[[np.ndarray], Float[np.ndarray, "..."]]
    scale: Callable[[np.ndarray], Float[np.ndarray, "..."]]
    foreground: Callable[[np.ndarray], Bool[np.ndarray, "..."]]


def make_streams(
    name: str, options: VolumeOptions, slice_channels: tuple[int, ...], channels: tuple[int, ...]
) -> tuple[StreamSpec, ...]:
    """The streams that are on: patches of slices with two axes, tubelets of volumes with three."""
    return tuple(
        StreamSpec(
            f"{name}.{SLICE}", name, (options.patch, options.patch, *slice_channels), 2, "float32"
        )
        if kind == SLICE
        else StreamSpec(f"{name}.{kind}", name, (*options.tubelet, *channels), 3, "float32")
        for kind in options.streams
    )


def make_tokenizer(
    stream: StreamSpec, d_model: int, options: VolumeOptions, rngs: nnx.Rngs
) -> PatchEmbed:
    """Patches or tubelets to tokens."""
    extent = options.side / options.patch if stream.num_axes == 2 else options.extent
    return PatchEmbed(stream.patch_shape, extent, d_model, rngs, stream.num_axes)


def prepare_slice(
    voxels: Shaped[np.ndarray, "1 H W"], options: VolumeOptions, intensity: Intensity
) -> Float[np.ndarray, "..."]:
    """A slice on [-1, 1], its longer side resampled to `options.side`."""
    _, height, width = voxels.shape
    size = patches.fitted_size(height, width, options.side)
    return intensity.scale(_resized(voxels, size, intensity))


def finish_slice(
    pixels: Float[np.ndarray, "..."], options: VolumeOptions, rng: np.random.Generator | None
) -> Parts:
    """Patches of a prepared slice."""
    if rng is not None and options.augment:
        pixels = augment(pixels, rng, flip=options.flip)
    return patches.whole_parts(*patches.patchify(pixels, options.patch, BLACK))


def decode_volume(
    voxels: Shaped[np.ndarray, "D H W"],
    plan: VolumePlan,
    options: VolumeOptions,
    intensity: Intensity,
    rng: np.random.Generator | None,
    window: int | None,
) -> Parts:
    """Tubelets of one window, of a random crop (`rng`), or of the centre (neither)."""
    if window is not None:
        start = plan.start(window)
    elif rng is not None:
        start = random_start(
            plan, voxels, lambda few: intensity.foreground(intensity.prepare(few)), rng
        )
    else:
        start = plan.centre()
    crop = resample_crop(voxels, plan.shape, start, plan.extent, intensity.prepare)
    pixels = intensity.scale(crop)
    if rng is not None and options.augment:
        pixels = augment(pixels, rng, 3, flip=options.flip)
    return patches.whole_parts(*cut_tubelets(pixels, options.tubelet, BLACK))


def slice_features(
    voxels: Shaped[np.ndarray, "1 H W"], intensity: Intensity
) -> Float[np.ndarray, "256"]:
    """16 x 16 means on [-1, 1], row by row."""
    side = patches.FEATURE_SIDE
    return intensity.scale(block_means(voxels, (1, side, side), intensity.prepare)).ravel()


def volume_features(
    voxels: Shaped[np.ndarray, "D H W"], intensity: Intensity
) -> Float[np.ndarray, "512"]:
    """8 x 8 x 8 means on [-1, 1], in reading order."""
    grid = (FEATURE_SIDE, FEATURE_SIDE, FEATURE_SIDE)
    return intensity.scale(block_means(voxels, grid, intensity.prepare)).ravel()


def middle_preview(voxels: Shaped[np.ndarray, "D H W"], intensity: Intensity) -> Preview:
    """The middle slice as grey uint8, its longer side at most 256; of channels the first."""
    height, width = voxels.shape[1:]
    size = patches.fitted_size(height, width, min(patches.PREVIEW_SIDE, max(height, width)))
    middle = len(voxels) // 2
    pixels = intensity.scale(_resized(voxels[middle : middle + 1], size, intensity))
    return Preview("image", patches.to_bytes(pixels if pixels.ndim == 2 else pixels[..., 0]))


def _resized(
    voxels: Shaped[np.ndarray, "1 H W"], size: tuple[int, int], intensity: Intensity
) -> Float[np.ndarray, "h w"]:
    shape = (1, *size)
    return resample_crop(voxels, shape, (0, 0, 0), shape, intensity.prepare)[0]
