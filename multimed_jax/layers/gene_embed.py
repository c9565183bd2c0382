"""Embedding of genes at a level of expression, without a vocabulary."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from multimed_jax.types import StreamBatch


class GeneEmbed(nnx.Module):
    """Hashed gene embedding, scaled and shifted by the expression bin.

    A gene is the sum of a row of each of two tables (Svenstrup et al. 2017, "Hash embeddings for
    efficient word representations"); rows are key % V1 and (key // V1) % V2, so two genes share
    both with a chance of about 1 / (V1 * V2), and a gene of any source fits without a vocabulary.
    The gate starts at the level of the bin: the mean token of a cell is then linear in its
    expression from the first step on.
    """

    def __init__(
        self,
        levels: Float[np.ndarray, "bins"],  # noqa: F821
        first_rows: int,
        second_rows: int,
        d_model: int,
        rngs: nnx.Rngs,
    ):
        """`levels`: where the gate of each bin starts; the rows have no common divisor."""
        self.first_rows, self.second_rows = first_rows, second_rows
        init = nnx.initializers.normal(2**-0.5)
        self.first = nnx.Param(init(rngs.params(), (self.first_rows, d_model), jnp.float32))
        self.second = nnx.Param(init(rngs.params(), (self.second_rows, d_model), jnp.float32))
        gate = np.repeat(levels[:, None], d_model, axis=1).astype(np.float32)
        self.gate = nnx.Param(jnp.asarray(gate))
        small = nnx.initializers.normal(0.1)
        self.bin = nnx.Param(small(rngs.params(), (len(levels), d_model), jnp.float32))

    def __call__(self, stream: StreamBatch) -> Float[Array, "P N D"]:
        """One token for each gene."""
        key, level = jnp.asarray(stream.parts)[..., 0], jnp.asarray(stream.parts)[..., 1]
        first = jnp.take(self.first[...], key % self.first_rows, axis=0)
        second = jnp.take(self.second[...], (key // self.first_rows) % self.second_rows, axis=0)
        gate = jnp.take(self.gate[...], level, axis=0)
        return (first + second) * gate + jnp.take(self.bin[...], level, axis=0)
