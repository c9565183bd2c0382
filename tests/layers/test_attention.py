"""Packed attention against one softmax per segment, written out in NumPy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

from multimed_jax.layers.attention import packed_attention, packed_mask

RNG = np.random.default_rng(0)
SEGMENT = np.array([[1, 1, 1, 2, 2, 0], [3, 3, 3, 3, 3, 3]])
MODALITY = np.array([[1, 1, 2, 1, 1, 0], [2, 1, 2, 1, 1, 1]])


@pytest.mark.parametrize("within", [False, True])
def test_values_and_gradients(within):
    q, k, v = RNG.normal(size=(3, 2, 2, 6, 4)).astype(np.float32)
    mask = packed_mask(jnp.asarray(SEGMENT), jnp.asarray(MODALITY) if within else None)
    out = np.asarray(packed_attention(jnp.asarray(q), jnp.asarray(k), jnp.asarray(v), mask))
    kind = SEGMENT * 10 + MODALITY * within
    for b in range(2):
        for i in range(6):
            mine = kind[b] == kind[b, i]
            for h in range(2):
                weights = softmax(k[b, h, mine] @ q[b, h, i] / 2.0)
                np.testing.assert_allclose(out[b, h, i], weights @ v[b, h, mine], atol=1e-5)

    def one(v):
        return packed_attention(jnp.asarray(q), jnp.asarray(k), v, mask)[0, 0, 0].sum()

    gradient = np.asarray(jax.grad(one)(jnp.asarray(v)))[0, 0].sum(-1)
    assert ((gradient != 0) == (kind[0] == kind[0, 0])).all()


def test_a_row_of_padding_is_finite():
    q = jnp.ones((1, 1, 3, 2))
    mask = jnp.zeros((1, 3, 3), bool)
    assert jnp.isfinite(packed_attention(q, q, q, mask)).all()
