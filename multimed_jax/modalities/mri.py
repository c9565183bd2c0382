"""Magnetic resonance imaging (mri.slice): a grey slice as 2-D patches.

Input: JPEG or PNG bytes of one slice; intensities of MRI have no physical unit, so grey values are
taken as stored (8-bit scale, see `layers.images`). Output: patches with black at -1 and white at 1;
rows run down and columns right as stored. Volumes are a stream of their own.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from flax import nnx
from jaxtyping import Float

from multimed_jax.layers import patches
from multimed_jax.layers.patch_embed import PatchEmbed
from multimed_jax.types import ModalitySpec, Parts, Preview, Record, StreamSpec

NAME = "mri"
STREAM = "mri.slice"


@dataclasses.dataclass(frozen=True)
class MriOptions:
    """Geometry.

    Attributes:
        side: longer side of the resampled image, in pixels.
        patch: side of a patch, in pixels.
        augment: jitter intensity and shift the image a little in training.
    """

    side: int = 96
    patch: int = 12
    augment: bool = False

    def __post_init__(self):
        """Raises UserError unless 1 <= patch <= side."""
        patches.check_geometry(NAME, self.side, self.patch)


def make_streams(options: MriOptions) -> tuple[StreamSpec, ...]:
    """One stream, two axes: row and column in patches."""
    return (StreamSpec(STREAM, NAME, (options.patch, options.patch), 2, "float32"),)


def count(record: Record, options: MriOptions) -> dict[str, int]:
    """Patches of the image, from its stated height and width."""
    number = patches.count_patches(record.get(NAME), options.side, options.patch)
    return {STREAM: number} if number else {}


def decode(
    record: Record, options: MriOptions, rng: np.random.Generator | None
) -> dict[str, Parts]:
    """Patches scaled to [-1, 1]; empty where the record lacks the image.

    Raises:
        DecodeError: bytes that are no complete JPEG or PNG of the stated size.
    """
    image = record.get(NAME)
    if image is None or not patches.encoded_bytes(image):
        return {}
    jitter = rng if options.augment else None
    return {STREAM: patches.decode_patches(image, options.side, options.patch, jitter)}


def make_tokenizer(
    stream: StreamSpec, d_model: int, options: MriOptions, rngs: nnx.Rngs
) -> PatchEmbed:
    """Patches to tokens."""
    return PatchEmbed(stream.patch_shape, options.side / options.patch, d_model, rngs)


def features(record: Record, options: MriOptions) -> Float[np.ndarray, "256"]:
    """16 x 16 mean grey values on [-1, 1]; zeros where the record lacks the image."""
    return patches.image_features(record.get(NAME))


def preview(record: Record, options: MriOptions) -> Preview:
    """The slice itself."""
    return patches.image_preview(record.get(NAME))


SPEC = ModalitySpec(
    name=NAME,
    id=5,
    spec="multimed_jax.modalities.mri:SPEC",
    options=MriOptions(),
    make_streams=make_streams,
    count=count,
    decode=decode,
    make_tokenizer=make_tokenizer,
    features=features,
    preview=preview,
)
