"""RMS norm that keeps its input and one number a row for the backward pass."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

EPSILON = 1e-6


class RMSNorm(nnx.Module):
    """x / rms(x) * scale, over the last axis (Zhang and Sennrich, arXiv 1910.07467).

    As `nnx.RMSNorm`; that one's gradient keeps four arrays of the size of x.
    """

    def __init__(self, width: int, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.dtype = dtype
        self.scale = nnx.Param(nnx.initializers.ones(rngs.params(), (width,), jnp.float32))

    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        """The norm in `dtype`; squares are summed in float32."""
        flat = x.astype(self.dtype).reshape(-1, x.shape[-1])
        return _norm(flat, self.scale[...]).reshape(x.shape)


@jax.custom_vjp
def _norm(x, scale):
    return _forward(x, scale)[0]


def _forward(x, scale):
    wide = x.astype(jnp.float32)
    factor = jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1) + EPSILON)
    return (wide * (factor[:, None] * scale)).astype(x.dtype), (x, scale, factor)


def _backward(saved, g):
    # Sums as products with a vector: a sum of products would have its factors spread to [N, D].
    x, scale, factor = saved
    wide, g = x.astype(jnp.float32), g.astype(jnp.float32)
    product = wide * g
    along = factor**3 * (product @ scale) / x.shape[-1]
    dx = factor[:, None] * g * scale - along[:, None] * wide
    return dx.astype(x.dtype), factor @ product


_norm.defvjp(_forward, _backward)
