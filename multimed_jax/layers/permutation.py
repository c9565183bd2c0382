"""Parts <-> tokens: one bijection, whose gradient is a gather as well.

Parts are numbered over the concatenated streams, tokens over the concatenated grids. No scatter
runs in either pass: `permute` moves values along one index and gradients along its inverse.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from multimed_jax.types import TokenGrid


def permutations(
    grids: tuple[TokenGrid, ...], sizes: list[int]
) -> tuple[Int[Array, "P L"], Int[Array, "P N"]]:
    """For each token the part that it shows, and for each part its token; out of range if none."""
    num_parts = sum(sizes)
    starts = jnp.array([0] + [sum(sizes[:i]) for i in range(len(sizes))])
    part = [
        jnp.where(g.stream_ids > 0, starts[g.stream_ids] + g.stream_index, num_parts).reshape(
            g.stream_ids.shape[0], -1
        )
        for g in grids
    ]
    to_token = jnp.concatenate(part, axis=1)
    num_tokens = to_token.shape[1]

    def invert(index):
        return jnp.full((num_parts,), num_tokens).at[index].set(jnp.arange(num_tokens), mode="drop")

    return to_token, jax.vmap(invert)(to_token)


@jax.custom_vjp
def permute(
    x: Float[Array, "P N D"], index: Int[Array, "P L"], inverse: Int[Array, "P N"]
) -> Float[Array, "P L D"]:
    """x[p, index[p, l]], 0 where the index is out of range. `inverse` undoes `index`."""
    return jax.vmap(lambda v, i: v.at[i].get(mode="fill", fill_value=0))(x, index)


def _permute_forward(x, index, inverse):
    return permute(x, index, inverse), (index, inverse)


def _permute_backward(residuals, gradient):
    index, inverse = residuals
    return permute(gradient, inverse, index), None, None


permute.defvjp(_permute_forward, _permute_backward)
