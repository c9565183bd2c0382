"""GELU and RMS norm with written gradients, against formulas in float64 and JAX's own."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.differentiate
from flax import nnx

from multimed_jax.layers.gelu import gelu
from multimed_jax.layers.rms_norm import RMSNorm


def reference(x: np.ndarray) -> np.ndarray:
    return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def test_gelu_and_its_slope_are_those_of_the_formula():
    x = np.linspace(-12, 12, 961)
    value, slope = jax.vmap(jax.value_and_grad(gelu))(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(value, reference(x), atol=2e-6)
    exact = scipy.differentiate.derivative(reference, x).df
    np.testing.assert_allclose(slope, exact, atol=2e-6)
    assert np.isfinite(jax.grad(gelu)(jnp.float32(-1e4))) and jax.grad(gelu)(1e4) == 1.0


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_rms_norm_is_that_of_flax(dtype):
    rng = np.random.default_rng(0)
    x = jnp.asarray(3 * rng.normal(size=(2, 5, 16)), dtype)
    weights = jnp.asarray(rng.normal(size=x.shape), jnp.float32)
    scale = jnp.asarray(rng.uniform(0.5, 2, 16), jnp.float32)

    def run(kind):
        def loss(x, scale):
            module = kind(16, dtype=dtype, rngs=nnx.Rngs(0))
            module.scale[...] = scale
            y = module(x)
            assert y.dtype == dtype
            return (y * weights).sum(), y

        (_, y), grads = jax.value_and_grad(loss, (0, 1), has_aux=True)(x, scale)
        return y, *grads

    tolerance = 2e-6 if dtype == jnp.float32 else 2e-2
    for found, expected in zip(run(RMSNorm), run(nnx.RMSNorm), strict=True):
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(
            np.asarray(found, np.float32), np.asarray(expected, np.float32), tolerance, tolerance
        )


def kept(function, *args) -> int:
    """Bytes that the backward pass of a function holds."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(jax.vjp(function, *args)[1]))


def test_nothing_but_the_input_is_kept():
    x = jnp.ones((64, 256))
    assert kept(gelu, x) == x.nbytes < kept(jax.nn.gelu, x)
    small = 64 * 4 + 256 * 4  # a number a row, and the scale
    norm = RMSNorm(256, jnp.dtype(jnp.float32), nnx.Rngs(0))
    assert kept(norm, x) <= x.nbytes + small + 4
