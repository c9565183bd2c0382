"""Computed tomography: slices (ct.slice, 2-D patches) and volumes (ct.volume, 3-D tubelets).

Input: Hounsfield units, int16 [depth, row, column] as a builder took them from the scanner's
rescaling, spacing in mm by axis (0 unknown). Depth 1 is a slice, more is a volume; no voxels means
that the record lacks the modality. Axes stay as stored.

Output: each window of `options.windows_hu` (centre, width in HU) is a channel that runs from -1 at
and under its lower end to 1 at and above its upper end; one window has no axis of channels. Values
under air, such as the -1024, -2048 or -3024 that scanners write outside of the reconstructed disc,
count as air before anything is averaged.

- A slice keeps its aspect; its longer side becomes `side`.
- A volume is resampled and cut as in `layers.volumes`; coordinates are tubelets from the first
  voxel of the window, so that they are distances in the body where the spacing is known.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Shaped

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
    spacing_of,
)
from multimed_jax.specs import ModalitySpec, Preparation, StreamSpec, Windows
from multimed_jax.types import Parts, Preview, Record, UserError

NAME = "ct"
PIXELS = "pixels"  # of a prepared slice
# Air by definition of the Hounsfield scale (water is 0), and the end of the 12-bit scale that
# starts at -1024.
AIR_HU = -1000.0
MAX_HU = 3071.0
# Over this everything is body but lungs and fat, which surround it.
BODY_HU = -300.0
# The simple baselines see one window from air to dense bone.
FEATURE_WINDOWS_HU = ((0.0, 2000.0),)


@dataclasses.dataclass(frozen=True)
class CtOptions(VolumeOptions):
    """Geometry, see `VolumeOptions`, and intensities.

    Attributes:
        windows_hu: centre and width of each channel. The default pair are a soft-tissue and a lung
            window as radiologists read chests. Source: Radiopaedia, "Windowing (CT)", typical
            values of the abdomen's soft tissues (W 400, L 50) and the lungs (W 1500, L -600).
    """

    windows_hu: tuple[tuple[float, ...], ...] = ((50.0, 400.0), (-600.0, 1500.0))

    def __post_init__(self):
        """Raises UserError for a geometry that leaves no part or a window without a width."""
        super().__post_init__()
        if not self.windows_hu or any(len(w) != 2 or not w[1] > 0 for w in self.windows_hu):
            raise UserError(
                f"modality {NAME!r} has windows_hu {self.windows_hu}; accepted: at least one "
                "(centre, width) with a width above 0"
            )


def prepare(hu: Shaped[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Hounsfield units as float32, padding values and less than air as air."""
    return np.clip(hu, AIR_HU, MAX_HU, dtype=np.float32)


def to_windows(
    hu: Float[np.ndarray, "..."], windows_hu: tuple[tuple[float, ...], ...]
) -> Float[np.ndarray, "..."]:
    """Each window on [-1, 1]; several are channels on a last axis."""
    scaled = [
        np.clip((hu - np.float32(centre)) * np.float32(2.0 / width), -1.0, 1.0)
        for centre, width in windows_hu
    ]
    return scaled[0] if len(scaled) == 1 else np.stack(scaled, axis=-1)


def intensity_of(windows_hu: tuple[tuple[float, ...], ...]) -> Intensity:
    """What Hounsfield units mean under these windows."""
    scale = functools.partial(to_windows, windows_hu=windows_hu)
    return Intensity(prepare, scale, lambda hu: hu > BODY_HU)


def make_streams(options: CtOptions) -> tuple[StreamSpec, ...]:
    """The streams that are on, with a channel for each window where there are several."""
    number = len(options.windows_hu)
    channels = () if number == 1 else (number,)
    return volume_parts.make_streams(NAME, options, channels, channels)


def read(record: Record, options: CtOptions) -> tuple[np.ndarray, VolumePlan | None] | None:
    """The voxels, and how they are cut if they are a volume; None where the record lacks them.

    Raises:
        DecodeError: as `read_voxels` and `spacing_of`.
    """
    found = read_voxels(record, NAME, "hu")
    if found is None:
        return None
    voxels, value = found
    kind = SLICE if len(voxels) == 1 else VOLUME
    if kind not in options.streams:
        return None
    if kind == SLICE:
        return voxels, None
    return voxels, plan_volume(voxels.shape, spacing_of(value), options)


def count(record: Record, options: CtOptions) -> dict[str, int]:
    """Patches of a slice or tubelets of a window of a volume, from shape and spacing."""
    found = read(record, options)
    if found is None:
        return {}
    voxels, plan = found
    if plan is None:
        _, height, width = voxels.shape
        number = patches.num_patches(height, width, options.side, options.patch)
        return {f"{NAME}.{SLICE}": number}
    return {f"{NAME}.{VOLUME}": plan.num_parts(options.tubelet)}


def decode(
    record: Record,
    options: CtOptions,
    rng: np.random.Generator | None,
    window: int | None = None,
) -> dict[str, Parts]:
    """Parts of the slice, or of one view of the volume; empty where the record lacks both.

    Raises:
        DecodeError: an array that has not three axes, is not of finite numbers, or whose spacing
            is no distance.
    """
    found = read(record, options)
    if found is None:
        return {}
    voxels, plan = found
    _check_finite(voxels)
    intensity = intensity_of(options.windows_hu)
    if plan is None:
        pixels = volume_parts.prepare_slice(voxels, options, intensity)
        return finish_slice({PIXELS: pixels}, options, rng)
    parts = volume_parts.decode_volume(voxels, plan, options, intensity, rng, window)
    return {f"{NAME}.{VOLUME}": parts}


def prepare_slice(record: Record, options: CtOptions) -> dict[str, np.ndarray] | None:
    """The resampled slice; None for a volume, whose crop is drawn before it is resampled.

    Raises:
        DecodeError: as `decode`.
    """
    found = read(record, options)
    if found is None or found[1] is not None:
        return None
    _check_finite(found[0])
    intensity = intensity_of(options.windows_hu)
    return {PIXELS: volume_parts.prepare_slice(found[0], options, intensity)}


def finish_slice(
    prepared: Mapping[str, np.ndarray], options: CtOptions, rng: np.random.Generator | None
) -> dict[str, Parts]:
    """The patches of a slice."""
    return {f"{NAME}.{SLICE}": volume_parts.finish_slice(prepared[PIXELS], options, rng)}


def count_windows(record: Record, options: CtOptions) -> int:
    """Windows that are read at evaluation; 1 for a slice."""
    found = read(record, options)
    return 1 if found is None or found[1] is None else found[1].num_windows


def decode_window(record: Record, options: CtOptions, window: int) -> dict[str, Parts]:
    """The parts of one window. Raises DecodeError as `decode`."""
    return decode(record, options, None, window)


def features(record: Record, options: CtOptions) -> Float[np.ndarray, "F"]:
    """One block for each stream: 16 x 16 means of a slice, 8 x 8 x 8 means of a volume.

    From -1 (air) to 1 (1000 HU); the block of the stream that the record is not in is 0.
    """
    sizes = {
        SLICE: patches.NUM_GREY_FEATURES,
        VOLUME: volume_parts.NUM_VOLUME_FEATURES,
    }
    blocks = {kind: np.zeros(sizes[kind], np.float32) for kind in options.streams}
    found = read(record, options)
    if found is not None:
        voxels, plan = found
        _check_finite(voxels)
        intensity = intensity_of(FEATURE_WINDOWS_HU)
        if plan is None:
            blocks[SLICE] = volume_parts.slice_features(voxels, intensity)
        else:
            blocks[VOLUME] = volume_parts.volume_features(voxels, intensity)
    return np.concatenate(list(blocks.values()))


def preview(record: Record, options: CtOptions) -> Preview:
    """The middle slice in the first window; one black pixel where the record has none."""
    found = read(record, options)
    if found is None:
        return patches.image_preview(None)
    return volume_parts.middle_preview(found[0], intensity_of(options.windows_hu[:1]))


def _check_finite(voxels: np.ndarray) -> None:
    if voxels.dtype.kind == "f" and not np.isfinite(voxels).all():
        raise DecodeError(
            f"a scan of shape {voxels.shape} has a voxel that is not finite; accepted: Hounsfield "
            "units"
        )


SPEC = ModalitySpec(
    name=NAME,
    id=4,
    spec="multimed_jax.modalities.ct:SPEC",
    options=CtOptions(),
    make_streams=make_streams,
    count=count,
    decode=decode,
    make_tokenizer=volume_parts.make_tokenizer,
    features=features,
    preview=preview,
    windows=Windows(count_windows, decode_window),
    preparation=Preparation(prepare_slice, finish_slice),
)
