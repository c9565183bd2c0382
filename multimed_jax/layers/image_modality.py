"""What the modalities of grey 2-D images share: one stream of patches with a row and a column."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from flax import nnx
from jaxtyping import Float

from multimed_jax.layers import patches
from multimed_jax.layers.patch_embed import PatchEmbed
from multimed_jax.specs import ModalitySpec, Preparation, StreamSpec
from multimed_jax.types import Parts, Preview, Record


@dataclasses.dataclass(frozen=True)
class ImageOptions:
    """Geometry.

    Attributes:
        side: longer side of the resampled image, in pixels.
        patch: side of a patch, in pixels.
        augment: jitter intensity and shift the image a little in training.
        flip: where `augment` is set, also mirror half of the images, left for right.
    """

    side: int = 96
    patch: int = 12
    augment: bool = False
    flip: bool = False

    def __post_init__(self):
        """Raises UserError unless 1 <= patch <= side."""
        patches.check_geometry(self.side, self.patch)


def make_image_modality(name: str, number: int, stream: str, spec: str) -> ModalitySpec:
    """The spec of a modality whose records hold {name: {"encoded", "height", "width"}}.

    Decoding gives patches with black at -1 and white at 1, rows down and columns right as stored,
    and raises DecodeError for bytes that are no complete JPEG or PNG of the stated size.

    Args:
        name: record key.
        number: stable id of the modality.
        stream: name of its one stream.
        spec: where the module keeps the result, `module:SPEC`.
    """

    def make_streams(options: ImageOptions) -> tuple[StreamSpec, ...]:
        return (StreamSpec(stream, name, (options.patch, options.patch), 2, "float32"),)

    def count(record: Record, options: ImageOptions) -> dict[str, int]:
        number = patches.count_patches(record.get(name), options.side, options.patch)
        return {stream: number} if number else {}

    def prepare(record: Record, options: ImageOptions) -> dict[str, np.ndarray] | None:
        image = record.get(name)
        if image is None or not patches.encoded_bytes(image):
            return None
        return patches.prepare_image(image, options.side)

    def finish(
        prepared: Mapping[str, np.ndarray],
        options: ImageOptions,
        rng: np.random.Generator | None,
    ) -> dict[str, Parts]:
        jitter = rng if options.augment else None
        return {stream: patches.finish_image(prepared, options.patch, jitter, flip=options.flip)}

    def decode(
        record: Record, options: ImageOptions, rng: np.random.Generator | None
    ) -> dict[str, Parts]:
        prepared = prepare(record, options)
        return {} if prepared is None else finish(prepared, options, rng)

    def make_tokenizer(
        spec: StreamSpec, d_model: int, options: ImageOptions, rngs: nnx.Rngs
    ) -> PatchEmbed:
        return PatchEmbed(spec.patch_shape, options.side / options.patch, d_model, rngs)

    def features(record: Record, options: ImageOptions) -> Float[np.ndarray, "256"]:
        return patches.image_features(record.get(name))

    def preview(record: Record, options: ImageOptions) -> Preview:
        return patches.image_preview(record.get(name))

    return ModalitySpec(
        name=name,
        id=number,
        spec=spec,
        options=ImageOptions(),
        make_streams=make_streams,
        count=count,
        decode=decode,
        make_tokenizer=make_tokenizer,
        features=features,
        preview=preview,
        preparation=Preparation(prepare, finish),
    )
