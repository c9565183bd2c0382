"""Attention over packed rows: one function, `packed_attention`, and the masks it obeys.

A row holds several samples. Token i sees token j only where both carry the same segment number
(0 is padding and sees nothing that matters). With `within`, both must also carry the same modality
number: that is late fusion, or the first layers of intermediate fusion. For one row of two samples,
a (modalities x, t) and b (modality x):

    segment   a a a b b 0          plain mask        within-modality mask
    modality  x x t x x .     a x  1 1 1 . . .       1 1 . . . .
                              a x  1 1 1 . . .       1 1 . . . .
                              a t  1 1 1 . . .       . . 1 . . .
                              b x  . . . 1 1 .       . . . 1 1 .
                              b x  . . . 1 1 .       . . . 1 1 .
                              0 .  . . . . . 1       . . . . . 1

The places of an answer (`TokenGrid.order` above 0) see all of their sample up to themselves,
whatever the modality, and only later places see them: with two places after an image x

    order     0 1 2           x 0  1 . .
    modality  x t t           t 1  1 1 .
                              t 2  1 1 1
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

# Finite, so that a row of nothing but masked scores gives a uniform distribution and never NaN.
MASKED_SCORE = -1e30


def packed_mask(
    segment_ids: Int[Array, "B T"],
    modality_ids: Int[Array, "B T"] | None = None,
    order: Int[Array, "B T"] | None = None,
) -> Bool[Array, "B T T"]:
    """Which token may see which. With `modality_ids`, only its own modality of its own sample."""
    mask = segment_ids[:, :, None] == segment_ids[:, None, :]
    if modality_ids is not None:
        same = modality_ids[:, :, None] == modality_ids[:, None, :]
        if order is not None:
            same |= order[:, :, None] > 0
        mask &= same
    if order is not None:
        mask &= order[:, None, :] <= order[:, :, None]
    return mask


def packed_attention(
    q_BHTC: Float[Array, "B H T C"],
    k_BHTC: Float[Array, "B H T C"],
    v_BHTC: Float[Array, "B H T C"],
    mask_BTT: Bool[Array, "B T T"],
) -> Float[Array, "B H T C"]:
    """Softmax attention in the head-major layout, with scores and softmax in float32.

    The dense reference: it forms [T, T] scores. Rows are short (T <= 1,024), so on CPU this is
    the path in use.
    """
    scale = q_BHTC.shape[-1] ** -0.5
    scores = jnp.einsum(
        "bhtc,bhsc->bhts", q_BHTC * scale, k_BHTC, preferred_element_type=jnp.float32
    )
    scores = jnp.where(mask_BTT[:, None], scores, MASKED_SCORE)
    weights = jax.nn.softmax(scores, axis=-1).astype(v_BHTC.dtype)
    return jnp.einsum("bhts,bhsc->bhtc", weights, v_BHTC)
