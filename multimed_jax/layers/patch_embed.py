"""Image patches to tokens, and the embedding of where a part lies."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float

from multimed_jax.types import StreamBatch


class CoordinateEmbedding(nnx.Module):
    """Sines and cosines of each coordinate, mapped to the model width.

    Rotary positions in the trunk are relative, and its states are averaged: without this term no
    token would know where in the image (or when in the trial) it lies.
    """

    num_waves = 6

    def __init__(self, num_axes: int, extent: float, d_model: int, rngs: nnx.Rngs):
        """`extent`: largest coordinate to expect; wavelengths run from 2 to 4 times it."""
        longest = max(4.0 * extent, 4.0)
        wavelength = np.geomspace(2.0, longest, self.num_waves)
        self.frequencies = tuple(float(f) for f in 2 * math.pi / wavelength)
        self.project = nnx.Linear(2 * num_axes * self.num_waves, d_model, rngs=rngs)

    def __call__(self, coords: Float[Array, "P N A"]) -> Float[Array, "P N D"]:
        """One vector for each part."""
        angles = coords[..., None] * jnp.array(self.frequencies).reshape(1, 1, 1, -1)
        waves = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
        return self.project(rearrange(waves, "p n a f -> p n (a f)"))


class PatchEmbed(nnx.Module):
    """A linear map of the pixels or voxels beside a two-layer one, plus where the patch lies.

    Serves patches of any shape: grey and RGB patches, tubelets, with channels or without.

    The linear map is that of ViT (Dosovitskiy et al. 2021, eq. 1). A plain linear stem learns
    slowly from few images (Xiao et al. 2021, "Early convolutions help transformers see better"),
    hence the non-linear branch. Every token depends on its own patch alone.
    """

    def __init__(
        self,
        patch_shape: tuple[int, ...],
        extent: float,
        d_model: int,
        rngs: nnx.Rngs,
        num_axes: int = 2,
    ):
        """`extent`: largest coordinate to expect; `num_axes`: of the coordinates."""
        pixels = math.prod(patch_shape)
        self.linear = nnx.Linear(pixels, d_model, rngs=rngs)
        self.hidden = nnx.Linear(pixels, 2 * d_model, rngs=rngs)
        self.out = nnx.Linear(2 * d_model, d_model, rngs=rngs)
        self.place = CoordinateEmbedding(num_axes, extent, d_model, rngs)

    def __call__(self, stream: StreamBatch) -> Float[Array, "P N D"]:
        """One token for each patch."""
        packs, slots = stream.parts.shape[:2]
        flat = jnp.reshape(stream.parts, (packs, slots, -1))
        tokens = self.linear(flat) + self.out(jax.nn.gelu(self.hidden(flat)))
        return tokens + self.place(stream.coords)
