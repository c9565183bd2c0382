"""Tiles of a bag to tokens: one token for each tile."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float

from multimed_jax.types import StreamBatch

_FIRST = 4  # pixels a side that the first convolution sees
_SECOND = 2  # of its outputs a side that the second one sees
_FEATURES = 32


class TileStem(nnx.Module):
    """Two convolutions without overlap, then mean and maximum over the tile.

    What a tile holds counts, and not where in the tile it lies. The stem knows nothing of the
    place of the tile in the bag either: a bag is a set (Ilse et al. 2018, "Attention-based deep
    multiple instance learning", section 2.1).
    """

    def __init__(self, side: int, channels: int, d_model: int, rngs: nnx.Rngs):
        """`side` of a tile in pixels; what is left over a multiple of 8 at its end is not seen."""
        self.cells = side // (_FIRST * _SECOND)
        self.first = nnx.Linear(_FIRST**2 * channels, _FEATURES, rngs=rngs)
        self.second = nnx.Linear(_SECOND**2 * _FEATURES, 4 * _FEATURES, rngs=rngs)
        self.out = nnx.Linear(8 * _FEATURES, d_model, rngs=rngs)

    def __call__(self, stream: StreamBatch) -> Float[Array, "P N D"]:
        """One token for each tile."""
        used = self.cells * _FIRST * _SECOND
        tiles = jnp.asarray(stream.parts)[:, :, :used, :used]
        blocks = rearrange(tiles, "p n (a i) (b j) c -> p n a b (i j c)", i=_FIRST, j=_FIRST)
        x = jax.nn.gelu(self.first(blocks))
        x = rearrange(x, "p n (a i) (b j) c -> p n a b (i j c)", i=_SECOND, j=_SECOND)
        x = jax.nn.gelu(self.second(x))
        pooled = jnp.concatenate([x.mean(axis=(2, 3)), x.max(axis=(2, 3))], axis=-1)
        return self.out(pooled)
