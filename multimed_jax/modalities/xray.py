"""Projection radiography (xray.view): a grey view as 2-D patches.

Input: JPEG or PNG bytes of one view, 8 or 16 bits, bright bone (a builder inverts MONOCHROME1).
Output: patches with black at -1 and white at 1; rows run down and columns right as stored. Two
views of one patient are two items.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from flax import nnx
from jaxtyping import Float

from multimed_jax.layers import patches
from multimed_jax.layers.patch_embed import PatchEmbed
from multimed_jax.types import ModalitySpec, Parts, Preview, Record, StreamSpec

NAME = "xray"
STREAM = "xray.view"


@dataclasses.dataclass(frozen=True)
class XrayOptions:
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


def make_streams(options: XrayOptions) -> tuple[StreamSpec, ...]:
    """One stream, two axes: row and column in patches."""
    return (StreamSpec(STREAM, NAME, (options.patch, options.patch), 2, "float32"),)


def count(record: Record, options: XrayOptions) -> dict[str, int]:
    """Patches of the image, from its stated height and width."""
    number = patches.count_patches(record.get(NAME), options.side, options.patch)
    return {STREAM: number} if number else {}


def decode(
    record: Record, options: XrayOptions, rng: np.random.Generator | None
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
    stream: StreamSpec, d_model: int, options: XrayOptions, rngs: nnx.Rngs
) -> PatchEmbed:
    """Patches to tokens."""
    return PatchEmbed(stream.patch_shape, options.side / options.patch, d_model, rngs)


def features(record: Record, options: XrayOptions) -> Float[np.ndarray, "256"]:
    """16 x 16 mean grey values on [-1, 1]; zeros where the record lacks the image."""
    return patches.image_features(record.get(NAME))


def preview(record: Record, options: XrayOptions) -> Preview:
    """The view itself."""
    return patches.image_preview(record.get(NAME))


SPEC = ModalitySpec(
    name=NAME,
    id=3,
    spec="multimed_jax.modalities.xray:SPEC",
    options=XrayOptions(),
    make_streams=make_streams,
    count=count,
    decode=decode,
    make_tokenizer=make_tokenizer,
    features=features,
    preview=preview,
)
