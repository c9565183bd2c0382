"""Magnetic resonance imaging: slices (mri.slice, 2-D patches) and volumes (mri.volume, tubelets).

Intensities of MRI have no physical unit.

- A slice is JPEG or PNG bytes ("encoded"); grey values are taken as stored (8-bit scale, see
  `layers.images`), black at -1 and white at 1. It keeps its aspect; its longer side becomes `side`.
- A volume is float32 [depth, row, column] ("voxels") with its spacing in mm by axis (0 unknown);
  no voxels means that the record lacks it. It runs from -1 at its percentile 0.5 to 1 at 99.5 and
  is clipped there; a volume of one value is black. It is resampled and cut as in `layers.volumes`;
  coordinates are tubelets from the first voxel of the window.

Axes stay as stored: rows run down and columns right. A record holds one kind or the other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from multimed_jax.layers import patches, volume_parts
from multimed_jax.layers.decode_errors import DecodeError
from multimed_jax.layers.volume_parts import Intensity
from multimed_jax.layers.volumes import (
    SLICE,
    VOLUME,
    VolumeOptions,
    VolumePlan,
    plan_volume,
    read_voxels,
    sampled,
    spacing_of,
)
from multimed_jax.specs import ModalitySpec, Preparation, StreamSpec, Windows
from multimed_jax.types import Parts, Preview, Record

NAME = "mri"
# Black and white of a volume: vessels and spikes above, and dropouts below, move neither.
PERCENTILES = (0.5, 99.5)
# Far above any scanner's scale, and far under what float32 sums can hold.
MAX_ABS = 1e30
# What is brighter than this on the [-1, 1] scale counts as foreground: air is nearly black.
FOREGROUND = -0.8


@dataclasses.dataclass(frozen=True)
class MriOptions(VolumeOptions):
    """Geometry, see `VolumeOptions`. The default window holds a head."""

    spacing_mm: tuple[float, ...] = (6.0, 3.0, 3.0)


def intensity_of(voxels: Float[np.ndarray, "D H W"]) -> Intensity:
    """What the values of this volume mean.

    Raises:
        DecodeError: a voxel that is not finite.
    """
    smallest, largest = float(voxels.min()), float(voxels.max())  # NaN where a voxel is
    if not (-MAX_ABS <= smallest and largest <= MAX_ABS):
        raise DecodeError(
            f"a volume of shape {voxels.shape} has values from {smallest} to {largest}; accepted: "
            f"finite values up to {MAX_ABS:g} on both sides of 0"
        )
    few = sampled(voxels)[0]
    low, high = (float(p) for p in np.percentile(few, PERCENTILES))
    if not high > low:  # nearly all of it is background
        low, high = smallest, largest
    gain = 2.0 / (high - low) if high > low else 0.0

    def scale(values: np.ndarray) -> Float[np.ndarray, "..."]:
        above = np.clip(values, low, high, dtype=np.float32) - np.float32(low)
        return np.clip(above * np.float32(gain) - np.float32(1.0), -1.0, 1.0)

    return Intensity(
        prepare=lambda values: np.asarray(values, np.float32),
        scale=scale,
        foreground=lambda values: scale(values) > FOREGROUND,
    )


def make_streams(options: MriOptions) -> tuple[StreamSpec, ...]:
    """The streams that are on."""
    return volume_parts.make_streams(NAME, options, (), ())


def read_slice(record: Record, options: MriOptions) -> Record | None:
    """The encoded slice of a record; None where it has none or slices are off."""
    value = record.get(NAME)
    if SLICE not in options.streams or value is None or "encoded" not in value:
        return None
    return value if patches.encoded_bytes(value) else None


def read_volume(record: Record, options: MriOptions) -> tuple[np.ndarray, VolumePlan] | None:
    """The volume of a record and how it is cut; None where it has none or volumes are off.

    Raises:
        DecodeError: as `read_voxels` and `spacing_of`.
    """
    found = read_voxels(record, NAME, "voxels") if VOLUME in options.streams else None
    if found is None:
        return None
    voxels, value = found
    return voxels, plan_volume(voxels.shape, spacing_of(value), options)


def count(record: Record, options: MriOptions) -> dict[str, int]:
    """Patches of a slice or tubelets of a window of a volume, from their stated sizes."""
    image = read_slice(record, options)
    if image is not None:
        return {f"{NAME}.{SLICE}": patches.count_patches(image, options.side, options.patch)}
    found = read_volume(record, options)
    return {} if found is None else {f"{NAME}.{VOLUME}": found[1].num_parts(options.tubelet)}


def prepare(record: Record, options: MriOptions) -> dict[str, np.ndarray] | None:
    """The resampled slice; None for a volume, whose crop is drawn before it is resampled.

    Raises:
        DecodeError: bytes that are no complete JPEG or PNG of the stated size.
    """
    image = read_slice(record, options)
    return None if image is None else patches.prepare_image(image, options.side)


def finish(
    prepared: Mapping[str, np.ndarray], options: MriOptions, rng: np.random.Generator | None
) -> dict[str, Parts]:
    """The patches of a slice."""
    jitter = rng if options.augment else None
    parts = patches.finish_image(prepared, options.patch, jitter, flip=options.flip)
    return {f"{NAME}.{SLICE}": parts}


def decode(
    record: Record,
    options: MriOptions,
    rng: np.random.Generator | None,
    window: int | None = None,
) -> dict[str, Parts]:
    """Parts of the slice, or of one view of the volume; empty where the record lacks both.

    Raises:
        DecodeError: bytes that are no complete JPEG or PNG of the stated size; an array that has
            not three axes, a voxel that is not finite, a spacing that is no distance.
    """
    prepared = prepare(record, options)
    if prepared is not None:
        return finish(prepared, options, rng)
    found = read_volume(record, options)
    if found is None:
        return {}
    voxels, plan = found
    intensity = intensity_of(voxels)
    parts = volume_parts.decode_volume(voxels, plan, options, intensity, rng, window)
    return {f"{NAME}.{VOLUME}": parts}


def count_windows(record: Record, options: MriOptions) -> int:
    """Windows that are read at evaluation; 1 for a slice."""
    found = read_volume(record, options)
    return 1 if found is None else found[1].num_windows


def decode_window(record: Record, options: MriOptions, window: int) -> dict[str, Parts]:
    """The parts of one window. Raises DecodeError as `decode`."""
    return decode(record, options, None, window)


def features(record: Record, options: MriOptions) -> Float[np.ndarray, "F"]:
    """16 x 16 means of a slice; 8 x 8 x 8 means of a volume, by which kind the source keeps."""
    value = record.get(NAME)
    if value is None or "voxels" not in value:
        return patches.image_features(read_slice(record, options))
    found = read_volume(record, options)
    if found is None:
        return np.zeros(volume_parts.NUM_VOLUME_FEATURES, np.float32)
    return volume_parts.volume_features(found[0], intensity_of(found[0]))


def preview(record: Record, options: MriOptions) -> Preview:
    """The slice, or the volume's middle slice; one black pixel where the record has neither."""
    found = read_volume(record, options)
    if found is None:
        return patches.image_preview(read_slice(record, options))
    return volume_parts.middle_preview(found[0], intensity_of(found[0]))


SPEC = ModalitySpec(
    name=NAME,
    id=5,
    spec="multimed_jax.modalities.mri:SPEC",
    options=MriOptions(),
    make_streams=make_streams,
    count=count,
    decode=decode,
    make_tokenizer=volume_parts.make_tokenizer,
    features=features,
    preview=preview,
    windows=Windows(count_windows, decode_window),
    preparation=Preparation(prepare, finish),
)
