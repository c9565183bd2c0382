"""Optical coherence tomography and retinal photographs (oct.scan, oct.photo): 2-D patches.

Input: JPEG or PNG bytes of one image. A file of one grey channel is a B-scan and makes grey patches
[patch, patch]; a file with colour channels is a photograph and makes RGB patches [patch, patch, 3].
Output: black at -1 and white at 1; rows run down and columns right as stored.

Which of the two a file is follows from its header alone (components of a JPEG, colour type or
palette of a PNG), so that sizes are known without decoding. A grey scan that was stored as RGB thus
counts as a photograph with three equal channels: a source that mixes both is mended in its builder,
or by `streams=("scan",)`, which reads every file as grey (BT.601 luma). `streams=("photo",)` reads
every file as RGB. No image is left out by switching a stream off.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import nnx
from jaxtyping import Float

from multimed_jax.layers import patches
from multimed_jax.layers.images import is_colour
from multimed_jax.layers.patch_embed import PatchEmbed
from multimed_jax.layers.stream_kinds import check_kinds
from multimed_jax.specs import ModalitySpec, Preparation, StreamSpec
from multimed_jax.types import Parts, Preview, Record

NAME = "oct"
SCAN, PHOTO = "scan", "photo"


@dataclasses.dataclass(frozen=True)
class OctOptions:
    """Geometry, the same for scans and photographs.

    Attributes:
        side: longer side of the resampled image, in pixels.
        patch: side of a patch, in pixels.
        streams: "scan" (grey), "photo" (RGB) or both; see the module's docstring.
        augment: jitter intensity and shift the image a little in training.
        flip: where `augment` is set, also mirror half of the images: the left eye's image is
            nearly the mirrored right eye's.
    """

    side: int = 96
    patch: int = 12
    streams: tuple[str, ...] = (SCAN, PHOTO)
    augment: bool = False
    flip: bool = True

    def __post_init__(self):
        """Raises UserError unless 1 <= patch <= side and the streams exist."""
        patches.check_geometry(self.side, self.patch)
        check_kinds(self.streams, (SCAN, PHOTO))


def make_streams(options: OctOptions) -> tuple[StreamSpec, ...]:
    """Grey patches, RGB patches or both, with a row and a column."""
    square = (options.patch, options.patch)
    shapes = {SCAN: square, PHOTO: (*square, 3)}
    return tuple(
        StreamSpec(f"{NAME}.{kind}", NAME, shapes[kind], 2, "float32") for kind in options.streams
    )


def kind_of(image: Mapping[str, Any], options: OctOptions) -> str:
    """The stream that the record's image goes to. Raises DecodeError for a damaged header."""
    if len(options.streams) == 1:
        return options.streams[0]
    return PHOTO if is_colour(patches.encoded_bytes(image)) else SCAN


def count(record: Record, options: OctOptions) -> dict[str, int]:
    """Patches of the image, from its header and its stated size."""
    image = record.get(NAME)
    number = patches.count_patches(image, options.side, options.patch)
    if image is None or not number:
        return {}
    return {f"{NAME}.{kind_of(image, options)}": number}


def prepare(record: Record, options: OctOptions) -> dict[str, np.ndarray] | None:
    """The resampled image; None where the record lacks it. Raises DecodeError (`read_grey`)."""
    image = record.get(NAME)
    if image is None or not patches.encoded_bytes(image):
        return None
    return patches.prepare_image(image, options.side, colour=kind_of(image, options) == PHOTO)


def finish(
    prepared: Mapping[str, np.ndarray], options: OctOptions, rng: np.random.Generator | None
) -> dict[str, Parts]:
    """Its patches."""
    kind = PHOTO if prepared[patches.LEVELS].ndim == 3 else SCAN
    jitter = rng if options.augment else None
    parts = patches.finish_image(prepared, options.patch, jitter, flip=options.flip)
    return {f"{NAME}.{kind}": parts}


def decode(
    record: Record, options: OctOptions, rng: np.random.Generator | None
) -> dict[str, Parts]:
    """Patches of the image; empty where the record lacks it. Raises DecodeError (`read_grey`)."""
    prepared = prepare(record, options)
    return {} if prepared is None else finish(prepared, options, rng)


def make_tokenizer(
    stream: StreamSpec, d_model: int, options: OctOptions, rngs: nnx.Rngs
) -> PatchEmbed:
    """Patches to tokens."""
    return PatchEmbed(stream.patch_shape, options.side / options.patch, d_model, rngs)


def features(record: Record, options: OctOptions) -> Float[np.ndarray, "F"]:
    """One block for each stream: 16 x 16 grey means, and 8 x 8 RGB means with colour histograms.

    The block of the stream that the image is not in is 0, so that all vectors have one length.
    """
    image = record.get(NAME)
    kind = kind_of(image, options) if image is not None and patches.encoded_bytes(image) else ""
    blocks = {SCAN: patches.image_features, PHOTO: patches.colour_features}
    return np.concatenate([blocks[k](image if k == kind else None) for k in options.streams])


def preview(record: Record, options: OctOptions) -> Preview:
    """The image, grey or RGB, its longer side at most 256."""
    image = record.get(NAME)
    if image is None or not patches.encoded_bytes(image):
        return patches.image_preview(None)
    return patches.image_preview(image, colour=kind_of(image, options) == PHOTO)


SPEC = ModalitySpec(
    name=NAME,
    id=2,
    spec="multimed_jax.modalities.oct:SPEC",
    options=OctOptions(),
    make_streams=make_streams,
    count=count,
    decode=decode,
    make_tokenizer=make_tokenizer,
    features=features,
    preview=preview,
    preparation=Preparation(prepare, finish),
)
